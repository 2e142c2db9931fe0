// Compares the queue's scripts on a real Redis with the model in memory, operation by operation: the same replies, the same
// state, the same messages to the same inboxes. Time is an argument of both.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { ID_LENGTH, newId } from '../../src/kernel/keys.ts'
import { Script } from '../../src/kernel/redis/call.ts'
import type { Connection } from '../../src/kernel/redis/connection.ts'
import { systemClock } from '../../src/kernel/time.ts'
import { heldOptions, holderOf } from '../../src/queue/store/holder.ts'
import { InMemoryBroker } from '../../src/queue/store/in-memory-broker.ts'
import { InMemoryQueueClient } from '../../src/queue/store/in-memory-client.ts'
import type { JobRecord } from '../../src/queue/store/model/job-record.ts'
import type { CommandState } from '../../src/queue/store/model/queue-state.ts'
import type { FinishedList, TimeIndex } from '../../src/queue/store/model/time-index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { RedisQueueStore } from '../../src/queue/store/redis/redis-store.ts'
import { buildQueueScripts, type QueueScripts } from '../../src/queue/store/redis/scripts/index.ts'
import type { QueueClock } from '../../src/queue/store/redis/scripts/prelude.ts'
import {
  type AttemptOutcome,
  type AttemptRef,
  type DueJob,
  type JobNotice,
  PENDING_JOB_TTL,
  type Post,
  type QueueStore,
  type Submission,
  type SubmitReply,
  type TakeRequest,
  type Termination,
  type WorkerListener,
  type WorkerRef,
} from '../../src/queue/store/store.ts'
import type { QueueTotals } from '../../src/queue/store/totals.ts'
import { senderOf } from '../support/clients.ts'
import { messagesArrived, noticedGone, testConformance, WITHIN } from './suite.ts'

const RUNS = Number(process.env['SOLOFLIGHT_RUNS'] ?? 300)
/** Small bounds, so that random operations reach them. */
const MAX_PARKED = 3
const MESSAGE_LIMIT = 40
const ACCEPT = 150
const EPOCH = 1_700_000_000_000
const COMMANDS = ['add', 'mul'] as const
/** The last one belongs to the second command. */
const JOBS = ['job-a', 'job-b', 'job-c', 'job-d'] as const
const commandOf = (id: string) => (id === 'job-d' ? 'mul' : 'add')

/**
 * Reads the time from two keys, and keeps expiries in a hash: the server's own expiry follows its own clock. Takes the first
 * field where the scripts take a random one.
 */
const TEST_TIME: QueueClock = {
  clock: `
local now, us = unpack(redis.call('MGET', 'now', 'us'))
now, us = tonumber(now), tonumber(us)`,
  expire: `
local redis = (function(server)
  local own = {
    PEXPIRE = function(key, ms)
      -- Expiries of these keys are not compared: each outlives all that it holds.
      if string.find(key, '}[iwz]/') or string.find(key, '}[tdsn]$') then return 0 end
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
  return { call = through(server.call), pcall = through(server.pcall), sha1hex = server.sha1hex }
end)(redis)
local function expire(key, ms) redis.call('PEXPIRE', key, int(ms)) end`,
}

/** Sets the time, and deletes the keys that have expired by then. */
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

/** Reads the contents and expiries of keys. */
const READ_KEYS = new Script(`
local READ = { hash = { 'HGETALL' }, list = { 'LRANGE', 0, -1 }, zset = { 'ZRANGE', 0, -1, 'WITHSCORES' }, set = { 'SMEMBERS' } }
local found = {}
for n, key in ipairs(KEYS) do
  local read = READ[redis.call('TYPE', key).ok]
  if read then
    found[#found + 1] = { n, redis.call('HGET', 'expiries', key) or '', redis.call(read[1], key, unpack(read, 2)) }
  end
end
return found`)

/** The time of the model, of the scripts and of the clients' estimate of the server's time, ms since the epoch. */
let time = EPOCH
const clock = { now: () => time, after: systemClock.after }

/** One process: a client of the model and a client of Redis. */
interface Peer {
  index: number
  model: InMemoryQueueClient
  redis: QueueStore
  connection: Connection
  /** The highest fence that was delivered to it. */
  highestFence: number
  received: { model: string[]; redis: string[] }
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
/** Length, and which character fills it. */
const payload: fc.Arbitrary<readonly [number, number]> = fc.oneof(
  fc.constantFrom([1, 0] as const, [1, 1] as const),
  fc.tuple(fc.constantFrom(0, 63, 64, 65, 128, 255, 256, 257, 1100), nat(1)),
)
const submissionShape = {
  job: nat(JOBS.length - 1),
  awaited: fc.boolean(),
  conflict: fc.constantFrom(
    'reject' as const,
    'join' as const,
    'rerun' as const,
    'rerun' as const,
    'exclusive' as const,
    'exclusive' as const,
  ),
  delay: mostly(0, 100, 400),
  priority: mostly(0, 1, 2, 11),
  lifo: mostly(false, true),
  abortUnwanted: fc.boolean(),
  requiresWorker: mostly(false, true),
  payload,
  options: fc.constantFrom('', '', '{"a":1}'),
}
const attemptShape = {
  /** Counted back from the latest. */
  attempt: fc.oneof({ weight: 4, arbitrary: nat(1) }, nat(6)),
  /** Which fence is given instead of its own. */
  forged: mostly('no' as const, 'above' as const, 'current' as const),
}
const outcomeShape = {
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
const terminationShape = {
  kind: fc.constantFrom('error' as const, 'removed' as const),
  bytes,
  outcomeRetention,
}
const job = nat(JOBS.length - 1)
const peer = nat(3)
/** The most common submission. */
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
  { weight: 3, arbitrary: fc.record({ type: fc.constant('submit' as const), peer, ...plainShape }) },
  { weight: 9, arbitrary: fc.record({ type: fc.constant('submit' as const), peer, ...submissionShape }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('submitBatch' as const),
      peer,
      all: fc.array(fc.record(submissionShape), { minLength: 2, maxLength: 5 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('submitAll' as const),
      peer,
      /** Whether it has one of two keys, or none. */
      key: fc.constantFrom(0, 0, 1, undefined),
      digest: mostly(0, 1),
      knownFor: fc.constantFrom(100, 400, 5000),
      jobs: fc.array(
        fc.record({
          command: mostly(0, 1),
          delay: mostly(0, 100, 400),
          priority: mostly(0, 1, 2),
          lifo: mostly(false, true),
          abortUnwanted: fc.boolean(),
          requiresWorker: mostly(false, true),
          payload,
          options: fc.constantFrom('', '{"a":1}'),
        }),
        { maxLength: 4 },
      ),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('setCapacity' as const),
      peer,
      command: mostly(0, 1),
      slots: nat(3),
      /** What is told of the slots before: as many as it has, or it is not known, or more. */
      former: fc.constantFrom('none' as const, 'last' as const, 'last' as const, 'more' as const),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('take' as const),
      peer,
      command: mostly(0, 1),
      count: fc.integer({ min: 1, max: 3 }),
      lease: fc.constantFrom(100, 250, 1000),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('findTaken' as const), peer, back: nat(3) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('removeWorker' as const), peer, command: mostly(0, 1) }),
  },
  { weight: 9, arbitrary: fc.record({ type: fc.constant('finish' as const), ...outcomeShape }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('finishBatch' as const),
      all: fc.array(fc.record(outcomeShape), { minLength: 2, maxLength: 4 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('renew' as const),
      lease: fc.constantFrom(100, 250, 1000),
      /** Gives it to a holder that exists in no process. */
      handsOver: mostly(false, true),
      ...attemptShape,
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('progress' as const), bytes, ...attemptShape }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('log' as const),
      lines: fc.integer({ min: 1, max: 3 }),
      before: fc.option(nat(3), { nil: undefined }),
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
      type: fc.constant('processDue' as const),
      /** Jobs that are processed beside those that are due. */
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
      type: fc.constant('queryOutcome' as const),
      peer,
      job,
      generation: fc.constantFrom('present' as const, 'next' as const, 'first' as const, 'none' as const),
      /** Parks under a new nonce or one that was used before; '' does not park. */
      nonce: fc.constantFrom('new' as const, 'used' as const, '' as const),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('unpark' as const),
      submission: nat(5),
      when: mostly<Termination['when']>('unwanted', 'always', 'never'),
      ...terminationShape,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('terminate' as const),
      peer,
      job,
      when: mostly<Termination['when']>('always', 'unwanted'),
      ...terminationShape,
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('retry' as const), peer, job }) },
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
  { weight: 1, arbitrary: fc.constant({ type: 'resetTotals' as const }) },
  { weight: 1, arbitrary: fc.constant({ type: 'countFailure' as const }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('repeat' as const), back: nat(5) }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('advance' as const), ms: fc.integer({ min: -60, max: 250 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('advance' as const),
      ms: fc.constantFrom(16 * 60_000, 8 * 24 * 3_600_000),
    }),
  },
  /** Advances to a deadline or expiry, just before it, or just after it. */
  {
    weight: 5,
    arbitrary: fc.record({ type: fc.constant('deadline' as const), which: nat(9), by: mostly(1, 0, 2) }),
  },
  { weight: 1, arbitrary: fc.constant({ type: 'leave' as const }) },
)
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never
type Of<Type extends Op['type']> = Omit<Extract<Op, { type: Type }>, 'type'>
type SubmissionOp = Of<'submitBatch'>['all'][number]
type OutcomeOp = Of<'finishBatch'>['all'][number]
type AttemptOp = Pick<OutcomeOp, 'attempt' | 'forged'>

const hex = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString('hex')

function plain(reply: unknown): unknown {
  return JSON.parse(
    JSON.stringify(reply, (_, value) =>
      value?.type === 'Buffer' ? Buffer.from(value.data).toString('hex') : value,
    ) ?? 'null',
  )
}

/** The notice that Redis sends instead of the model's: an outcome that is too large for a message is announced only. */
function asSentByRedis(notice: JobNotice): JobNotice {
  const tooLarge = notice.kind === 'outcome' && notice.outcome.bytes.length > MESSAGE_LIMIT
  return tooLarge ? { kind: 'outcomeReady' } : notice
}

type Names = (text: string) => string

/** The indexes that hold a job in each state: the ready list, the deadlines, the delayed jobs. */
const INDEXES: Record<JobRecord['state']['kind'], boolean[] | undefined> = {
  created: undefined,
  ready: [true, false, false],
  delayed: [false, true, true],
  assigned: [false, true, false],
  active: [false, true, false],
  finished: [false, false, false],
}

function textOfRank(rank: JobRecord['rank']): string {
  return rank ? `${rank.priority} ${rank.micros} ${rank.batchIndex}` : ''
}

/** The fields of a record of the model. */
function stateOfRecord(job: JobRecord, named: Names): object {
  const { outcome, next, rank, state } = job
  return {
    command: job.command,
    generation: job.generation,
    payload: hex(Buffer.from(job.payload)),
    options: job.options,
    creatorNonce: named(job.creatorNonce),
    abortUnwanted: job.abortUnwanted,
    rank: rank && textOfRank(rank),
    dueAt: state.kind === 'delayed' ? state.until : undefined,
    fence: job.fence,
    worker: named(job.worker),
    accepted: state.kind === 'active',
    progress: hex(job.progress),
    logged: `${job.logged.fence} ${job.logged.lines}`,
    failures: job.failures,
    stalls: job.stalls,
    returned: job.returned && `${job.returned.kind === 'retry' ? 'r' : 'h'}${job.returned.fence}`,
    externallyEndedFence: job.externallyEndedFence ?? 0,
    settledGeneration: job.settledGeneration,
    outcome: outcome && {
      kind: outcome.kind,
      fence: outcome.fence,
      bytes: outcome.kind === 'removed' ? undefined : hex(outcome.bytes),
      freshUntil: outcome.freshUntil,
    },
    listedIn: job.listedIn,
    creatorPark: named(job.creatorPark),
    parks: [...job.parks].map(([park, generation]) => `${named(park)} ${generation}`),
    parked: job.parks.size,
    next: next && {
      ...next,
      payload: hex(Buffer.from(next.payload)),
      creatorNonce: named(next.creatorNonce),
      start: next.start && `${next.start.dueAt} ${textOfRank(next.start.rank)}`,
    },
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
for (const name of ['j', 'a', 'z', 'R', 'F', 'd', 'r', 'u', 'N', 'P', 'B', 'C', 'D', 'p']) FIELDS.add(name)
for (let piece = 1; piece < 4; piece++) FIELDS.add(`p${piece}`)
const KINDS: Record<string, string> = { v: 'value', e: 'error', x: 'removed' }
const LISTED: Record<string, string> = { x: 'failed', c: 'completed' }

/** The same from the fields of a hash. Repeats the table of fields in prelude.ts, as a check of it. */
function stateOfHash(fields: Map<string, Buffer>, expiresAt: number, named: Names): object {
  const text = (name: string) => fields.get(name)?.toString('latin1')
  const number = (name: string) => Number(text(name) ?? 0)
  const unknown = [...fields.keys()].filter((name) => !FIELDS.has(name) && !name.startsWith('@'))
  assert.deepEqual(unknown, [], 'unknown fields')
  const pieces = ['p', ...Array.from({ length: 3 }, (_, index) => `p${index + 1}`)]
  const kind = text('k')
  const creatorPark = text('w') ?? ''
  const [, priority, micros, batchIndex] = /^(\d+) (\d{16})(\d{3})$/.exec(text('r') ?? '') ?? []
  const parks = [...fields].filter(([name]) => name.startsWith('@'))
  return {
    command: text('m'),
    generation: number('y'),
    payload: pieces.map((name) => hex(fields.get(name)) ?? '').join(''),
    options: text('b') ?? '',
    creatorNonce: named(text('c') ?? creatorPark.slice(22)),
    abortUnwanted: text('u') === '1',
    rank: priority && `${priority} ${Number(micros)} ${Number(batchIndex)}`,
    dueAt: fields.has('d') ? number('d') : undefined,
    fence: number('f'),
    worker: named(text('o') ?? ''),
    // The field of an attempt that has ended is left, and never read.
    accepted: (text('o') ?? '') !== '' && text('l') === '1',
    progress: hex(fields.get('g')),
    logged: text('j') ?? '0 0',
    failures: number('a'),
    stalls: number('z'),
    returned: text('R'),
    externallyEndedFence: number('F'),
    settledGeneration: number('Y'),
    outcome: kind && {
      kind: KINDS[kind],
      fence: number('s'),
      bytes: kind === 'x' ? undefined : hex(fields.get(kind)),
      freshUntil: kind === 'x' ? 0 : number(`${kind}u`),
    },
    listedIn: LISTED[text('L') ?? ''],
    creatorPark: named(creatorPark),
    parks: parks.map(([park, generation]) => `${named(park.slice(1))} ${generation}`),
    parked: number('n'),
    next: fields.has('N')
      ? {
          generation: number('N'),
          payload: hex(fields.get('P')),
          options: text('B') ?? '',
          creatorNonce: named(text('C') ?? ''),
          start: text('D')?.replace(
            /(\d{16})(\d{3})$/,
            (_, micros, index) => `${Number(micros)} ${Number(index)}`,
          ),
        }
      : undefined,
    expiresAt,
  }
}

interface Found {
  expiresAt: number
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

/** The first word of each member, and its score. */
const scores = (found: Found | undefined): string[] =>
  pairs(found).map(([name, at]) => `${name.split(' ')[0]} ${at}`)

const timesOf = (times: TimeIndex): string[] => times.ids().map((id) => `${id} ${times.timeOf(id)}`)

function stateOfFinishedList({ expiries, until }: FinishedList): object {
  return { expiries: timesOf(expiries), until: expiries.size > 0 ? until : 0 }
}

function stateOfCommand(command: CommandState, named: Names): object {
  const { ready, freeSlots, paused, workers, workersUntil } = command
  return {
    ready: ready.ids(),
    freeSlots: freeSlots.map(named),
    paused,
    workers: [...workers].map(([worker, count]) => `${named(worker)} ${count}`),
    workersUntil: workers.size > 0 ? workersUntil : 0,
  }
}

/** The same from the keys of a command: its ready list, free slots, workers, and ready jobs with a priority. */
function stateOfCommandKeys([w, i, r, z]: (Found | undefined)[], named: Names): object {
  const ranked = pairs(z).map(([member]) => member.slice(19))
  const slots = texts(i)
  return {
    ready: texts(w).map((id) => (id === '!' ? ranked.shift() : id)),
    freeSlots: slots.slice(slots[0] === 'P' ? 1 : 0).map(named),
    paused: slots[0] === 'P',
    workers: pairs(r).map(([worker, count]) => `${named(worker)} ${count}`),
    workersUntil: r ? r.expiresAt : 0,
  }
}

const KNOWN_POST_KEYS = ['key 0', 'key 1']

/** A known post from its hash; undefined if the queue was erased since. */
function stateOfPost(post: Found | undefined, erasures: string, named: Names): object | undefined {
  const { h, c, y, x, ...unknown } = Object.fromEntries(
    pairs(post).map(([name, value]) => [name, `${value}`]),
  )
  assert.deepEqual(unknown, {}, 'unknown fields')
  if (!post || x !== erasures) return undefined
  return { digest: h, nonce: named(c ?? ''), generation: Number(y), expiresAt: post.expiresAt }
}

/** The totals of a queue. Repeats the table of their fields in prelude.ts, as a check of it. */
function totalsOfHash(fields: Map<string, Buffer>): QueueTotals {
  assert.deepEqual(
    [...fields.keys()].filter((name) => !'sveVEaRH'.includes(name)),
    [],
    'unknown totals',
  )
  const sum = (names: string) =>
    [...names].reduce((total, name) => total + Number(String(fields.get(name) ?? 0)), 0)
  return {
    submitted: sum('s'),
    completed: sum('vV'),
    failed: sum('eE'),
    taken: sum('aVER'),
    returned: sum('H'),
  }
}

/** The model and Redis, and the operations on both. */
class Worlds {
  readonly #client: Redis
  readonly #names = new QueueKeys('p', 'q')
  readonly #broker: InMemoryBroker
  readonly #peers: Peer[] = []
  /** The highest fence that the acting peer has seen. */
  #highestFence = 0
  #batchIndex = 1
  /** Whether the model has sent a message since `#drain`. */
  #hasMessages = false
  /** Whether the operation was a batch. */
  #batched = false
  readonly #submissions: { peer: Peer; submission: Submission }[] = []
  readonly #posts: Post[] = []
  /** Waiters that have not been notified, by nonce, and where they are parked. */
  readonly #owed = new Map<string, { id: string; park: string }>()
  /** Nonces of waiters that have been notified. */
  readonly #notified = new Set<string>()
  /** Nonces of waiters that have left. */
  readonly #left = new Set<string>()
  /** Nonces of workers that have set their capacity. */
  readonly #known = new Set<string>()
  readonly #nonces: string[] = []
  readonly #attempts: { peer: Peer; attempt: AttemptRef }[] = []
  /** The free slots of workers, as the last reply told, by nonce. */
  readonly #slots = new Map<string, number>()
  readonly #requests: TakeRequest[] = []
  /** Operations that can be repeated. */
  readonly #past: (() => Promise<void>)[] = []
  /** Ids, and the word that names each in both worlds. */
  readonly #words = new Map<string, string>()
  readonly #cleanup: (() => void)[] = []

  constructor(client: Redis) {
    this.#client = client
    this.#broker = new InMemoryBroker({
      name: 'q',
      clock,
      deliver: (message) => {
        this.#hasMessages = true
        message()
      },
      maxParked: MAX_PARKED,
      acceptWithin: ACCEPT,
      onChange: () => {},
      numbers: () => ({
        micros: time * 1000,
        highestFence: this.#highestFence,
        batchIndex: this.#batchIndex,
      }),
    })
  }

  async open(connections: readonly Connection[], scripts: QueueScripts): Promise<void> {
    for (const connection of connections) this.#enter(connection, scripts)
    await this.#setTime(EPOCH)
  }

  #enter(connection: Connection, scripts: QueueScripts): void {
    const index = this.#peers.length
    const options = {
      scripts,
      maxParked: MAX_PARKED,
      messageLimit: MESSAGE_LIMIT,
      acceptWithin: ACCEPT,
      drainStep: 2,
    }
    const model = new InMemoryQueueClient(this.#broker)
    const redis = new RedisQueueStore(connection, 'p', 'q', options)
    this.#words.set(model.inbox, `peer${index}`).set(connection.inbox.id, `peer${index}`)
    const workers = COMMANDS.map((command) => ({ nonce: this.#nonce(`worker-${command}`), command }))
    const peer = {
      index,
      model,
      redis,
      connection,
      highestFence: 0,
      received: { model: [], redis: [] },
      workers,
      gone: false,
    }
    this.#peers.push(peer)
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

  #peer(index: number): Peer {
    return this.#peers[index % this.#peers.length] as Peer
  }

  /** Replaces ids by words that are the same in both worlds. */
  readonly #named: Names = (text) =>
    [text.slice(0, 22), text.slice(22)].map((id) => this.#words.get(id) ?? (id && `?${id}`)).join(' ')

  async #setTime(to: number): Promise<void> {
    time = to
    this.#broker.sweep()
    await SET_TIME.with([], [String(time), String(time * 1000)]).send(senderOf(this.#client))
    // Each reply tells its client the server's time.
    const nothing = { worker: { nonce: '', command: 'add' }, id: 'none', fence: 0 }
    await Promise.all(
      this.#peers.filter(({ gone }) => !gone).map(({ redis }) => redis.renew(nothing, 1, WITHIN)),
    )
  }

  async apply(op: Op): Promise<void> {
    await this.#do(op)
    if (this.#hasMessages) await this.#drain()
    this.#hasMessages = false
    this.#broker.sweep()
    await this.compare()
    for (const { received } of this.#peers) this.#compareHeard(received)
    this.#batched = false
  }

  /** Messages of a batch are compared without their order: it is the same for each item only. */
  #compareHeard({ model, redis }: Peer['received']): void {
    if (model.length === 0 && redis.length === 0) return
    const inOrder = (received: string[]) => (this.#batched ? received.sort() : received).splice(0)
    assert.deepEqual(inOrder(redis), inOrder(model), 'messages')
  }

  async #do(op: Op): Promise<void> {
    switch (op.type) {
      case 'submit':
        return this.#repeatable(this.#submitBatch(op.peer, [op]))
      case 'submitBatch':
        return this.#repeatable(this.#submitBatch(op.peer, op.all))
      case 'submitAll':
        return this.#submitAll(op)
      case 'setCapacity':
      case 'removeWorker':
        return this.#repeatable(this.#worker(op))
      case 'take':
        return this.#repeatable(this.#take(op))
      case 'findTaken': {
        const request = this.#requests.at(-1 - op.back)
        // Searched for as long ago as no test lasts.
        return request && this.#both(op.peer, (store) => store.findTaken(request, 1e12, WITHIN))
      }
      case 'finish':
        return this.#finishBatch([op])
      case 'finishBatch':
        return this.#finishBatch(op.all)
      case 'renew':
        return this.#renew(op)
      case 'progress':
        return this.#withAttempt(op, (store, attempt) =>
          store.publishProgress(attempt, Buffer.from(op.bytes), WITHIN),
        )
      case 'log':
        return this.#withAttempt(op, async (store, attempt) => {
          const lines = Array.from(
            { length: op.lines },
            (_, n) => `line ${attempt.fence} ${(op.before ?? 0) + n}`,
          )
          await store.appendLog(attempt, lines, op.before, WITHIN)
          return store.readLog(attempt.id, WITHIN)
        })
      case 'processDue':
        return this.#processDue(op)
      case 'queryOutcome':
        return this.#queryOutcome(op)
      case 'unpark':
        return this.#unpark(op)
      case 'terminate': {
        const termination = this.#termination(JOBS[op.job] as string, op)
        return this.#both(op.peer, (store) => store.terminate(termination, WITHIN))
      }
      case 'drain':
        return this.#both(0, (store) => store.drain(op.state, op.outcomeRetention, WITHIN))
      case 'retry': {
        const id = JOBS[op.job] as string
        const generation = (await this.#peer(op.peer).model.snapshot(id))?.generation ?? 0
        return this.#both(op.peer, (store) => store.retry(id, commandOf(id), generation, WITHIN))
      }
      case 'pause':
      case 'resume':
        return this.#both(0, (store) => store[op.type](op.command, WITHIN))
      case 'countFailure':
        return this.#both(0, (store) => store.countFailure(WITHIN))
      case 'resetTotals':
        return this.#both(0, (store) => store.resetTotals(WITHIN))
      case 'read':
        return this.#read(op)
      case 'repeat':
        return this.#past.at(-1 - op.back)?.()
      case 'advance':
        return this.#setTime(time + op.ms)
      case 'deadline':
        return this.#deadline(op)
      case 'leave':
        return this.#leave()
    }
  }

  async #repeatable(operation: () => Promise<void>): Promise<void> {
    this.#past.push(operation)
    await operation()
  }

  /** Does the same with both stores, now and when it is repeated. */
  #both<T>(index: number, act: (store: QueueStore) => Promise<T>): Promise<void> {
    return this.#repeatable(async () => {
      const peer = this.#act(index)
      if (!peer) return
      const reply = await act(peer.model)
      assert.deepEqual(plain(await act(peer.redis)), plain(reply), 'reply')
    })
  }

  /** The peer that acts, unless it is gone. */
  #act(index: number): Peer | undefined {
    const peer = this.#peer(index)
    this.#highestFence = peer.highestFence
    return peer.gone ? undefined : peer
  }

  /** The submissions of one process in one turn. */
  #submitBatch(index: number, ops: SubmissionOp[]): () => Promise<void> {
    const all = ops.map((op) => this.#submission(this.#peer(index), op))
    return async () => {
      const peer = this.#act(index)
      if (!peer) return
      // One by one where a batch makes a difference: its commands become known together, and its jobs are requeued behind it.
      const known = this.#broker.model.state.commands(time).length === COMMANDS.length
      if (known && this.#allListen()) return this.#submit(peer, all)
      for (const submission of all) {
        await this.#drain()
        this.#act(index)
        await this.#submit(peer, [submission])
      }
    }
  }

  /** Whether all that have free slots can be delivered to. A batch tries it only at its end. */
  #allListen(): boolean {
    if (this.#peers.some(({ gone }) => gone)) return false
    const inboxes = new Set(this.#peers.map(({ model }) => model.inbox))
    const free = COMMANDS.flatMap((command) => this.#broker.model.state.command(command).freeSlots)
    // A taker has an inbox of its own, which no process listens to.
    return free.every((slot) => inboxes.has(slot.slice(0, ID_LENGTH)))
  }

  #submission(peer: Peer, op: SubmissionOp): Submission {
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
    this.#submissions.push({ peer, submission })
    return submission
  }

  #submitAll({ peer, key, digest, knownFor, jobs }: Of<'submitAll'>): Promise<void> {
    const nonce = this.#nonce(`post${this.#posts.length}`)
    const common = { awaited: false, conflict: 'reject' as const, nonce }
    const post: Post = {
      key: KNOWN_POST_KEYS[key ?? -1] ?? nonce,
      ...{ digest: `digest ${digest}`, nonce, knownFor },
      jobs: jobs.map(({ command, payload: [length, fill], ...options }, at) => ({
        id: `post-${this.#posts.length}-${at}`,
        command: COMMANDS[command] as string,
        payload: String.fromCharCode(fill + 1).repeat(length),
        ...options,
        ...common,
      })),
    }
    this.#posts.push(post)
    return this.#both(peer, (store) => {
      // Capacity is requested at the end, once for each command.
      this.#batched = true
      return store.submitAll(post, WITHIN)
    })
  }

  async #submit(peer: Peer, all: Submission[]): Promise<void> {
    this.#batched ||= all.length > 1
    const replies = await Promise.all(all.map((submission) => this.#submitOne(peer, 'redis', submission)))
    for (const [at, submission] of all.entries()) {
      this.#batchIndex = at + 1
      const reply = await this.#submitOne(peer, 'model', submission)
      assert.deepEqual(plain(replies[at]), plain(reply), 'reply to a submission')
      this.#owe(peer, submission, reply)
    }
    this.#batchIndex = 1
  }

  /** Expects a notice from now on, unless the waiter had been notified before a repetition. */
  #owe({ model }: Peer, { id, nonce, awaited }: Submission, { status }: SubmitReply): void {
    const isPending = this.#broker.model.state.jobs.get(id)?.finished === false
    const park = model.inbox + nonce
    if (!awaited || !isPending || this.#left.has(nonce)) return
    if (this.#notified.has(nonce) && !this.#isParked(id, park)) return
    if (status === 'created' || status === 'joined') this.#owed.set(nonce, { id, park })
  }

  #isParked(id: string, park: string): boolean {
    const job = this.#broker.model.state.jobs.get(id)
    return job !== undefined && (job.creatorPark === park || job.parks.has(park))
  }

  /** Resolves with the reply to a submission; notes later messages. */
  #submitOne(peer: Peer, world: 'model' | 'redis', submission: Submission): Promise<SubmitReply> {
    const notice = this.#waiter(peer, world, submission.nonce)
    return new Promise((answered, failed) =>
      peer[world].submit(submission, WITHIN, { onReply: answered, onError: failed, onNotice: notice }),
    )
  }

  #waiter(peer: Peer, world: 'model' | 'redis', nonce: string): (notice: JobNotice) => void {
    const word = this.#words.get(nonce)
    return (notice) => {
      const said = world === 'model' ? asSentByRedis(notice) : notice
      if (world === 'model' && notice.kind !== 'progress') {
        this.#owed.delete(nonce)
        this.#notified.add(nonce)
      }
      peer.received[world].push(`${word} ${JSON.stringify(plain(said))}`)
    }
  }

  #worker(
    op: ({ type: 'setCapacity' } & Of<'setCapacity'>) | ({ type: 'removeWorker' } & Of<'removeWorker'>),
  ): () => Promise<void> {
    return async () => {
      const peer = this.#act(op.peer)
      const worker = peer?.workers[op.command]
      // The store does not send the removal of a worker that was never known.
      if (!peer || !worker || (op.type === 'removeWorker' && !this.#known.has(worker.nonce))) return
      this.#known.add(worker.nonce)
      const [inModel, onRedis] = [peer.model, peer.redis]
      if (op.type === 'setCapacity') {
        const { slots } = op
        const last = this.#slots.get(worker.nonce)
        const former =
          op.former === 'none' || last === undefined ? undefined : last + (op.former === 'more' ? 2 : 0)
        const set = (store: QueueStore, world: 'model' | 'redis') =>
          store.setCapacity(worker, () => slots, this.#listener(peer, world, worker), WITHIN, former)
        const modelReply = await set(inModel, 'model')
        assert.deepEqual(await set(onRedis, 'redis'), modelReply, 'reply')
        const { since, assigned } = modelReply
        this.#slots.set(worker.nonce, Math.max(0, slots - since) - assigned)
      } else {
        await inModel.removeWorker(worker, WITHIN)
        await onRedis.removeWorker(worker, WITHIN)
      }
    }
  }

  /** Holders that take in one turn. */
  #take({ peer: index, command: at, count, lease }: Of<'take'>): () => Promise<void> {
    const command = COMMANDS[at] as string
    const requests = Array.from({ length: count }, () => ({ command, lease, secret: newId() }))
    this.#requests.push(...requests)
    return async () => {
      const peer = this.#act(index)
      if (!peer) return
      const onRedis = await Promise.all(requests.map((request) => peer.redis.take(request, WITHIN)))
      for (const [n, request] of requests.entries()) {
        this.#act(index)
        const taken = await peer.model.take(request)
        assert.deepEqual(onRedis[n], taken, 'reply to a taker')
        if (!taken || taken === 'due') continue
        const { id, fence, failures } = taken
        const options = heldOptions(taken.options)
        const worker = holderOf({ queue: 'q', command, secret: request.secret, id, fence, failures, options })
        this.#attempts.unshift({ peer, attempt: { worker, id, fence } })
      }
      const fences = onRedis.map((taken) => (typeof taken === 'object' ? taken.fence : 0))
      peer.highestFence = Math.max(peer.highestFence, ...fences)
    }
  }

  #listener(peer: Peer, world: 'model' | 'redis', worker: WorkerRef): WorkerListener {
    const note = (...said: unknown[]) =>
      peer.received[world].push(`${worker.command} ${JSON.stringify(plain(said))}`)
    return {
      onDelivery: (delivery) => {
        // Redis tells its time in whole milliseconds, so a client counts on one millisecond less.
        const { leaseLeft } = delivery
        note('delivery', {
          ...delivery,
          leaseLeft: world === 'redis' && leaseLeft > 0 ? leaseLeft + 1 : leaseLeft,
        })
        if (world === 'redis') return
        const { id, fence } = delivery
        peer.highestFence = Math.max(peer.highestFence, fence)
        this.#attempts.unshift({ peer, attempt: { worker, id, fence } })
      },
      onCancelled: (id, fence) => note('cancelled', id, fence),
      onDue: (ms) => note('due', ms),
      onCapacityRequested: () => note('capacity requested'),
    }
  }

  /** A delivered attempt, with its own fence or another. */
  #attempt({
    attempt,
    forged,
  }: {
    attempt: number
    forged: 'no' | 'above' | 'current'
  }): { peer: Peer; attempt: AttemptRef } | undefined {
    const found = this.#attempts[attempt % (this.#attempts.length || 1)]
    if (!found || forged === 'no') return found
    const { peer, attempt: given } = found
    const current = this.#broker.model.state.jobs.get(given.id)?.fence || given.fence
    return { peer, attempt: { ...given, fence: forged === 'above' ? given.fence + 1 : current } }
  }

  async #withAttempt<T>(
    op: AttemptOp,
    act: (store: QueueStore, attempt: AttemptRef) => Promise<T>,
  ): Promise<void> {
    const found = this.#attempt(op)
    if (found) await this.#both(found.peer.index, (store) => act(store, found.attempt))
  }

  async #renew({ lease, handsOver, ...op }: Of<'renew'>): Promise<void> {
    const found = this.#attempt(op)
    if (!found) return
    const { peer, attempt } = found
    const { command } = attempt.worker
    const holder = { command, inbox: this.#nonce('holder'), nonce: this.#nonce('holder') }
    const to = handsOver ? holder : undefined
    if (to) this.#attempts.unshift({ peer, attempt: { ...attempt, worker: to } })
    await this.#both(peer.index, (store) => store.renew(attempt, lease, WITHIN, to))
  }

  /** The attempts that one process ends in one turn. */
  async #finishBatch(ops: OutcomeOp[]): Promise<void> {
    const outcomes: AttemptOutcome[] = []
    let by: Peer | undefined
    for (const op of ops) {
      const found = this.#attempt(ops.length === 1 || op.forged !== 'above' ? op : { ...op, forged: 'no' })
      if (!found || (by && found.peer !== by)) continue
      const { id, fence } = found.attempt
      // A batch reads all records before it writes: another attempt of the same job would be answered differently.
      const differs = (other: AttemptOutcome) =>
        other.fence !== fence || other.worker !== found.attempt.worker
      if (outcomes.some((other) => other.id === id && differs(other))) continue
      by = found.peer
      const { kind, ttl, outcomeRetention, delay, retain, releasesSlot } = op
      // A batch makes all jobs ready before it assigns any.
      const batchable = ops.length === 1 || kind === 'value' || kind === 'error' ? kind : 'value'
      const bytes = Buffer.from(op.bytes)
      outcomes.push({
        ...found.attempt,
        kind: batchable,
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
    await this.#repeatable(() => this.#finish(index, outcomes))
  }

  async #finish(index: number, outcomes: AttemptOutcome[]): Promise<void> {
    const peer = this.#act(index)
    if (!peer) return
    const together = this.#isBatchable(outcomes)
    this.#batched ||= outcomes.length > 1
    const finish = (outcome: AttemptOutcome) => peer.redis.finish(outcome, WITHIN)
    const replies = together ? await Promise.all(outcomes.map(finish)) : []
    for (const [at, outcome] of outcomes.entries()) {
      if (!together) await this.#drain()
      if (!together) this.#act(index)
      const reply = await peer.model.finish(outcome)
      assert.equal(together ? replies[at] : await finish(outcome), reply, 'reply to an outcome')
    }
  }

  /** Whether a batch has the same effect as its parts: it assigns ready jobs only at its end. */
  #isBatchable(outcomes: AttemptOutcome[]): boolean {
    const { state } = this.#broker.model
    const rerun = new Set(outcomes.map(({ id }) => state.jobs.get(id)).filter((job) => job?.next))
    const beside = [...rerun].some((job) => job && state.command(job.command).ready.length > 0)
    return rerun.size <= 1 && !beside && this.#allListen()
  }

  #processDue({
    others,
    maxStalls,
    bytes,
    ttl: errorTtl,
    outcomeRetention,
    retain,
  }: Of<'processDue'>): Promise<void> {
    const due = this.#broker.model.findDue(time).jobs
    const rest = others.filter((id) => !due.some((job) => job.id === id))
    const jobs: DueJob[] = [...due, ...rest.map((id) => ({ id, command: commandOf(id) }))]
    if (jobs.length === 0) return Promise.resolve()
    const policy = { maxStalls, failure: Buffer.from(bytes), errorTtl, outcomeRetention, retain }
    return this.#both(0, (store) => store.processDue(jobs, policy, WITHIN))
  }

  #queryOutcome(op: Of<'queryOutcome'>): Promise<void> {
    const id = JOBS[op.job] as string
    const {
      generation: present = 0,
      next,
      settledGeneration: settled = 0,
    } = this.#broker.model.state.jobs.get(id) ?? {}
    const generation = {
      present,
      next: next?.generation ?? present + 1,
      first: Math.max(1, settled),
      none: 1,
    }[op.generation]
    const nonce = this.#queryNonce(op.nonce)
    return this.#repeatable(async () => {
      const peer = this.#act(op.peer)
      if (!peer) return
      for (const world of ['model', 'redis'] as const) {
        if (nonce !== '') peer[world].registerWaiter(nonce, { onNotice: this.#waiter(peer, world, nonce) })
      }
      const reply = await peer.model.queryOutcome({ id, generation, nonce })
      assert.deepEqual(
        plain(await peer.redis.queryOutcome({ id, generation, nonce }, WITHIN)),
        plain(reply),
        'reply to a query',
      )
    })
  }

  #queryNonce(which: Of<'queryOutcome'>['nonce']): string {
    if (which === '') return ''
    const used = which === 'used' ? this.#submissions.at(-1)?.submission.nonce : undefined
    const nonce = used ?? this.#nonce(`query${this.#nonces.length}`)
    this.#nonces.push(nonce)
    return nonce
  }

  #termination(
    id: string,
    { kind, bytes, outcomeRetention, when }: Of<'unpark'> | Of<'terminate'>,
  ): Termination {
    return {
      id,
      command: commandOf(id),
      kind,
      bytes: Buffer.from(kind === 'error' ? bytes : []),
      outcomeRetention,
      when,
    }
  }

  #unpark(op: Of<'unpark'>): Promise<void> {
    const found = this.#submissions.at(-1 - op.submission)
    if (!found) return Promise.resolve()
    const { peer, submission } = found
    const { id, nonce } = submission
    const termination = this.#termination(id, op)
    return this.#both(peer.index, (store) => {
      this.#left.add(nonce)
      this.#owed.delete(nonce)
      return store.unpark(nonce, termination, WITHIN)
    })
  }

  async #read({ from, limit }: Of<'read'>): Promise<void> {
    // First: the others forget what has expired.
    await this.#both(0, async (store) => {
      const load = await store.load(WITHIN)
      return { ...load, paused: [...load.paused].sort() }
    })
    for (const state of ['waiting', 'delayed', 'active', 'completed', 'failed'] as const)
      await this.#both(0, (store) => store.list(state, from, limit, WITHIN))
    for (const id of JOBS) await this.#both(0, (store) => store.snapshot(id, WITHIN))
    await this.#both(0, (store) => store.counts(WITHIN))
    await this.#both(0, (store) => store.findDue(WITHIN))
    await this.#both(0, (store) => store.totals(WITHIN))
    await this.#both(0, (store) => store.commands(WITHIN))
    await this.#both(0, async (store) => (await store.pausedCommands(WITHIN)).sort())
  }

  async #deadline({ which, by }: Of<'deadline'>): Promise<void> {
    const { jobs, deadlines } = this.#broker.model.state
    const ends = [...jobs.values()].flatMap((job) => [
      deadlines.timeOf(job.id),
      job.outcome?.freshUntil,
      job.expiresAt,
    ])
    const ahead = ends.filter(
      (at): at is number => at !== undefined && at > time && at < time + PENDING_JOB_TTL / 2,
    )
    const at = ahead[which % (ahead.length || 1)]
    if (at !== undefined) await this.#setTime(at - 1 + by)
  }

  /** The last process dies. */
  async #leave(): Promise<void> {
    const peer = this.#peer(this.#peers.length - 1)
    if (peer.gone) return
    peer.gone = true
    peer.model.close()
    for (const [nonce, { park }] of this.#owed)
      if (park.startsWith(peer.model.inbox)) this.#owed.delete(nonce)
    await peer.connection.close()
    await noticedGone(this.#client, peer.connection)
  }

  /** Invariants of the model: no job is lost, none is ready beside a free slot, and each waiter is parked on a record. */
  #checkModel(): void {
    const { jobs, deadlines, delayed } = this.#broker.model.state
    for (const name of COMMANDS) {
      const { ready, freeSlots, paused } = this.#broker.model.state.command(name)
      assert.ok(paused || freeSlots.length === 0 || ready.length === 0, `${name} is ready beside a free slot`)
      const ids = ready.ids()
      assert.equal(new Set(ids).size, ids.length, 'a job is in the ready list twice')
      for (const id of ids) assert.ok(jobs.get(id)?.finished === false, `${id} is finished and ready`)
    }
    for (const job of jobs.values()) {
      const isReady = this.#broker.model.state.command(job.command).ready.ids().includes(job.id)
      const indexes = [isReady, deadlines.timeOf(job.id) !== undefined, delayed.timeOf(job.id) !== undefined]
      assert.deepEqual(indexes, INDEXES[job.state.kind], `${job.id} is ${job.state.kind}`)
      assert.equal(job.finished, job.settledGeneration >= job.generation, `${job.id} is ${job.state.kind}`)
    }
    for (const [nonce, { id, park }] of this.#owed) {
      assert.ok(this.#isParked(id, park), `${this.#words.get(nonce)} is not parked`)
    }
  }

  async compare(): Promise<void> {
    this.#checkModel()
    const { state } = this.#broker.model
    const commands = COMMANDS.flatMap((name) => this.#names.command(name))
    const ids = [...JOBS, ...this.#posts.flatMap(({ jobs }) => jobs.map(({ id }) => id))]
    const postKeys = [...new Set(this.#posts.map(({ key }) => key))]
    const own = [...ids.map((id) => this.#names.job(id)), ...postKeys.map((key) => this.#names.post(key))]
    const reply = await READ_KEYS.with([...this.#names.shared, ...commands, ...own], []).send(
      senderOf(this.#client),
    )
    const found: (Found | undefined)[] = []
    for (const [at, expiresAt, content] of reply as [number, Buffer, Buffer[]][])
      found[at - 1] = { expiresAt: Number(String(expiresAt) || Number.POSITIVE_INFINITY), content }
    const [t, d, x, c, q, s, n, ...rest] = found
    const totals = new Map(pairs(n))
    const erasures = String(totals.get('x') ?? 0)
    totals.delete('x')
    const finishedList = (set: Found | undefined) => ({ expiries: scores(set), until: set?.expiresAt ?? 0 })
    const commandNames = state.commands(time)
    const redis = {
      deadlines: scores(t),
      delayed: scores(d),
      failed: finishedList(x),
      completed: finishedList(c),
      commandNames: pairs(q).map(([, name]) => String(name)),
      commandsUntil: q?.expiresAt ?? 0,
      paused: texts(s).sort(),
      totals: totalsOfHash(totals),
      commands: COMMANDS.map((_, n) =>
        stateOfCommandKeys(
          Array.from({ length: 4 }, (_, k) => rest[4 * n + k]),
          this.#named,
        ),
      ),
      jobs: ids.map((_, n) => {
        const one = rest[4 * COMMANDS.length + n]
        return one && stateOfHash(new Map(pairs(one)), one.expiresAt, this.#named)
      }),
      posts: postKeys.map((_, n) =>
        stateOfPost(rest[4 * COMMANDS.length + ids.length + n], erasures, this.#named),
      ),
    }
    const model = {
      deadlines: timesOf(state.deadlines),
      delayed: timesOf(state.delayed),
      failed: stateOfFinishedList(state.failed),
      completed: stateOfFinishedList(state.completed),
      commandNames,
      commandsUntil: commandNames.length > 0 ? state.commandsUntil : 0,
      paused: [...state.paused].sort(),
      totals: { ...state.totals },
      commands: COMMANDS.map((name) => stateOfCommand(state.command(name), this.#named)),
      jobs: ids.map((id) => {
        const record = state.jobs.get(id)
        return record && stateOfRecord(record, this.#named)
      }),
      posts: postKeys.map((key) => {
        const post = state.posts.get(key)
        if (!post) return undefined
        const { digest, nonce, generation, expiresAt } = post
        return { digest, nonce: this.#named(nonce), generation, expiresAt }
      }),
    }
    assert.deepEqual(redis, model, 'state')
  }

  #drain(): Promise<void> {
    const present = this.#peers.filter(({ gone }) => !gone)
    return messagesArrived(
      this.#client,
      present.map(({ connection }) => connection),
    )
  }

  async close(): Promise<void> {
    for (const clean of this.#cleanup) clean()
    await this.#client.flushall()
  }
}

/** An ordinary submission. */
const submit = (peer: number, job: number, other: Partial<SubmissionOp> = {}): Op => ({
  ...{ type: 'submit', peer, job, awaited: true, conflict: 'reject', delay: 0, priority: 0, lifo: false },
  ...{ abortUnwanted: false, requiresWorker: false, payload: [1, 0], options: '', ...other },
})
const setCapacity = (peer: number, slots: number, former: Of<'setCapacity'>['former'] = 'none'): Op => ({
  ...{ type: 'setCapacity', peer, command: 0, slots, former },
})
const take = (peer: number, count = 1): Op => ({ type: 'take', peer, command: 0, count, lease: 1000 })
const findTaken: Op = { type: 'findTaken', peer: 0, back: 0 }
const submitBatch = (all: Op[]): Op => ({ type: 'submitBatch', peer: 0, all: all as SubmissionOp[] })
const submitAll = (jobs: Op[], other: Partial<Of<'submitAll'>> = {}): Op => ({
  ...{ type: 'submitAll', peer: 0, key: 0, digest: 0, knownFor: 5000 },
  jobs: jobs.map((job) => ({ ...(job as SubmissionOp), command: 0 })),
  ...other,
})
const removeWorker = (peer: number): Op => ({ type: 'removeWorker', peer, command: 0 })
const finish = (kind: OutcomeOp['kind'], other: Partial<OutcomeOp> = {}): Op => ({
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
const finishBatch = (all: Op[]): Op => ({ type: 'finishBatch', all: all as OutcomeOp[] })
const processDue = (maxStalls: number, others: (typeof JOBS)[number][] = []): Op => ({
  ...{ type: 'processDue', others, maxStalls, bytes: Uint8Array.of(2), ttl: 0, outcomeRetention: 1500 },
  retain: { count: 0, age: 0 },
})
const advance = (ms: number): Op => ({ type: 'advance', ms })
const repeat = (back: number): Op => ({ type: 'repeat', back })
const renew = (forged: AttemptOp['forged'], handsOver = false): Op => ({
  ...{ type: 'renew', lease: 1000, attempt: 0, forged, handsOver },
})
const log: Op = { type: 'log', lines: 1, before: 0, attempt: 0, forged: 'no' }
const drain: Op = { type: 'drain', state: 'waiting', outcomeRetention: 200 }
const read: Op = { type: 'read', from: 0, limit: 4 }
const terminate = (job: number, kind: 'removed' | 'error' = 'removed'): Op => ({
  ...{
    type: 'terminate',
    peer: 0,
    job,
    when: 'always',
    kind,
    bytes: Uint8Array.of(),
    outcomeRetention: 1500,
  },
})
const unpark = (submission: number): Op => ({
  ...{
    type: 'unpark',
    submission,
    when: 'unwanted',
    kind: 'error',
    bytes: Uint8Array.of(3),
    outcomeRetention: 200,
  },
})
const retry = (job: number): Op => ({ type: 'retry', peer: 0, job })
const pause = (command: '' | 'add'): Op => ({ type: 'pause', command })
const resume = (command: '' | 'add'): Op => ({ type: 'resume', command })
const unwanted = { abortUnwanted: true }
const exclusive = { conflict: 'exclusive' as const }
const other = { payload: [1, 1] as const, conflict: 'rerun' as const }

/** Counterexamples of the past, shrunk. */
const REGRESSIONS: Record<string, Op[]> = {
  'the slot of a taker is free, and no process listens to it': [
    ...[setCapacity(0, 1), submit(0, 3), submit(0, 0), renew('no', true), finish('value')],
    submitBatch([submit(0, 0), submit(0, 0, exclusive)]),
  ],
}

/** Cases that random operations rarely produce. They are tried first in every run of the property. */
const RARE_CASES: [Op[]][] = [
  // The worker's process is gone; in some cases another worker can take the job.
  [[setCapacity(3, 2), { type: 'leave' }, submit(0, 0)]],
  // Taken, found, given back, and taken again.
  [[submit(0, 0), take(0), findTaken, finish('requeue'), take(0), finish('value', { releasesSlot: false })]],
  [[submit(0, 0), take(0), finish('retry', { releasesSlot: false }), take(1), processDue(0, ['job-a'])]],
  [[submit(0, 0), pause('add'), take(0), resume('add'), take(0, 3)]],
  [[submit(0, 0), submit(0, 1, { priority: 1 }), submit(0, 2), take(0, 3), findTaken]],
  [[setCapacity(0, 2), submit(0, 0), setCapacity(0, 2, 'last'), submit(0, 1), submit(0, 2)]],
  [[setCapacity(0, 2), removeWorker(0), setCapacity(0, 2, 'last'), submit(0, 1)]],
  [[setCapacity(3, 2), setCapacity(0, 2), { type: 'leave' }, submit(0, 0, { priority: 1 }), submit(0, 1)]],
  [[setCapacity(3, 2), { type: 'leave' }, submit(0, 0, { priority: 1 }), submit(0, 1)]],
  [[setCapacity(3, 2), setCapacity(0, 2), { type: 'leave' }, submit(0, 0), submit(1, 1)]],
  // Every call is repeated, and again after the job has finished.
  [
    [
      setCapacity(0, 1),
      submit(0, 0),
      repeat(0),
      submit(1, 0),
      repeat(0),
      finish('value'),
      repeat(0),
      repeat(2),
    ],
  ],
  [[setCapacity(0, 2), submit(0, 0), finish('value', { ttl: 5000, outcomeRetention: 1 }), submit(1, 0)]],
  // A retry, then a cancellation before the next attempt, and a repetition of the retry.
  [[setCapacity(0, 1), submit(0, 0), finish('retry', { delay: 100 }), terminate(0), repeat(1)]],
  // A repeated submission whose submitter has queried the previous generation meanwhile.
  [
    [
      submit(0, 0),
      submit(1, 0, { ...other, awaited: false }),
      { type: 'queryOutcome', peer: 1, job: 0, generation: 'present', nonce: 'used' },
      repeat(1),
    ],
  ],
  // A repeated submission when its job runs again: the notified waiter is not notified again.
  [[setCapacity(0, 1), submit(0, 0), finish('value'), retry(0), repeat(2), finish('value')]],
  // A removed worker gets a slot back, and is removed again.
  [[setCapacity(0, 1), submit(0, 0), removeWorker(0), finish('value'), removeWorker(0)]],
  // The waiters leave one after the other.
  [[0, 1, 2, 0, 1].map((peer) => submit(peer, 0, unwanted)).concat([4, 0, 1, 2, 3].map(unpark))],
  [
    [
      submit(0, 0, unwanted),
      submit(1, 0, { ...unwanted, awaited: false }),
      submit(1, 0, { awaited: false }),
      unpark(2),
    ],
  ],
  // A requeued job comes before one with a priority.
  [
    [
      submit(0, 1, { priority: 1 }),
      setCapacity(0, 1),
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
      setCapacity(0, 1),
      finish('value'),
    ],
  ],
  // The list of finished jobs has room for one only.
  [
    [
      setCapacity(0, 2),
      submit(0, 0),
      submit(0, 1),
      ...[0, 1].map((attempt) => finish('error', { attempt, retain: { count: 1, age: 5000 } })),
    ],
  ],
  // A rerun becomes ready while attempts end in one batch and another job is ready.
  [
    [
      setCapacity(0, 2),
      submit(0, 0),
      submit(0, 1),
      submit(0, 0, other),
      submit(0, 2),
      advance(1),
      finishBatch([finish('value', { attempt: 0 }), finish('value', { attempt: 1 })]),
    ],
  ],
  // A job that was listed later expires earlier, and the list is read.
  [
    [
      setCapacity(0, 2),
      submit(0, 0),
      submit(0, 1),
      finish('value', { retain: { count: 1, age: 5000 } }),
      finish('value', { attempt: 1, retain: { count: 2, age: 300 } }),
      advance(300),
      read,
    ],
  ],
  // A worker is lost again and again.
  [
    [
      setCapacity(0, 1),
      submit(0, 0),
      advance(151),
      processDue(2),
      setCapacity(0, 2),
      advance(151),
      processDue(2),
      setCapacity(0, 1),
      advance(151),
      processDue(0),
    ],
  ],
  // Attempts fail, and the job is retried.
  [[setCapacity(0, 1), submit(0, 0), finish('retry'), finish('value'), retry(0), terminate(0), retry(0)]],
  [[submit(0, 0), terminate(0), retry(0)]],
  [[setCapacity(0, 1), submit(0, 0, { payload: [256, 0] }), finish('value'), submit(0, 0), terminate(0)]],
  // A next generation has waiters meanwhile.
  [
    [
      setCapacity(0, 1),
      submit(0, 0),
      submit(1, 0, other),
      { type: 'progress', attempt: 0, forged: 'no', bytes: Uint8Array.of(4) },
      finish('value'),
      finish('value'),
    ],
  ],
  [[setCapacity(0, 1), submit(0, 0), submit(1, 0, other), terminate(0)]],
  // Pausing.
  [
    [
      setCapacity(0, 1),
      pause('add'),
      submit(0, 0),
      submit(1, 0),
      setCapacity(0, 2),
      submit(0, 1, { priority: 1 }),
      pause(''),
      resume('add'),
      resume(''),
    ],
  ],
  [[pause(''), setCapacity(0, 2), submit(0, 0), resume('')]],
  [[setCapacity(0, 1), pause(''), advance(8 * 24 * 3_600_000), resume(''), setCapacity(0, 1)]],
  // Fences of other attempts.
  [[setCapacity(0, 1), submit(0, 0), renew('no'), renew('above'), finish('value', { forged: 'above' })]],
  // It is given to a holder, who finishes it; its worker cannot.
  [
    [
      setCapacity(0, 1),
      submit(0, 0),
      renew('no', true),
      repeat(0),
      finish('value', { attempt: 1 }),
      { ...log, before: undefined },
      { ...log, before: undefined },
      finish('value', { releasesSlot: false }),
    ],
  ],
  // The lease of a holder ends.
  [
    [
      setCapacity(0, 1),
      submit(0, 0),
      renew('no', true),
      advance(1001),
      processDue(2),
      finish('value', { attempt: 1 }),
    ],
  ],
  // An attempt ends twice in one batch.
  [[setCapacity(0, 1), submit(0, 0), finishBatch([finish('value'), finish('value')])]],
  // A job is terminated just before its worker ends it, with the very same failure.
  [[setCapacity(0, 1), submit(0, 0), terminate(0, 'error'), finish('error', { bytes: Uint8Array.of() })]],
  // A repeated retry when the job has finished again.
  [[submit(0, 0), terminate(0, 'error'), retry(0), terminate(0, 'error'), repeat(1)]],
  // An exclusive submission follows the attempt that runs: it is delayed, or has a priority of its own.
  [[setCapacity(0, 1), submit(0, 0), submit(1, 0, { ...exclusive, delay: 400 }), finish('value')]],
  [
    [
      setCapacity(0, 1),
      submit(0, 0, { priority: 2 }),
      submit(1, 0, { ...exclusive, priority: 1 }),
      submit(1, 0, exclusive),
      finish('value', { releasesSlot: false }),
      submit(0, 1),
    ],
  ],
  // It is refused while the job waits, and is served no result.
  [[submit(0, 0), submit(1, 0, exclusive), setCapacity(0, 1), finish('value'), submit(1, 0, exclusive)]],
  // The newer of two reruns is kept, even if it has the payload that runs.
  [[submit(0, 0), submit(1, 0, other), submit(1, 0, { conflict: 'rerun' })]],
  // Log lines are repeated.
  [[setCapacity(0, 1), submit(0, 0), log, log]],
  // A ready job is drained, and an active one is processed before it is due.
  [[submit(0, 0), drain, read]],
  [[setCapacity(0, 1), submit(0, 0), processDue(0, ['job-a'])]],
  // An idle worker is notified when a job falls due; a lifo job comes first.
  [[setCapacity(0, 1), submit(0, 0, { delay: 100 })]],
  [[submit(0, 0), submit(0, 1, { lifo: true })]],
  // The same post again, another one under its key, and both when it is not known any more.
  [
    [
      setCapacity(0, 1),
      submitAll([submit(0, 0), submit(0, 0, { payload: [65, 0] })]),
      repeat(0),
      submitAll([submit(0, 0)]),
      submitAll([submit(0, 0)], { digest: 1, peer: 1 }),
      advance(5001),
      repeat(0),
      repeat(3),
    ],
  ],
  // A post is refused, and its key is free; its jobs keep their order; the queue is erased, and knows no post.
  [
    [
      submitAll([submit(0, 0), submit(0, 0, { requiresWorker: true })]),
      submitAll([submit(0, 0, { priority: 1 }), submit(0, 0, { priority: 1 })]),
      { type: 'resetTotals' },
      submitAll([submit(0, 0)]),
      repeat(2),
    ],
  ],
  // A payload in several pieces, and an outcome that is too large for a message.
  [
    [
      submit(0, 0, { payload: [65, 0] }),
      setCapacity(0, 1),
      finish('value', { bytes: new Uint8Array(MESSAGE_LIMIT + 1) }),
    ],
  ],
]

/** Planted bugs: texts of the scripts, and what replaces each. */
const MUTANTS: Record<string, [from: string, to: string][]> = {
  'a post that is posted again under its key': [
    ['if generation and madeAfter == erasures then', 'if false then'],
  ],
  'another post that is taken for the one that is known': [
    ["if knownDigest ~= digest then return 'X' end", ''],
  ],
  'a post that is known, and has other jobs': [
    ["generation .. ' ' .. knownNonce\nend", "generation .. ' ' .. nonce\nend"],
  ],
  'a repeated post that is not its own': [["(knownNonce == nonce and 'C ' or 'J ')", "'J '"]],
  'a repeated post that is posted again when it is not known any more': [
    ["if made then return 'C '", "if false then return 'C '"],
  ],
  'a post of which a part is posted': [["return 'U ' .. string.match(argOf(n, 1), '^%d+')", 'break']],
  'a refused post that is known': [
    [
      'local jobs = {}\nfor n = 1, count do',
      "redis.call('HSET', postKey, 'h', digest, 'c', nonce, 'y', firstGeneration, 'x', erasures)\nlocal jobs = {}\nfor n = 1, count do",
    ],
  ],
  'a post that an erased queue knows': [['madeAfter == erasures then', 'true then']],
  'a post that is known for ever': [['expire(postKey, knownFor)', '']],
  'a post whose jobs have no order': [['create(n - 1, key', 'create(0, key']],
  'a submission that is not idempotent': [
    ['local isRepeated = creatorPark == park or creatorNonce == nonce', 'local isRepeated = false'],
  ],
  'a repeated submission that runs again after the job has finished': [
    ["is not run again.\n  if isRepeated then return 'C ' .. generation end", '\n'],
  ],
  'a repeated submission that joins twice': [['if parkedGeneration then return', 'if false then return']],
  'parks without bound': [
    ['num(parkedCount) >= maxParked then return', 'num(parkedCount) >= 1000 then return'],
  ],
  'a submitter that relies on a job that is cancelled as unwanted': [
    ['if abortUnwanted and not options.abortUnwanted', 'if false'],
  ],
  'a job that is cancelled as unwanted although it has a waiter': [['job.parkedCount > 0 or (job', '(job']],
  'an outcome that is not fenced': [
    ['elseif owner ~= worker or lastFence ~= fence then', 'elseif false then'],
  ],
  'an outcome that is checked by its worker alone': [
    ['elseif owner ~= worker or lastFence ~= fence then', 'elseif owner ~= worker then'],
  ],
  'a repeated outcome that is refused': [
    ["return redis.call('HGET', key, kind) == bytes and 2 or 0", 'return 0'],
  ],
  'a repeated outcome that counts as accepted': [
    [
      "return redis.call('HGET', key, kind) == bytes and 2 or 0",
      "return redis.call('HGET', key, kind) == bytes and 1 or 0",
    ],
  ],
  'another result than before that counts as a repetition': [
    ["return redis.call('HGET', key, kind) == bytes and 2 or 0", 'return 2'],
  ],
  'a retry that is told again as a requeue': [
    [
      'return returned == kind .. fence and 2 or 0',
      'return returned and string.sub(returned, 2) == fence and 2 or 0',
    ],
  ],
  'an outcome that is repeated in one call and releases two slots': [
    ['elseif endedAs[key] then', 'elseif false then'],
  ],
  'a slot that is not released': [['if options.releasesSlot then', 'if false then']],
  'a slot that is always released': [['if options.releasesSlot then', 'if true then']],
  'slots of a dead worker that stay free': [["redis.call('LREM', batch.command.slotsKey, 0, worker)", '']],
  'a job that is lost with a dead worker': [['requeueFirst(batch.command, batch[n].id)', '']],
  'an attempt without a lease': [
    ['leases[#leases + 1] = leaseEnd\n  leases[#leases + 1] = dueMember(id, command)', ''],
  ],
  'a lease that is not extended': [
    ['leases[#leases + 1] = int(now + num(lease))', 'leases[#leases + 1] = int(now)'],
  ],
  'a renewal that is not fenced': [['if isHeld and lastFence == fence then', 'if owner then']],
  'an attempt that is given away, and stays with its worker': [
    ["'o', holder == '' and worker or holder", "'o', worker"],
  ],
  'an attempt that cannot be given away twice by one call': [
    ["owner == worker or holder ~= '' and owner == holder", 'owner == worker'],
  ],
  'an attempt that anybody can give away': [
    ["owner == worker or holder ~= ''", "owner == worker or holder ~= '' or owner"],
  ],
  'slots that were used since and are given again': [
    ['local count = math.max(0, num(ARGV[argBase + 2]) - used)', 'local count = num(ARGV[argBase + 2])'],
  ],
  'slots that were removed and count as used': [
    ["redis.call('HEXISTS', command.workersKey, worker) == 1", 'true'],
  ],
  'a paused command whose jobs are taken': [
    ['if paused[1] + paused[2] == 0 then takeReady', 'if true then takeReady'],
  ],
  'a job that is due and is not told of': [['isAnyDue() and 2 or 0', '0']],
  'a job that is taken and not held': [["'f', fence, 'l', '1')", "'f', fence)"]],
  'a job that is taken without a lease': [
    ['leases[#leases + 1] = int(now + holder.lease)', 'leases[#leases + 1] = int(now)'],
  ],
  'a job that is taken and not counted': [["'l', '1')\n  tally('a')", "'l', '1')"]],
  'a holder that is not named by what it holds': [
    ["' ' .. fence .. ' ' .. job.failures", "' ' .. fence .. ' ' .. 0"],
  ],
  'a job that is taken and not found': [['string.sub(owner, 41)', 'string.sub(owner, 40)']],
  'a capacity whose reply does not count what it assigned': [
    ['batches[worker] and #batches[worker] or 0', '0'],
  ],
  'lines of an unknown number that are skipped': [["ARGV[argBase + 5] == '' and known or ", '']],
  'an acceptance that is not stored': [["key, 'l', '1', 'o'", "key, 'o'"]],
  'a stall that is not counted': [['if isAccepted or stalls == 0 then stalls = stalls + 1 end', '']],
  'a stall that is always counted': [['if isAccepted or stalls == 0 then stalls', 'if true then stalls']],
  'stalls without bound': [['if stalls > maxStalls then', 'if false then']],
  'slots of a stalled worker that stay free': [
    ["redis.call('LREM', command.slotsKey, 0, job.worker)\n  redis.call('HDEL'", "redis.call('HDEL'"],
  ],
  'a job that is processed before it is due': [
    ['if not at or num(at) > now then return 0 end', 'if not at then return 0 end'],
  ],
  'a job that may start before it is accepted': [
    ["if job.stalls and job.stalls ~= '0' then leaseUntil = '0' end", ''],
  ],
  'a fence below one that was seen': [['fence = math.max(us, highestFence + 1)', 'fence = us']],
  'a fence that is only the time': [['if lastFence and num(lastFence) >= fence then', 'if false then']],
  'priorities upside down': [["'-' .. priority", 'priority']],
  'a lifo job that comes last': [
    [
      "return redis.call('LPUSH', command.readyKey, id)\nend",
      "return redis.call('RPUSH', command.readyKey, id)\nend",
    ],
  ],
  'a lifo job that comes before those with a priority': [
    ["redis.call('LPOS', command.readyKey, PRIORITY_MARKER, 'RANK', rankedCount)", '(rankedCount - 1)'],
  ],
  'a rerun that is lost': [
    ['local follows = job.nextGeneration and not options.endsNext', 'local follows = false'],
  ],
  'waiters of the next generation that are notified too early': [
    ['if not job.nextGeneration or endsNext or num(waiter', 'if true or num(waiter'],
  ],
  'progress that is sent to waiters of the next generation': [
    ['if num(waiter.generation) <= num(generation) then publish', 'if true then publish'],
  ],
  'a next generation that survives a termination': [
    ['if job.nextGeneration then\n    job', 'if false then\n    job'],
  ],
  'a paused command whose ready jobs are assigned': [
    ['if #slots == 0 or slots[1] == PAUSED_MARKER then return end', 'if #slots == 0 then return end'],
  ],
  'a paused command whose submissions are assigned': [
    ['if command.slots[1] == PAUSED_MARKER then return nil end', ''],
  ],
  'a capacity that resumes a paused command': [['if isPaused and not hasMarker then', 'if false then']],
  'a command that is resumed although all are paused': [
    ['if paused[1] == 0 and paused[2] == 0 then', 'if true then'],
  ],
  'a capacity that adds to the one before': [
    ["local left = redis.call('LREM', command.slotsKey, 0, worker)", 'local left = 0'],
  ],
  'a retry that does not clear the failures': [
    ["redis.call('HDEL', key, 'a', 'z', 'l'", "redis.call('HDEL', key, 'z', 'l'"],
  ],
  'a load that counts delayed jobs as active': [
    ['if not isDelayed[member] then count', 'if true then count'],
  ],
  'a load that counts jobs of another command for the one that is known': [
    ['return segment and names[segment]', 'return segment and (#known == 2 and known[2] or names[segment])'],
  ],
  'a load that leaves out commands that have had no worker': [
    ["names[segment] = commandOf(string.match(member, '^%S+'))", 'names[segment] = nil'],
  ],
  'a load that takes a marker for its first job': [
    ['if id == PRIORITY_MARKER then id =', 'if false then id ='],
  ],
  'a retry of a removed job': [["or kind == 'x' then return 0", 'then return 0']],
  'a requeue that counts as a failure': [
    ["if kind == 'r' then\n    redis.pcall('HINCRBY'", "if true then\n    redis.pcall('HINCRBY'"],
  ],
  'a delay that is ignored': [['elseif delay > 0 then\n    delayNew', 'elseif false then\n    delayNew']],
  'a delay that no worker is notified of': [
    ["if notified then publish(notified, 't '", "if false then publish(notified, 't '"],
  ],
  'an outcome that expires too early': [
    ['expire(key, math.max(ttl, options.outcomeRetention, list', 'expire(key, math.max(ttl, list'],
  ],
  'a ready job that expires too early': [
    [`expire(key, delay + ${PENDING_JOB_TTL})\n  if worker`, 'if worker'],
  ],
  'a drain that notifies no waiter': [['sendOutbox()\nreturn { removed', 'return { removed']],
  'a drained job whose outcome expires at once': [["'x', '', outcomeRetention, 0)", "'x', '', 0, 0)"]],
  'a log line that is appended twice': [['local skipped = math.max(0, known - before)', 'local skipped = 0']],
  'lists of finished jobs without bound': [['if excess > 0 then', 'if false then']],
  'messages without bound': [
    ['local isTooLarge = #bytes > options.messageLimit', 'local isTooLarge = false'],
  ],
  'a stalled worker that stays known': [
    ["redis.call('HDEL', command.workersKey, job.worker)\n  publish", 'publish'],
  ],
  'a termination that its worker takes for its own outcome': [
    ['if externallyEndedFence == fence or outcomeFence', 'if outcomeFence'],
  ],
  'a repeated retry that runs again': [
    ['if generation and num(generation) > num(ARGV[argBase + 1])', 'if false'],
  ],
  'an exclusive submission that is accepted while a job waits': [
    ["if not owner or owner == '' or nextGeneration then", 'if nextGeneration then'],
  ],
  'an exclusive submission that replaces the one before it': [
    ["if not owner or owner == '' or nextGeneration then", "if not owner or owner == '' then"],
  ],
  'an exclusive submission that is served a result': [['not options.isExclusive and (', '(']],
  'a next generation that starts before it is due': [['if num(dueAt) > (now or 0) then', 'if false then']],
  'a next generation with the priority of the one before': [["if rank == '' then", 'if false then']],
  'a rerun that is not the newest': [['or (options.reruns and nextGeneration)', 'or false']],
  'a payload that loses bytes': [['(n + 1) * 64)', '(n + 1) * 64 - 1)']],
  'a piece of an earlier payload': [["'p3', 'b', 'c'", "'b', 'c'"]],
  'a capacity request that is not sent': [
    ["redis.pcall('PUBLISH', broadcastChannel, capacityRequest)", "redis.pcall('ECHO', capacityRequest)"],
  ],
  'a repeated submission that is counted again': [
    [
      "if isRepeated then return 'C ' .. generation end\n    if nextNonce",
      "if isRepeated then tally('s') return 'C ' .. generation end\n    if nextNonce",
    ],
  ],
  'a submission that joins and is counted': [["if status == 'C' then tally('s') end", "tally('s')"]],
  'an attempt that is taken with every renewal': [["if not isAccepted then tally('a') end", "tally('a')"]],
  'an attempt that is taken once more when it ends': [
    ['(options.isExternal or job.isAccepted) and kind or', 'options.isExternal and kind or'],
  ],
  'a removed job that has failed': [
    ["if kind ~= 'x' then tally(", "if true then tally(kind == 'x' and 'e' or "],
  ],
  'a cancelled attempt that goes on': [
    ["if job.worker then publish(job.worker, 'c '", "if false then publish(job.worker, 'c '"],
  ],
}

/** The scripts with a planted bug. */
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

testConformance<QueueScripts, Op>({
  name: 'queue conformance',
  title: 'S1 S2 S3 S6 queue conformance - the scripts do what the model does',
  clock,
  op,
  createWorlds: (client) => new Worlds(client),
  sound: () => buildQueueScripts(TEST_TIME),
  runs: RUNS,
  rare: RARE_CASES,
  regressions: REGRESSIONS,
  mutants: Object.fromEntries(Object.entries(MUTANTS).map(([name, bug]) => [name, () => mutant(bug)])),
  runsPerMutant: 5 * RUNS,
})
