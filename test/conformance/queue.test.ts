// The queue's scripts on a real Redis are held against the book in memory, operation by operation: the same replies, the
// same state, the same messages to the same inboxes. Time is an argument of both.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { newId } from '../../src/kernel/ids.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import { FORMAT } from '../../src/kernel/redis/keys.ts'
import { Script } from '../../src/kernel/redis/script.ts'
import { systemClock } from '../../src/kernel/time/clock.ts'
import { BookHub } from '../../src/queue/store/in-memory-broker.ts'
import { BookUser } from '../../src/queue/store/in-memory-client.ts'
import type { CommandBook } from '../../src/queue/store/model/command-state.ts'
import type { JobRecord } from '../../src/queue/store/model/job-record.ts'
import type { Listing } from '../../src/queue/store/model/listing.ts'
import { RedisQueueStore } from '../../src/queue/store/redis/redis-store.ts'
import { buildQueueScripts, type QueueScripts } from '../../src/queue/store/redis/scripts/index.ts'
import type { QueueTime } from '../../src/queue/store/redis/scripts/prelude.ts'
import {
  type AttemptOutcome,
  type AttemptRef,
  type DueJob,
  type JobNotice,
  PENDING_JOB_TTL,
  type QueueStore,
  type Submission,
  type SubmitReply,
  type Termination,
  type WorkerListener,
  type WorkerRef,
} from '../../src/queue/store/store.ts'
import { QueueKeys } from '../../src/queue/submitting/dedupe-id.ts'
import { senderOf } from '../support/clients.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const RUNS = Number(process.env['SOLOFLIGHT_RUNS'] ?? 300)
const WITHIN = 10_000
const LIMITS = { within: WITHIN }
/** Who may wait for a job, and bytes that a message may carry: small, so that both bounds are met. */
const MAX_PARKED = 3
const MESSAGE_LIMIT = 40
const ACCEPT = 150
const EPOCH = 1_700_000_000_000
const COMMANDS = ['add', 'mul'] as const
/** The last belongs to the second command. */
const JOBS = ['job-a', 'job-b', 'job-c', 'job-d'] as const
const commandOf = (id: string) => (id === 'job-d' ? 'mul' : 'add')

/**
 * Time comes from two keys, and a hash holds when keys are forgotten, since the server's own expiry would go by its own
 * time. What is left to chance is left to the order of arrival.
 */
const TEST_TIME: QueueTime = {
  clock: `
local now, us = unpack(redis.call('MGET', 'now', 'us'))
now, us = tonumber(now), tonumber(us)`,
  keep: `
local redis = (function(server)
  local own = {
    PEXPIRE = function(key, ms)
      -- What is kept for as long as anything in it may be needed; when it is forgotten is of no account.
      if string.find(key, '}[iwz]/') or string.find(key, '}[tds]$') then return 0 end
      if server.call('EXISTS', key) == 0 then return 0 end
      if tonumber(ms) <= 0 then
        server.call('DEL', key)
        return server.call('HDEL', 'expiries', key)
      end
      return server.call('HSET', 'expiries', key, int(server.call('GET', 'now') + ms))
    end,
    PTTL = function() return -1 end,
    HRANDFIELD = function(key) return server.call('HKEYS', key)[1] or false end,
  }
  local function through(method)
    return function(name, ...)
      if own[name] then return own[name](...) end
      return method(name, ...)
    end
  end
  return { call = through(server.call), pcall = through(server.pcall) }
end)(redis)
local function keepFor(key, ms) redis.call('PEXPIRE', key, int(ms)) end`,
}

/** Sets the time, and forgets what is over by then. */
const SET_TIME = new Script(`
redis.call('MSET', 'now', ARGV[1], 'us', ARGV[2])
local all = redis.call('HGETALL', 'expiries')
for n = 1, #all, 2 do
  if tonumber(all[n + 1]) <= tonumber(ARGV[1]) then
    redis.call('DEL', all[n])
    redis.call('HDEL', 'expiries', all[n])
  end
end
return 1`)

/** Everything that stands under some keys, and until when. */
const LOOK = new Script(`
local READ = { hash = { 'HGETALL' }, list = { 'LRANGE', 0, -1 }, zset = { 'ZRANGE', 0, -1, 'WITHSCORES' }, set = { 'SMEMBERS' } }
local found = {}
for n, key in ipairs(KEYS) do
  local read = READ[redis.call('TYPE', key).ok]
  if read then
    found[#found + 1] = { n, redis.call('HGET', 'expiries', key) or '', redis.call(read[1], key, unpack(read, 2)) }
  end
end
return found`)

/** What time it is: to the book, to the scripts, and to those who estimate the server's time. */
let time = EPOCH
const clock = { now: () => time, after: systemClock.after }

/** One process, as it is known to both. */
interface Party {
  index: number
  model: BookUser
  redis: QueueStore
  connection: Connection
  /** The highest fence that it was told of. */
  seen: number
  heard: { model: string[]; redis: string[] }
  workers: WorkerRef[]
  gone: boolean
}

const nat = (max: number) => fc.nat({ max })
const mostly = <T>(value: T, ...others: T[]) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, fc.constantFrom(...others))
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 3 }),
  fc.uint8Array({ minLength: MESSAGE_LIMIT, maxLength: MESSAGE_LIMIT + 1 }),
)
const retain = fc.constantFrom(
  { count: 0, age: 0 },
  { count: 1, age: 5000 },
  { count: 2, age: 300 },
  { count: 1000, age: 5000 },
  { count: 5, age: 0 },
)
const ttl = fc.constantFrom(0, 0, 1, 90, 300, 5000)
const outcomeRetention = fc.constantFrom(1, 200, 1500)
/** Length and filling. */
const payload: fc.Arbitrary<readonly [number, number]> = fc.oneof(
  fc.constantFrom([1, 0] as const, [1, 1] as const),
  fc.tuple(fc.constantFrom(0, 63, 64, 65, 128, 255, 256, 257, 1100), nat(1)),
)
const submissionShape = {
  job: nat(JOBS.length - 1),
  awaited: fc.boolean(),
  conflict: fc.constantFrom('reject' as const, 'join' as const, 'rerun' as const, 'rerun' as const),
  delay: mostly(0, 100, 400),
  priority: mostly(0, 1, 2, 11),
  lifo: mostly(false, true),
  abortUnwanted: fc.boolean(),
  requiresWorker: mostly(false, true),
  payload,
  options: fc.constantFrom('', '', '{"a":1}'),
}
const attemptShape = {
  /** Counted from the latest. */
  attempt: fc.oneof({ weight: 4, arbitrary: nat(1) }, nat(6)),
  /** Another fence than its own. */
  forged: mostly('no' as const, 'above' as const, 'current' as const),
}
const endingShape = {
  ...attemptShape,
  kind: fc.constantFrom(
    'value' as const,
    'value' as const,
    'error' as const,
    'retry' as const,
    'requeue' as const,
  ),
  bytes,
  ttl,
  outcomeRetention,
  delay: mostly(0, 100),
  retain,
  releasesSlot: mostly(true, false),
}
const removalShape = {
  kind: fc.constantFrom('error' as const, 'removed' as const),
  bytes,
  outcomeRetention,
}
const job = nat(JOBS.length - 1)
const party = nat(3)
/** What most submissions are, and the scripts have a way of its own for. */
const plainShape = {
  job,
  awaited: fc.boolean(),
  conflict: fc.constant('reject' as const),
  delay: fc.constant(0),
  priority: fc.constant(0),
  lifo: fc.constant(false),
  abortUnwanted: fc.constant(false),
  requiresWorker: fc.constant(false),
  payload: fc.constantFrom([1, 0] as const, [64, 0] as const),
  options: fc.constant(''),
}
const op = fc.oneof(
  { weight: 3, arbitrary: fc.record({ type: fc.constant('submit' as const), party, ...plainShape }) },
  { weight: 9, arbitrary: fc.record({ type: fc.constant('submit' as const), party, ...submissionShape }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('submits' as const),
      party,
      all: fc.array(fc.record(submissionShape), { minLength: 2, maxLength: 5 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('offer' as const),
      party,
      command: mostly(0, 1),
      places: nat(3),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('withdraw' as const), party, command: mostly(0, 1) }),
  },
  { weight: 9, arbitrary: fc.record({ type: fc.constant('finish' as const), ...endingShape }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('finishes' as const),
      all: fc.array(fc.record(endingShape), { minLength: 2, maxLength: 4 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('renew' as const),
      lease: fc.constantFrom(100, 250, 1000),
      ...attemptShape,
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('progress' as const), bytes, ...attemptShape }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('log' as const),
      lines: fc.integer({ min: 1, max: 3 }),
      before: nat(3),
      ...attemptShape,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('drain' as const),
      state: fc.constantFrom('waiting' as const, 'delayed' as const),
      outcomeRetention,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('tick' as const),
      /** Jobs that are looked after beside those that are due. */
      others: fc.subarray([...JOBS]),
      maxStalls: nat(2),
      bytes,
      ttl,
      outcomeRetention,
      retain,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('look' as const),
      party,
      job,
      generation: fc.constantFrom('present' as const, 'next' as const, 'first' as const, 'none' as const),
      /** Parks, under a nonce that it may have used before. */
      nonce: fc.constantFrom('new' as const, 'used' as const, '' as const),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('unpark' as const),
      submission: nat(5),
      onlyIfUnwanted: mostly(true, false),
      ...removalShape,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('end' as const),
      party,
      job,
      onlyIfUnwanted: mostly(false, true),
      ...removalShape,
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('retry' as const), party, job }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constantFrom('pause' as const, 'resume' as const, 'resume' as const),
      command: fc.constantFrom('', 'add', 'add', 'mul'),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('read' as const),
      from: nat(2),
      limit: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('repeat' as const), back: nat(5) }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('wait' as const), ms: fc.integer({ min: -60, max: 250 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('wait' as const),
      ms: fc.constantFrom(16 * 60_000, 8 * 24 * 3_600_000),
    }),
  },
  /** To a moment at which something is due or forgotten, just before it, or just after it. */
  {
    weight: 5,
    arbitrary: fc.record({ type: fc.constant('deadline' as const), which: nat(9), by: mostly(1, 0, 2) }),
  },
  { weight: 1, arbitrary: fc.constant({ type: 'leave' as const }) },
)
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never
type Of<Type extends Op['type']> = Omit<Extract<Op, { type: Type }>, 'type'>
type SubmissionOp = Of<'submits'>['all'][number]
type EndingOp = Of<'finishes'>['all'][number]
type AttemptOp = Pick<EndingOp, 'attempt' | 'forged'>

const hex = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString('hex')

function plain(reply: unknown): unknown {
  return JSON.parse(
    JSON.stringify(reply, (_, value) =>
      value?.type === 'Buffer' ? Buffer.from(value.data).toString('hex') : value,
    ) ?? 'null',
  )
}

/** What Redis is to say instead of what the book says: what is too large for a message is only announced. */
function announced(notice: JobNotice): JobNotice {
  const tooLarge = notice.kind === 'outcome' && notice.outcome.bytes.length > MESSAGE_LIMIT
  return tooLarge ? { kind: 'outcomeReady' } : notice
}

type Names = (text: string) => string

/** A record of the book. */
function stateOfRecord(job: JobRecord, named: Names): object {
  const { outcome, next, rank } = job
  return {
    command: job.command,
    generation: job.generation,
    payload: hex(Buffer.from(job.payload)),
    options: job.options,
    creator: named(job.creator),
    abortUnwanted: job.abortUnwanted,
    rank: rank && `${rank.priority} ${rank.micros} ${rank.turn}`,
    due: job.due,
    fence: job.fence,
    worker: named(job.worker),
    accepted: job.accepted,
    progress: hex(job.progress),
    logged: `${job.logged.fence} ${job.logged.lines}`,
    failed: job.failed,
    stalled: job.stalled,
    givenBack: job.givenBack,
    endedByOthers: job.endedByOthers ?? 0,
    settled: job.settled,
    outcome: outcome && {
      kind: outcome.kind,
      fence: outcome.fence,
      bytes: outcome.kind === 'removed' ? undefined : hex(outcome.bytes),
      freshUntil: outcome.freshUntil,
    },
    listed: job.listed,
    first: named(job.first),
    parks: [...job.parks].map(([park, generation]) => `${named(park)} ${generation}`),
    parked: job.parks.size,
    next: next && { ...next, payload: hex(Buffer.from(next.payload)), creator: named(next.creator) },
    expiresAt: job.expiresAt,
  }
}

const FIELDS = new Set([
  'o',
  'f',
  'l',
  'g',
  'k',
  'v',
  'e',
  's',
  'Y',
  'vu',
  'eu',
  'L',
  'w',
  'n',
  'y',
  'm',
  'b',
  'c',
])
for (const name of ['j', 'a', 'z', 'R', 'F', 'd', 'r', 'u', 'N', 'P', 'B', 'C', 'p']) FIELDS.add(name)
for (let piece = 1; piece < 4; piece++) FIELDS.add(`p${piece}`)
const KINDS: Record<string, string> = { v: 'value', e: 'error', x: 'removed' }
const LISTED: Record<string, string> = { x: 'failed', c: 'completed' }

/** The same out of the fields of a hash; what prelude.ts says of each field is written down here once more. */
function stateOfHash(fields: Map<string, Buffer>, expiresAt: number, named: Names): object {
  const text = (name: string) => fields.get(name)?.toString('latin1')
  const number = (name: string) => Number(text(name) ?? 0)
  const unknown = [...fields.keys()].filter((name) => !FIELDS.has(name) && !name.startsWith('@'))
  assert.deepEqual(unknown, [], 'fields that nobody knows')
  const pieces = ['p', ...Array.from({ length: 3 }, (_, index) => `p${index + 1}`)]
  const kind = text('k')
  const first = text('w') ?? ''
  const [, priority, micros, turn] = /^(\d+) (\d{16})(\d{3})$/.exec(text('r') ?? '') ?? []
  const parks = [...fields].filter(([name]) => name.startsWith('@'))
  return {
    command: text('m'),
    generation: number('y'),
    payload: pieces.map((name) => hex(fields.get(name)) ?? '').join(''),
    options: text('b') ?? '',
    creator: named(text('c') ?? first.slice(22)),
    abortUnwanted: text('u') === '1',
    rank: priority && `${priority} ${Number(micros)} ${Number(turn)}`,
    due: fields.has('d') ? number('d') : undefined,
    fence: number('f'),
    worker: named(text('o') ?? ''),
    accepted: text('l') === '1',
    progress: hex(fields.get('g')),
    logged: text('j') ?? '0 0',
    failed: number('a'),
    stalled: number('z'),
    givenBack: number('R'),
    endedByOthers: number('F'),
    settled: number('Y'),
    outcome: kind && {
      kind: KINDS[kind],
      fence: number('s'),
      bytes: kind === 'x' ? undefined : hex(fields.get(kind)),
      freshUntil: kind === 'x' ? 0 : number(`${kind}u`),
    },
    listed: LISTED[text('L') ?? ''],
    first: named(first),
    parks: parks.map(([park, generation]) => `${named(park.slice(1))} ${generation}`),
    parked: number('n'),
    next: fields.has('N')
      ? {
          generation: number('N'),
          payload: hex(fields.get('P')),
          options: text('B') ?? '',
          creator: named(text('C') ?? ''),
        }
      : undefined,
    expiresAt,
  }
}

interface Found {
  until: number
  content: Buffer[]
}

function pairs(found: Found | undefined): [string, Buffer][] {
  const { content = [] } = found ?? {}
  const all: [string, Buffer][] = []
  for (let at = 0; at + 1 < content.length; at += 2)
    all.push([String(content[at]), content[at + 1] as Buffer])
  return all
}

const texts = (found: Found | undefined): string[] => (found?.content ?? []).map(String)

/** The first word of every member, and its score. */
const scores = (found: Found | undefined): string[] =>
  pairs(found).map(([name, at]) => `${name.split(' ')[0]} ${at}`)

const moments = (times: { ids(): string[]; at(id: string): number | undefined }): string[] =>
  times.ids().map((id) => `${id} ${times.at(id)}`)

function stateOfListing(listing: Listing): object {
  return { finished: moments(listing.finished), until: listing.finished.size > 0 ? listing.until : 0 }
}

function stateOfCommand(command: CommandBook, named: Names): object {
  const { line, places, closed, workers, workersUntil } = command
  return {
    line: line.ids(),
    places: places.map(named),
    closed,
    workers: [...workers].map(([worker, count]) => `${named(worker)} ${count}`),
    workersUntil: workers.size > 0 ? workersUntil : 0,
  }
}

/** A command on Redis: the keys of what awaited, of idle places, of workers, and of what has a priority. */
function stateOfLists([w, i, r, z]: (Found | undefined)[], named: Names): object {
  const ranked = pairs(z).map(([member]) => member.slice(19))
  const places = texts(i)
  return {
    line: texts(w).map((id) => (id === '!' ? ranked.shift() : id)),
    places: places.slice(places[0] === 'P' ? 1 : 0).map(named),
    closed: places[0] === 'P',
    workers: pairs(r).map(([worker, count]) => `${named(worker)} ${count}`),
    workersUntil: r ? r.until : 0,
  }
}

/** The two worlds, and the operations on both. */
class Worlds {
  readonly #client: Redis
  readonly #names = new QueueKeys('p', 'q')
  readonly #hub: BookHub
  readonly #parties: Party[] = []
  /** The highest fence that who acts was told of before. */
  #seen = 0
  #turn = 1
  /** Whether anything was said since it was last waited for. */
  #told = false
  /** Whether a batch was sent. */
  #together = false
  readonly #submissions: { party: Party; submission: Submission }[] = []
  /** Those who wait and have been told nothing: where they are parked. Those who have been told, and those who have left. */
  readonly #owed = new Map<string, { id: string; park: string }>()
  readonly #settled = new Set<string>()
  readonly #left = new Set<string>()
  readonly #offered = new Set<string>()
  readonly #nonces: string[] = []
  readonly #attempts: { party: Party; attempt: AttemptRef }[] = []
  readonly #past: (() => Promise<void>)[] = []
  readonly #words = new Map<string, string>()
  readonly #cleanup: (() => void)[] = []

  constructor(client: Redis) {
    this.#client = client
    this.#hub = new BookHub({
      clock,
      carry: (message) => {
        this.#told = true
        message()
      },
      maxParked: MAX_PARKED,
      accept: ACCEPT,
      changed: () => {},
      numbers: () => ({ micros: time * 1000, seen: this.#seen, turn: this.#turn }),
    })
  }

  async open(connections: Connection[], scripts: QueueScripts): Promise<void> {
    for (const connection of connections) this.#enter(connection, scripts)
    await this.#setTime(EPOCH)
  }

  #enter(connection: Connection, scripts: QueueScripts): void {
    const index = this.#parties.length
    const options = {
      scripts,
      maxParked: MAX_PARKED,
      messageLimit: MESSAGE_LIMIT,
      accept: ACCEPT,
      drainStep: 2,
    }
    const model = new BookUser(this.#hub)
    const redis = new RedisQueueStore(connection, 'p', 'q', options)
    this.#words.set(model.inbox, `party${index}`).set(connection.inbox.id, `party${index}`)
    const workers = COMMANDS.map((command) => ({ nonce: this.#nonce(`worker-${command}`), command }))
    const party = {
      index,
      model,
      redis,
      connection,
      seen: 0,
      heard: { model: [], redis: [] },
      workers,
      gone: false,
    }
    this.#parties.push(party)
    this.#cleanup.push(() => {
      for (const nonce of this.#words.keys()) redis.unregister(nonce)
      redis.close()
    })
  }

  #nonce(word: string): string {
    const nonce = newId()
    this.#words.set(nonce, word)
    return nonce
  }

  #party(index: number): Party {
    return this.#parties[index % this.#parties.length] as Party
  }

  /** Ids as words that are the same in both worlds. */
  readonly #named: Names = (text) =>
    [text.slice(0, 22), text.slice(22)].map((id) => this.#words.get(id) ?? (id && `?${id}`)).join(' ')

  async #setTime(to: number): Promise<void> {
    time = to
    this.#hub.sweep()
    await SET_TIME.with([], [String(time), String(time * 1000)]).send(senderOf(this.#client))
    // Everybody learns what time it is on the server.
    const nothing = { worker: { nonce: '', command: 'add' }, id: 'none', fence: 0 }
    await Promise.all(
      this.#parties.filter(({ gone }) => !gone).map(({ redis }) => redis.renew(nothing, 1, LIMITS)),
    )
  }

  async apply(op: Op): Promise<void> {
    await this.#do(op)
    if (this.#told) await this.#drain()
    this.#told = false
    this.#hub.sweep()
    await this.compare()
    for (const { heard } of this.#parties) this.#compareHeard(heard)
    this.#together = false
  }

  /** What a batch says is in the same order for each of its items only. */
  #compareHeard({ model, redis }: Party['heard']): void {
    if (model.length === 0 && redis.length === 0) return
    const inOrder = (heard: string[]) => (this.#together ? heard.sort() : heard).splice(0)
    assert.deepEqual(inOrder(redis), inOrder(model), 'messages')
  }

  async #do(op: Op): Promise<void> {
    switch (op.type) {
      case 'submit':
        return this.#again(this.#submits(op.party, [op]))
      case 'submits':
        return this.#again(this.#submits(op.party, op.all))
      case 'offer':
      case 'withdraw':
        return this.#again(this.#worker(op))
      case 'finish':
        return this.#finishes([op])
      case 'finishes':
        return this.#finishes(op.all)
      case 'renew':
        return this.#withAttempt(op, (store, attempt) => store.renew(attempt, op.lease, LIMITS))
      case 'progress':
        return this.#withAttempt(op, (store, attempt) =>
          store.publishProgress(attempt, Buffer.from(op.bytes), LIMITS),
        )
      case 'log':
        return this.#withAttempt(op, async (store, attempt) => {
          const lines = Array.from({ length: op.lines }, (_, n) => `line ${attempt.fence} ${op.before + n}`)
          await store.appendLog(attempt, lines, op.before, LIMITS)
          return store.readLog(attempt.id, LIMITS)
        })
      case 'tick':
        return this.#tick(op)
      case 'look':
        return this.#look(op)
      case 'unpark':
        return this.#unpark(op)
      case 'end': {
        const removal = this.#removal(JOBS[op.job] as string, op)
        return this.#both(op.party, (store) => store.terminate(removal, LIMITS))
      }
      case 'drain':
        return this.#both(0, (store) => store.drain(op.state, op.outcomeRetention, LIMITS))
      case 'retry': {
        const id = JOBS[op.job] as string
        const generation = (await this.#party(op.party).model.snapshot(id))?.generation ?? 0
        return this.#both(op.party, (store) => store.retry(id, commandOf(id), generation, LIMITS))
      }
      case 'pause':
      case 'resume':
        return this.#both(0, (store) => store[op.type](op.command, LIMITS))
      case 'read':
        return this.#read(op)
      case 'repeat':
        return this.#past.at(-1 - op.back)?.()
      case 'wait':
        return this.#setTime(time + op.ms)
      case 'deadline':
        return this.#deadline(op)
      case 'leave':
        return this.#leave()
    }
  }

  async #again(operation: () => Promise<void>): Promise<void> {
    this.#past.push(operation)
    await operation()
  }

  /** Does with both stores what is done with one; and so it is done when it is sent again. */
  #both<T>(index: number, act: (store: QueueStore) => Promise<T>): Promise<void> {
    return this.#again(async () => {
      const party = this.#act(index)
      if (!party) return
      const reply = await act(party.model)
      assert.deepEqual(plain(await act(party.redis)), plain(reply), 'reply')
    })
  }

  /** The party that acts, unless it is gone. */
  #act(index: number): Party | undefined {
    const party = this.#party(index)
    this.#seen = party.seen
    return party.gone ? undefined : party
  }

  /** The submissions of one tick of one process. */
  #submits(index: number, ops: SubmissionOp[]): () => Promise<void> {
    const all = ops.map((op) => this.#submission(this.#party(index), op))
    return async () => {
      const party = this.#act(index)
      if (!party) return
      // What comes back from one who is gone comes back behind a whole batch; and commands become known together.
      const known = this.#hub.book.state.commands(time).length === COMMANDS.length
      if (known && !this.#parties.some(({ gone }) => gone)) return this.#submit(party, all)
      for (const submission of all) {
        await this.#drain()
        this.#act(index)
        await this.#submit(party, [submission])
      }
    }
  }

  #submission(party: Party, op: SubmissionOp): Submission {
    const id = JOBS[op.job] as string
    const [length, fill] = op.payload
    const { awaited, conflict, delay, priority, lifo, abortUnwanted, requiresWorker, options } = op
    const nonce = this.#nonce(`submission${this.#submissions.length}`)
    const flags = { awaited, conflict, delay, priority, lifo, abortUnwanted, requiresWorker }
    const submission = {
      id,
      command: commandOf(id),
      payload: String.fromCharCode(fill + 1).repeat(length),
      options,
      nonce,
      ...flags,
    }
    this.#submissions.push({ party, submission })
    return submission
  }

  async #submit(party: Party, all: Submission[]): Promise<void> {
    this.#together ||= all.length > 1
    const replies = await Promise.all(all.map((submission) => this.#answer(party, 'redis', submission)))
    for (const [at, submission] of all.entries()) {
      this.#turn = at + 1
      const reply = await this.#answer(party, 'model', submission)
      assert.deepEqual(plain(replies[at]), plain(reply), 'reply to a submission')
      this.#owe(party, submission, reply)
    }
    this.#turn = 1
  }

  /** Notes that somebody waits from now on: not one who had been told when this was sent again. */
  #owe({ model }: Party, { id, nonce, awaited }: Submission, { status }: SubmitReply): void {
    const isPending = this.#hub.book.state.jobs.get(id)?.over === false
    const park = model.inbox + nonce
    if (!awaited || !isPending || this.#left.has(nonce)) return
    if (this.#settled.has(nonce) && !this.#isParked(id, park)) return
    if (status === 'created' || status === 'joined') this.#owed.set(nonce, { id, park })
  }

  #isParked(id: string, park: string): boolean {
    const job = this.#hub.book.state.jobs.get(id)
    return job !== undefined && (job.first === park || job.parks.has(park))
  }

  /** The reply to a submission, as a promise; what is told later is noted. */
  #answer(party: Party, world: 'model' | 'redis', submission: Submission): Promise<SubmitReply> {
    const notice = this.#waiter(party, world, submission.nonce)
    return new Promise((answered, failed) =>
      party[world].submit(submission, WITHIN, { onReply: answered, onError: failed, onNotice: notice }),
    )
  }

  #waiter(party: Party, world: 'model' | 'redis', nonce: string): (notice: JobNotice) => void {
    const word = this.#words.get(nonce)
    return (notice) => {
      const said = world === 'model' ? announced(notice) : notice
      if (world === 'model' && notice.kind !== 'progress') {
        this.#owed.delete(nonce)
        this.#settled.add(nonce)
      }
      party.heard[world].push(`${word} ${JSON.stringify(plain(said))}`)
    }
  }

  #worker(
    op: ({ type: 'offer' } & Of<'offer'>) | ({ type: 'withdraw' } & Of<'withdraw'>),
  ): () => Promise<void> {
    return async () => {
      const party = this.#act(op.party)
      const name = party?.workers[op.command]
      // One that was never offered is not told that it is withdrawn.
      if (!party || !name || (op.type === 'withdraw' && !this.#offered.has(name.nonce))) return
      this.#offered.add(name.nonce)
      for (const world of ['model', 'redis'] as const) {
        const store = party[world]
        if (op.type === 'offer')
          await store.setCapacity(name, op.places, this.#listener(party, world, name), LIMITS)
        else await store.removeWorker(name, LIMITS)
      }
    }
  }

  #listener(party: Party, world: 'model' | 'redis', worker: WorkerRef): WorkerListener {
    const note = (...said: unknown[]) =>
      party.heard[world].push(`${worker.command} ${JSON.stringify(plain(said))}`)
    return {
      onDelivery: (delivery) => {
        // Redis tells its time in whole milliseconds: one less is sure.
        const { leaseLeft } = delivery
        note('deliver', {
          ...delivery,
          leaseLeft: world === 'redis' && leaseLeft > 0 ? leaseLeft + 1 : leaseLeft,
        })
        if (world === 'redis') return
        const { id, fence } = delivery
        party.seen = Math.max(party.seen, fence)
        this.#attempts.unshift({ party, attempt: { worker, id, fence } })
      },
      onCancelled: (id, fence) => note('cancelled', id, fence),
      onDue: (ms) => note('due', ms),
      onCapacityRequested: () => note('forgotten'),
    }
  }

  /** An attempt, with its own fence or another. */
  #attempt({
    attempt,
    forged,
  }: {
    attempt: number
    forged: 'no' | 'above' | 'current'
  }): { party: Party; attempt: AttemptRef } | undefined {
    const found = this.#attempts[attempt % (this.#attempts.length || 1)]
    if (!found || forged === 'no') return found
    const { party, attempt: given } = found
    const current = this.#hub.book.state.jobs.get(given.id)?.fence || given.fence
    return { party, attempt: { ...given, fence: forged === 'above' ? given.fence + 1 : current } }
  }

  async #withAttempt<T>(
    op: AttemptOp,
    act: (store: QueueStore, attempt: AttemptRef) => Promise<T>,
  ): Promise<void> {
    const found = this.#attempt(op)
    if (found) await this.#both(found.party.index, (store) => act(store, found.attempt))
  }

  /** What one process ends in one tick. */
  async #finishes(ops: EndingOp[]): Promise<void> {
    const endings: AttemptOutcome[] = []
    let by: Party | undefined
    for (const op of ops) {
      const found = this.#attempt(ops.length === 1 || op.forged !== 'above' ? op : { ...op, forged: 'no' })
      if (!found || (by && found.party !== by)) continue
      const { id, fence } = found.attempt
      // All are read before any is ended: what is said of an older attempt of the same job may be older.
      if (endings.some((other) => other.id === id && other.fence !== fence)) continue
      by = found.party
      const { kind, ttl, outcomeRetention, delay, retain, releasesSlot } = op
      // Together, what is put in line first is not handed out before the rest is.
      const calm = ops.length === 1 || kind === 'value' || kind === 'error' ? kind : 'value'
      const bytes = Buffer.from(op.bytes)
      endings.push({
        ...found.attempt,
        kind: calm,
        bytes,
        ttl,
        outcomeRetention,
        delay,
        retain,
        releasesSlot,
      })
    }
    if (!by) return
    const { index } = by
    await this.#again(() => this.#finish(index, endings))
  }

  async #finish(index: number, endings: AttemptOutcome[]): Promise<void> {
    const party = this.#act(index)
    if (!party) return
    const together = this.#endAlike(endings)
    this.#together ||= endings.length > 1
    const ends = (ending: AttemptOutcome) => party.redis.finish(ending, LIMITS)
    const replies = together ? await Promise.all(endings.map(ends)) : []
    for (const [at, ending] of endings.entries()) {
      if (!together) await this.#drain()
      if (!together) this.#act(index)
      const reply = await party.model.finish(ending)
      assert.equal(together ? replies[at] : await ends(ending), reply, 'reply to an ending')
    }
  }

  /** Whether it makes no difference that they end together: what is put in line then is not handed out before all have. */
  #endAlike(endings: AttemptOutcome[]): boolean {
    const { state } = this.#hub.book
    const again = new Set(endings.map(({ id }) => state.jobs.get(id)).filter((job) => job?.next))
    const beside = [...again].some((job) => job && state.command(job.command).line.length > 0)
    return again.size <= 1 && !beside && !this.#parties.some(({ gone }) => gone)
  }

  #tick({ others, maxStalls, bytes, ttl: errorTtl, outcomeRetention, retain }: Of<'tick'>): Promise<void> {
    const due = this.#hub.book.due(time).jobs
    const rest = others.filter((id) => !due.some((job) => job.id === id))
    const jobs: DueJob[] = [...due, ...rest.map((id) => ({ id, command: commandOf(id) }))]
    if (jobs.length === 0) return Promise.resolve()
    const terms = { maxStalls, failure: Buffer.from(bytes), errorTtl, outcomeRetention, retain }
    return this.#both(0, (store) => store.processDue(jobs, terms, LIMITS))
  }

  #look(op: Of<'look'>): Promise<void> {
    const id = JOBS[op.job] as string
    const { generation: present = 0, next, settled = 0 } = this.#hub.book.state.jobs.get(id) ?? {}
    const generation = {
      present,
      next: next?.generation ?? present + 1,
      first: Math.max(1, settled),
      none: 1,
    }[op.generation]
    const nonce = this.#lookingNonce(op.nonce)
    return this.#again(async () => {
      const party = this.#act(op.party)
      if (!party) return
      for (const world of ['model', 'redis'] as const) {
        if (nonce !== '') party[world].registerWaiter(nonce, { onNotice: this.#waiter(party, world, nonce) })
      }
      const reply = await party.model.queryOutcome({ id, generation, nonce })
      assert.deepEqual(
        plain(await party.redis.queryOutcome({ id, generation, nonce }, LIMITS)),
        plain(reply),
        'answer',
      )
    })
  }

  #lookingNonce(which: Of<'look'>['nonce']): string {
    if (which === '') return ''
    const used = which === 'used' ? this.#submissions.at(-1)?.submission.nonce : undefined
    const nonce = used ?? this.#nonce(`looker${this.#nonces.length}`)
    this.#nonces.push(nonce)
    return nonce
  }

  #removal(
    id: string,
    { kind, bytes, outcomeRetention, onlyIfUnwanted }: Of<'unpark'> | Of<'end'>,
  ): Termination {
    return {
      id,
      command: commandOf(id),
      kind,
      bytes: Buffer.from(kind === 'error' ? bytes : []),
      outcomeRetention,
      onlyIfUnwanted,
    }
  }

  #unpark(op: Of<'unpark'>): Promise<void> {
    const found = this.#submissions.at(-1 - op.submission)
    if (!found) return Promise.resolve()
    const { party, submission } = found
    const { id, nonce } = submission
    const removal = this.#removal(id, op)
    return this.#both(party.index, (store) => {
      this.#left.add(nonce)
      this.#owed.delete(nonce)
      return store.unpark(nonce, removal, LIMITS)
    })
  }

  async #read({ from, limit }: Of<'read'>): Promise<void> {
    for (const state of ['waiting', 'delayed', 'active', 'completed', 'failed'] as const)
      await this.#both(0, (store) => store.list(state, from, limit, LIMITS))
    for (const id of JOBS) await this.#both(0, (store) => store.snapshot(id, LIMITS))
    await this.#both(0, (store) => store.counts(LIMITS))
    await this.#both(0, (store) => store.findDue(LIMITS))
    await this.#both(0, (store) => store.commands(LIMITS))
    await this.#both(0, async (store) => (await store.pausedCommands(LIMITS)).sort())
  }

  async #deadline({ which, by }: Of<'deadline'>): Promise<void> {
    const { jobs, times } = this.#hub.book.state
    const ends = [...jobs.values()].flatMap((job) => [
      times.at(job.id),
      job.outcome?.freshUntil,
      job.expiresAt,
    ])
    const ahead = ends.filter(
      (at): at is number => at !== undefined && at > time && at < time + PENDING_JOB_TTL / 2,
    )
    const at = ahead[which % (ahead.length || 1)]
    if (at !== undefined) await this.#setTime(at - 1 + by)
  }

  /** The last process goes, without a word. */
  async #leave(): Promise<void> {
    const party = this.#party(this.#parties.length - 1)
    if (party.gone) return
    party.gone = true
    party.model.close()
    for (const [nonce, { park }] of this.#owed)
      if (park.startsWith(party.model.inbox)) this.#owed.delete(nonce)
    await party.connection.close()
    const left = async () => (await this.#client.pubsub('NUMSUB', party.connection.inboxChannel))[1] === 0
    await until(left, { what: 'the server to see that it has gone', every: 1 })
  }

  /** What the book itself must keep: no job is lost, none waits beside a free place, and who waits is on a record. */
  #checkBook(): void {
    const { jobs, times, delayed } = this.#hub.book.state
    for (const name of COMMANDS) {
      const { line, places, closed } = this.#hub.book.state.command(name)
      assert.ok(closed || places.length === 0 || line.length === 0, `${name} waits beside a free place`)
      const ids = line.ids()
      assert.equal(new Set(ids).size, ids.length, 'a job stands in line twice')
      for (const id of ids) assert.ok(jobs.get(id)?.over === false, `${id} is over and waits`)
    }
    for (const job of jobs.values()) {
      const isReady = this.#hub.book.state.command(job.command).line.ids().includes(job.id)
      const runs = job.worker !== '' && times.at(job.id) !== undefined
      const later = job.due !== undefined && times.at(job.id) === job.due && delayed.at(job.id) === job.due
      const ways = [job.over, isReady, runs, later].filter(Boolean).length
      assert.equal(ways, 1, `${job.id} is over, is ready, runs, or is delayed`)
    }
    for (const [nonce, { id, park }] of this.#owed) {
      assert.ok(this.#isParked(id, park), `${this.#words.get(nonce)} is forgotten`)
    }
  }

  async compare(): Promise<void> {
    this.#checkBook()
    const { state } = this.#hub.book
    const commands = COMMANDS.flatMap((name) => this.#names.command(name))
    const jobs = JOBS.map((id) => this.#names.job(id))
    const reply = await LOOK.with([...this.#names.shared, ...commands, ...jobs], []).send(
      senderOf(this.#client),
    )
    const found: (Found | undefined)[] = []
    for (const [at, until, content] of reply as [number, Buffer, Buffer[]][])
      found[at - 1] = { until: Number(String(until) || Number.POSITIVE_INFINITY), content }
    const [t, d, x, c, q, s, ...rest] = found
    const listing = (set: Found | undefined) => ({ finished: scores(set), until: set?.until ?? 0 })
    const known = state.commands(time)
    const redis = {
      times: scores(t),
      delayed: scores(d),
      failed: listing(x),
      completed: listing(c),
      known: pairs(q).map(([, name]) => String(name)),
      knownUntil: q?.until ?? 0,
      paused: texts(s).sort(),
      commands: COMMANDS.map((_, n) =>
        stateOfLists(
          Array.from({ length: 4 }, (_, k) => rest[4 * n + k]),
          this.#named,
        ),
      ),
      jobs: JOBS.map((_, n) => {
        const one = rest[4 * COMMANDS.length + n]
        return one && stateOfHash(new Map(pairs(one)), one.until, this.#named)
      }),
    }
    const model = {
      times: moments(state.times),
      delayed: moments(state.delayed),
      failed: stateOfListing(state.failed),
      completed: stateOfListing(state.completed),
      known,
      knownUntil: known.length > 0 ? state.knownUntil : 0,
      paused: [...state.paused].sort(),
      commands: COMMANDS.map((name) => stateOfCommand(state.command(name), this.#named)),
      jobs: JOBS.map((id) => {
        const record = state.jobs.get(id)
        return record && stateOfRecord(record, this.#named)
      }),
    }
    assert.deepEqual(redis, model, 'state')
  }

  /** Waits until everything that was published so far has arrived. */
  async #drain(): Promise<void> {
    const present = this.#parties.filter(({ gone }) => !gone)
    const arrived = present.map(
      ({ connection }) =>
        new Promise<void>((resolve) => {
          const marker = newId()
          connection.inbox.listen(marker, {
            hint() {
              connection.inbox.ignore(marker)
              resolve()
            },
          })
          void this.#client.publish(connection.inboxChannel, `${FORMAT}${marker}m`)
        }),
    )
    await Promise.all(arrived)
  }

  async close(): Promise<void> {
    for (const clean of this.#cleanup) clean()
    await this.#client.flushall()
  }
}

/** A server on which fields keep their order, so that it is known who is told first. */
const SERVER = ['--hash-max-listpack-value', '4096', '--hash-max-listpack-entries', '1024']

async function open() {
  const t = await setup({ args: SERVER })
  const client = await t.client()
  const connect = async () => {
    const connection = new Connection(t.redis, { clock })
    await connection.call(new Script('return 1').with([], []), WITHIN)
    await until(() => connection.subscribed, { what: 'a subscription', every: 1 })
    return connection
  }
  const connections = await Promise.all([connect(), connect(), connect()])
  return {
    /** Whether both worlds agree on all that `ops` do. */
    property: (scripts: QueueScripts) =>
      fc.asyncProperty(fc.array(op, { minLength: 1, maxLength: 40, size: 'max' }), async (ops) => {
        const worlds = new Worlds(client)
        const leaver = ops.some(({ type }) => type === 'leave') ? [await connect()] : []
        try {
          await worlds.open([...connections, ...leaver], scripts)
          for (const op of ops) await worlds.apply(op)
        } finally {
          await worlds.close()
          for (const connection of leaver) await connection.close()
        }
      }),
    async [Symbol.asyncDispose]() {
      for (const connection of connections) await connection.close()
      await t[Symbol.asyncDispose]()
    },
  }
}

const seed = process.env['SOLOFLIGHT_SEED']

test('S1 S2 S3 S6 queue conformance - the scripts do what the book does', async () => {
  await using t = await open()
  const given = seed === undefined ? {} : { seed: Number(seed) }
  await fc.assert(t.property(buildQueueScripts(TEST_TIME)), {
    numRuns: RUNS,
    examples: SELDOM,
    includeErrorInReport: true,
    ...given,
  })
})

/** A submission as most are. */
const submit = (party: number, job: number, other: Partial<SubmissionOp> = {}): Op => ({
  ...{ type: 'submit', party, job, awaited: true, conflict: 'reject', delay: 0, priority: 0, lifo: false },
  ...{ abortUnwanted: false, requiresWorker: false, payload: [1, 0], options: '', ...other },
})
const offer = (party: number, places: number): Op => ({ type: 'offer', party, command: 0, places })
const withdraw = (party: number): Op => ({ type: 'withdraw', party, command: 0 })
const finish = (kind: EndingOp['kind'], other: Partial<EndingOp> = {}): Op => ({
  ...{
    type: 'finish',
    attempt: 0,
    forged: 'no',
    kind,
    bytes: Uint8Array.of(1),
    ttl: 0,
    outcomeRetention: 1500,
    delay: 0,
  },
  ...{ retain: { count: 0, age: 0 }, releasesSlot: true, ...other },
})
const finishes = (all: Op[]): Op => ({ type: 'finishes', all: all as EndingOp[] })
const tick = (maxStalls: number, others: (typeof JOBS)[number][] = []): Op => ({
  ...{ type: 'tick', others, maxStalls, bytes: Uint8Array.of(2), ttl: 0, outcomeRetention: 1500 },
  retain: { count: 0, age: 0 },
})
const wait = (ms: number): Op => ({ type: 'wait', ms })
const repeat = (back: number): Op => ({ type: 'repeat', back })
const renew = (forged: AttemptOp['forged']): Op => ({ type: 'renew', lease: 1000, attempt: 0, forged })
const log: Op = { type: 'log', lines: 1, before: 0, attempt: 0, forged: 'no' }
const drain: Op = { type: 'drain', state: 'waiting', outcomeRetention: 200 }
const read: Op = { type: 'read', from: 0, limit: 4 }
const end = (job: number, kind: 'removed' | 'error' = 'removed'): Op => ({
  ...{
    type: 'end',
    party: 0,
    job,
    onlyIfUnwanted: false,
    kind,
    bytes: Uint8Array.of(),
    outcomeRetention: 1500,
  },
})
const unpark = (submission: number): Op => ({
  ...{
    type: 'unpark',
    submission,
    onlyIfUnwanted: true,
    kind: 'error',
    bytes: Uint8Array.of(3),
    outcomeRetention: 200,
  },
})
const retry = (job: number): Op => ({ type: 'retry', party: 0, job })
const pause = (command: '' | 'add'): Op => ({ type: 'pause', command })
const resume = (command: '' | 'add'): Op => ({ type: 'resume', command })
const unwanted = { abortUnwanted: true }
const other = { payload: [1, 1] as const, conflict: 'rerun' as const }

/** What chance meets too seldom: tried first, in every run of the property. */
const SELDOM: [Op[]][] = [
  // The worker has gone: of a plain job, and of one that another worker can take.
  [[offer(3, 2), { type: 'leave' }, submit(0, 0)]],
  [[offer(3, 2), offer(0, 2), { type: 'leave' }, submit(0, 0, { priority: 1 }), submit(0, 1)]],
  [[offer(3, 2), { type: 'leave' }, submit(0, 0, { priority: 1 }), submit(0, 1)]],
  [[offer(3, 2), offer(0, 2), { type: 'leave' }, submit(0, 0), submit(1, 1)]],
  // All is said twice, and again when it is over.
  [[offer(0, 1), submit(0, 0), repeat(0), submit(1, 0), repeat(0), finish('value'), repeat(0), repeat(2)]],
  [[offer(0, 2), submit(0, 0), finish('value', { ttl: 5000, outcomeRetention: 1 }), submit(1, 0)]],
  // Given back, then cancelled before another attempt, and the first said again.
  [[offer(0, 1), submit(0, 0), finish('retry', { delay: 100 }), end(0), repeat(1)]],
  // Said again by one who has asked for the run before it meanwhile.
  [
    [
      submit(0, 0),
      submit(1, 0, { ...other, awaited: false }),
      { type: 'look', party: 1, job: 0, generation: 'present', nonce: 'used' },
      repeat(1),
    ],
  ],
  // Said again when its job runs once more: who has been told is not told again.
  [[offer(0, 1), submit(0, 0), finish('value'), retry(0), repeat(2), finish('value')]],
  // A worker that was withdrawn gets a place back, and is withdrawn again.
  [[offer(0, 1), submit(0, 0), withdraw(0), finish('value'), withdraw(0)]],
  // Those who wait leave, one after the other.
  [[0, 1, 2, 0, 1].map((party) => submit(party, 0, unwanted)).concat([4, 0, 1, 2, 3].map(unpark))],
  [
    [
      submit(0, 0, unwanted),
      submit(1, 0, { ...unwanted, awaited: false }),
      submit(1, 0, { awaited: false }),
      unpark(2),
    ],
  ],
  // What came back stands before one with a priority.
  [
    [
      submit(0, 1, { priority: 1 }),
      offer(0, 1),
      submit(0, 2, { priority: 2 }),
      finish('requeue', { releasesSlot: false }),
      submit(0, 0, { lifo: true }),
    ],
  ],
  [
    [
      submit(0, 0),
      submit(0, 1, { priority: 1 }),
      submit(0, 2, { priority: 2 }),
      offer(0, 1),
      finish('value'),
    ],
  ],
  // Only one is kept for being listed.
  [
    [
      offer(0, 2),
      submit(0, 0),
      submit(0, 1),
      ...[0, 1].map((attempt) => finish('error', { attempt, retain: { count: 1, age: 5000 } })),
    ],
  ],
  // A rerun is put in line while others end and another job waits.
  [
    [
      offer(0, 2),
      submit(0, 0),
      submit(0, 1),
      submit(0, 0, other),
      submit(0, 2),
      wait(1),
      finishes([finish('value', { attempt: 0 }), finish('value', { attempt: 1 })]),
    ],
  ],
  // What is listed behind another ends before it, and is read.
  [
    [
      offer(0, 2),
      submit(0, 0),
      submit(0, 1),
      finish('value', { retain: { count: 1, age: 5000 } }),
      finish('value', { attempt: 1, retain: { count: 2, age: 300 } }),
      wait(300),
      read,
    ],
  ],
  // A worker is lost again and again.
  [
    [
      offer(0, 1),
      submit(0, 0),
      wait(151),
      tick(2),
      offer(0, 2),
      wait(151),
      tick(2),
      offer(0, 1),
      wait(151),
      tick(0),
    ],
  ],
  // Attempts fail, and all begins anew.
  [[offer(0, 1), submit(0, 0), finish('retry'), finish('value'), retry(0), end(0), retry(0)]],
  [[submit(0, 0), end(0), retry(0)]],
  [[offer(0, 1), submit(0, 0, { payload: [256, 0] }), finish('value'), submit(0, 0), end(0)]],
  // Another generation waits meanwhile.
  [
    [
      offer(0, 1),
      submit(0, 0),
      submit(1, 0, other),
      { type: 'progress', attempt: 0, forged: 'no', bytes: Uint8Array.of(4) },
      finish('value'),
      finish('value'),
    ],
  ],
  [[offer(0, 1), submit(0, 0), submit(1, 0, other), end(0)]],
  // What is paused.
  [
    [
      offer(0, 1),
      pause('add'),
      submit(0, 0),
      submit(1, 0),
      offer(0, 2),
      submit(0, 1, { priority: 1 }),
      pause(''),
      resume('add'),
      resume(''),
    ],
  ],
  [[pause(''), offer(0, 2), submit(0, 0), resume('')]],
  [[offer(0, 1), pause(''), wait(8 * 24 * 3_600_000), resume(''), offer(0, 1)]],
  // By another fence than its own.
  [[offer(0, 1), submit(0, 0), renew('no'), renew('above'), finish('value', { forged: 'above' })]],
  // An attempt ends twice in one tick.
  [[offer(0, 1), submit(0, 0), finishes([finish('value'), finish('value')])]],
  // Others end a job as its worker is about to.
  [[offer(0, 1), submit(0, 0), end(0, 'error'), finish('error')]],
  // A retry comes again when the job is over once more.
  [[submit(0, 0), end(0, 'error'), retry(0), end(0, 'error'), repeat(1)]],
  // Of two reruns the newer one is kept, even if it is what runs.
  [[submit(0, 0), submit(1, 0, other), submit(1, 0, { conflict: 'rerun' })]],
  // Lines come again.
  [[offer(0, 1), submit(0, 0), log, log]],
  // A job that waits is drained, and one that may run is looked after too early.
  [[submit(0, 0), drain, read]],
  [[offer(0, 1), submit(0, 0), tick(0, ['job-a'])]],
  // An idle worker learns when a job is due; what comes last is to be first.
  [[offer(0, 1), submit(0, 0, { delay: 100 })]],
  [[submit(0, 0), submit(0, 1, { lifo: true })]],
  // More than one piece, and more than a message may carry.
  [
    [
      submit(0, 0, { payload: [65, 0] }),
      offer(0, 1),
      finish('value', { bytes: new Uint8Array(MESSAGE_LIMIT + 1) }),
    ],
  ],
]

/** A known bug: what stands in the scripts, and what stands there instead. */
const MUTANTS: Record<string, [from: string, to: string][]> = {
  'a submission that is not idempotent': [
    ['local again = r[8] == park or r[9] == ARGV[a + 2]', 'local again = false'],
  ],
  'a submission that is run again when it is sent again at its end': [
    ["it is not run again.\n  if again then return 'C ' .. r[1] end", '\n'],
  ],
  'one who joins twice': [['if r[10] then return', 'if false then return']],
  'a park without bound': [['if waits and num(r[11]) >= cap', 'if waits and num(r[11]) >= 1000']],
  'one who counts on a job and is not asked before it ends': [
    ['if r[16] and not terms.unwanted', 'if false'],
  ],
  'a job that ends although somebody waits': [['(not h[10] or r.n > 0 or', '(not h[10] or']],
  'an unfenced ending': [['elseif h[1] ~= worker or h[2] ~= fence then', 'elseif false then']],
  'an ending by the worker alone': [
    ['elseif h[1] ~= worker or h[2] ~= fence then', 'elseif h[1] ~= worker then'],
  ],
  'a repeated ending that is refused': [['if h[1] == fence and h[2] == kind then return 1 end', '']],
  'an ending that is said twice at once and frees two places': [
    ['elseif taken[key] then', 'elseif false then'],
  ],
  'a place that is not given back': [['if terms.frees then', 'if false then']],
  'a place that is always given back': [['if terms.frees then', 'if true then']],
  'a place of one who is gone': [["redis.call('LREM', parcel.command.i, 0, worker)", '']],
  'a job that is lost with one who is gone': [['putFirst(parcel.command, parcel[n].id)', '']],
  'an attempt without a lease': [
    ['leases[#leases + 1] = leaseEnd\n  leases[#leases + 1] = member(id, command)', ''],
  ],
  'a lease that is not extended': [
    ['leases[#leases + 1] = int(now + num(lease))', 'leases[#leases + 1] = int(now)'],
  ],
  'a blind renewal': [
    ['if r[1] == ARGV[a + 2] and r[2] == fence then\n    if not r[3]', 'if r[1] then\n    if not r[3]'],
  ],
  'an acceptance that is forgotten': [["redis.call('HSET', key, 'l', '1')", '']],
  'a stall that is not counted': [['if h[6] or stalls == 0 then stalls = stalls + 1 end', '']],
  'a stall that is always counted': [['if h[6] or stalls == 0 then stalls', 'if true then stalls']],
  'stalls without end': [['if stalls > most then', 'if false then']],
  'places of a worker that is lost': [
    ["redis.call('LREM', command.i, 0, worker)\n  redis.call('HDEL'", "redis.call('HDEL'"],
  ],
  'a tick that comes too early': [
    ['if not at or num(at) > now then return 0 end', 'if not at then return 0 end'],
  ],
  'a job that may start before it is accepted': [["if job.z and job.z ~= '0' then until_ = '0' end", '']],
  'a fence that forgets what was seen': [['grantedAt = math.max(us, seen + 1)', 'grantedAt = us']],
  'a fence that is the time': [['if last and num(last) >= grantedAt then', 'if false then']],
  'priorities upside down': [["'-' .. priority", 'priority']],
  'a last come that is not first served': [
    ["return redis.call('LPUSH', command.w, id)\nend", "return redis.call('RPUSH', command.w, id)\nend"],
  ],
  'a last come that passes those with a priority': [
    ["redis.call('LPOS', command.w, '!', 'RANK', ranked)", '(ranked - 1)'],
  ],
  'a rerun that is lost': [['local follows = r.N and not terms.all', 'local follows = false']],
  'parks of the next generation that are told too early': [
    ['if not r.N or all or num(one.generation)', 'if true or num(one.generation)'],
  ],
  'progress that is told to the next generation': [
    ['if num(one.generation) <= num(h[5]) then post', 'if true then post'],
  ],
  'a next generation that is forgotten by an end': [
    ['if r.N then\n    r.y = r.N', 'if false then\n    r.y = r.N'],
  ],
  'a paused command that dispatches': [
    ["if #places == 0 or places[1] == 'P' then return end", 'if #places == 0 then return end'],
  ],
  'a paused command that takes jobs': [["if command.places[1] == 'P' then return nil end", '']],
  'an offer that opens what is paused': [['if halted and not closed then', 'if false then']],
  'a command that is resumed though all are paused': [
    ['if paused[1] == 0 and paused[2] == 0 then', 'if true then'],
  ],
  'an offer that adds to what was offered': [
    ["redis.call('LREM', command.i, 0, worker)\nlocal places", 'local places'],
  ],
  'a retry that does not clear attempts': [
    ["redis.call('HDEL', key, 'a', 'z', 'l'", "redis.call('HDEL', key, 'z', 'l'"],
  ],
  'a retry of what was removed': [["or h[3] == 'x' then return 0", 'then return 0']],
  'a giving back that counts as a failure': [
    ["if kind == 'r' then redis.pcall('HINCRBY'", "if true then redis.pcall('HINCRBY'"],
  ],
  'a delay that is not kept': [['elseif delay > 0 then\n    postpone', 'elseif false then\n    postpone']],
  'a delay that nobody is told of': [["if idle then post(idle, 't '", "if false then post(idle, 't '"]],
  'an expiry that is too short': [
    ['keepFor(key, math.max(ttl, terms.linger, list', 'keepFor(key, math.max(ttl, list'],
  ],
  'a job that expires while it waits': [
    [`keepFor(key, delay + ${PENDING_JOB_TTL})\n  if worker`, 'if worker'],
  ],
  'a drain that tells nobody': [['sendMail()\nreturn { removed', 'return { removed']],
  'a drain that forgets what was removed at once': [["'x', '', linger, 0)", "'x', '', 0, 0)"]],
  'a line that is logged twice': [['local known = fence == h[2] and', 'local known = false and']],
  'listings without bound': [['if excess > 0 then', 'if false then']],
  'a message without bound': [['local much = #bytes > terms.limit', 'local much = false']],
  'a worker that is lost and stays known': [["redis.call('HDEL', command.r, worker)\n  post", 'post']],
  'an end by others that its worker takes for its own': [['if h[4] == fence then return 0 end', '']],
  'a retry that is sent twice and runs twice': [['if h[1] and num(h[1]) > num(ARGV[A + 1])', 'if false']],
  'a rerun that is not the newest': [['or (reruns and r[13])', 'or false']],
  'a payload that is cut': [['(n + 1) * 64)', '(n + 1) * 64 - 1)']],
  'a piece of another payload': [["'p3', 'b', 'c'", "'b', 'c'"]],
  'a call for workers that is not sent': [
    ["redis.pcall('PUBLISH', broadcast, call)", "redis.pcall('ECHO', call)"],
  ],
  'a cancelled attempt that goes on': [
    ["if worker then post(worker, 'c '", "if false then post(worker, 'c '"],
  ],
}

/** The scripts with a bug. */
function mutant(replacements: [from: string, to: string][]): QueueScripts {
  const scripts = buildQueueScripts(TEST_TIME)
  for (const [from, to] of replacements) {
    let found = false
    for (const [name, { source }] of Object.entries(scripts)) {
      if (!source.includes(from)) continue
      found = true
      scripts[name as keyof QueueScripts] = new Script(source.replaceAll(from, to))
    }
    assert.ok(found, `the scripts have changed: ${from}`)
  }
  return scripts
}

describe('queue conformance - finds planted bugs', () => {
  let t: Awaited<ReturnType<typeof open>>
  before(async () => {
    t = await open()
  })
  after(() => t[Symbol.asyncDispose]())

  for (const [name, replacements] of Object.entries(MUTANTS)) {
    test(`queue conformance - finds ${name}`, async () => {
      const { failed, numRuns } = await fc.check(t.property(mutant(replacements)), {
        numRuns: 5 * RUNS,
        examples: SELDOM,
        endOnFailure: true,
      })
      assert.ok(failed, `not found in ${numRuns} runs`)
    })
  }
})
