// Compares the scripts on a real Redis with the memory store, operation by operation: they must give the same replies, leave
// the same state, and send the same messages to the same flights. Time is an argument of both.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { newId } from '../../src/kernel/keys.ts'
import { Script } from '../../src/kernel/redis/call.ts'
import type { Connection } from '../../src/kernel/redis/connection.ts'
import { systemClock } from '../../src/kernel/time.ts'
import { MemoryStore } from '../../src/locker/store/memory-store.ts'
import type { ResourceRecord, TransitionContext } from '../../src/locker/store/record.ts'
import { RedisStore } from '../../src/locker/store/redis/redis-store.ts'
import { buildScripts, type LockerScripts } from '../../src/locker/store/redis/scripts/index.ts'
import type { TimeFragments } from '../../src/locker/store/redis/scripts/prelude.ts'
import { parseValue } from '../../src/locker/store/redis/wire.ts'
import {
  ANY_STALENESS,
  type Claim,
  type ClaimReply,
  type GrantRef,
  type Notice,
  type Outcome,
  type Store,
} from '../../src/locker/store/store.ts'
import { senderOf } from '../support/clients.ts'
import { messagesArrived, noticedGone, testConformance, WITHIN } from './suite.ts'

const RUNS = 300
/** Limits of parked flights and of the bytes of a message, small enough to be reached. */
const MAX_PARKED = 3
const MESSAGE_LIMIT = 40
/** Flights that claim repeatedly. Each newcomer claims once. */
const FLIGHTS = 10
/** The flights from this one on only wait. */
const WAITING = 8
const EPOCH = 1_700_000_000_000

/** The scripts read the time from two keys, and store the expiry in a field: that of the server would use its own clock. */
const TEST_TIME: TimeFragments = {
  clock: `
local now, us = unpack(redis.call('MGET', 'now', 'us'))
now, us = tonumber(now), tonumber(us)
for _, key in ipairs(KEYS) do
  local at = redis.call('HGET', key, 'x')
  if at and tonumber(at) <= now then redis.call('DEL', key) end
end`,
  keep: `
local function keep(key, at)
  if at <= now then redis.call('DEL', key) else redis.call('HSET', key, 'x', int(at)) end
end`,
}
const LOOK = new Script(`${TEST_TIME.clock}\nreturn redis.call('HGETALL', KEYS[1])`)

/** The time of the model, of the scripts, and of the estimates of the server's clock. */
let time = EPOCH
const clock = { now: () => time, after: systemClock.after }

/** The model: the memory store, on the test's time, with the highest fence that the acting process has seen. */
class Model extends MemoryStore {
  seen = 0

  constructor() {
    const clock = { now: () => time, after: () => ({ cancel() {} }) }
    super({ clock, deliver: (message) => message(), maxParked: MAX_PARKED })
  }

  get micros(): number {
    return time * 1000
  }

  override apply<T>(key: string, transition: (record: ResourceRecord, at: TransitionContext) => T): T {
    return super.apply(key, (record, at) =>
      transition(record, { ...at, micros: this.micros, highestFence: this.seen }),
    )
  }
}

/** A process, as a client of both stores. */
interface Process {
  model: Store
  redis: Store
  connection: Connection
  /** The highest fence of its replies. */
  seen: number
  /** Its notices and invalidations, from each store. */
  heard: { model: string[]; redis: string[] }
  gone: boolean
}

interface FlightState {
  party: number
  key: string
  nonce: string
  attempt: number
  afterFence: number
  parkedFence: number
  /** Its last claim, to be sent again. */
  last: Claim | undefined
  /** Records its notices. */
  hear: { model: Hear; redis: Hear }
}

const nat = (max: number) => fc.nat({ max })
const length = fc.constantFrom(100, 250, 1000)
const ttl = fc.constantFrom(0, 1, 90, 300, 5000)
const outcomeRetention = fc.constantFrom(1, 200, 1500)
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 12 }),
  fc.uint8Array({ minLength: MESSAGE_LIMIT - 1, maxLength: MESSAGE_LIMIT + 2 }),
)
const claimShape = {
  flight: nat(FLIGHTS - 1),
  lease: length,
  refresh: fc.boolean(),
  stay: fc.boolean(),
  resent: fc.boolean(),
  newcomer: fc.boolean(),
  /** The fences of the claim: those of the flight, 0, or the last fence of the record. */
  afterFence: fc.constantFrom('own', 'own', 'none', 'last'),
  parkedFence: fc.constantFrom('own', 'own', 'none', 'last'),
  trace: fc.constantFrom('', '', '00-4bf9-01', 'x y\nz 1'),
  maxStaleness: fc.constantFrom(0, 1, 100, 300, 5000, ANY_STALENESS, ANY_STALENESS),
  acceptStaleWhileHeld: fc.constantFrom(0, 50, 300, 5000),
  allowBypass: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, fc.constant(false)),
  /** The expected fence: none, the last one, or the one before. */
  expectedFence: fc.oneof(
    { weight: 6, arbitrary: fc.constant('any' as const) },
    fc.constantFrom('last' as const, 'former' as const),
  ),
}
const PLAIN_CLAIM = {
  lease: 250,
  refresh: false,
  stay: false,
  resent: false,
  newcomer: false,
  afterFence: 'own',
  parkedFence: 'own',
  trace: '',
  maxStaleness: ANY_STALENESS,
  acceptStaleWhileHeld: 0,
  allowBypass: true,
  expectedFence: 'any',
} as const
/** The options of a plain claim. */
const PLAIN_WANTS = {
  refresh: false,
  takeover: true,
  maxStaleness: ANY_STALENESS,
  acceptStaleWhileHeld: 0,
  allowBypass: true,
  expectedFence: 0,
  waitOnly: false,
  trace: '',
}
const grantShape = {
  /** Counted from the latest. 0 is mostly the current grant; the others have ended. */
  grant: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, nat(5)),
  /** A fence that is not the grant's own; or another process acts for the owner. */
  forged: fc.oneof(
    { weight: 6, arbitrary: fc.constant('no' as const) },
    fc.constantFrom('above' as const, 'current' as const, 'elsewhere' as const),
  ),
}
const op = fc.oneof(
  { weight: 8, arbitrary: fc.record({ type: fc.constant('claim' as const), ...claimShape }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('batch' as const),
      claims: fc.array(fc.record(claimShape), { minLength: 2, maxLength: 5 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('renew' as const), lease: length, ...grantShape }) },
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('settle' as const),
      kind: fc.constantFrom('value' as const, 'value' as const, 'error' as const, 'unstored' as const),
      bytes,
      ttl,
      outcomeRetention,
      keepStale: fc.constantFrom(0, 0, 1, 90, 300, 5000),
      tags: fc.constantFrom('', '', '17 s:1:t/x', '1700000000000000 s:1:t/x\n3 s:1:th/-_'),
      bypassFor: fc.constantFrom(0, 90, 300),
      ...grantShape,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('release' as const),
      regrant: fc.option(length, { nil: undefined }),
      asExpired: fc.boolean(),
      outcomeRetention,
      ...grantShape,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('releaseIfUnwanted' as const),
      outcomeRetention,
      ...grantShape,
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('unpark' as const), flight: nat(FLIGHTS - 1) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('progress' as const), bytes, ...grantShape }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('invalidate' as const), party: nat(3), key: nat(1) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constantFrom('snapshot' as const, 'readFresh' as const),
      party: nat(3),
      key: nat(1),
    }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('repeat' as const), back: nat(4) }) },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('wait' as const), ms: fc.integer({ min: -60, max: 250 }) }),
  },
  /** Sets the time to a deadline of a record, 1 ms before it, or 1 ms after it. */
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('deadline' as const), key: nat(1), which: nat(12), by: nat(2) }),
  },
  /** All flights of a key claim, beginning with one of them. */
  { weight: 3, arbitrary: fc.record({ type: fc.constant('crowd' as const), first: nat(FLIGHTS - 1) }) },
  { weight: 3, arbitrary: fc.constant({ type: 'leave' as const }) },
)
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never
type ClaimOp = Omit<Extract<Op, { type: 'claim' }>, 'type'>
type GrantOp = { grant: number; forged: 'no' | 'above' | 'current' | 'elsewhere' }

type Hear = (notice: Notice) => void

/** The reply to a claim, as a promise. Later notices go to `hear`. */
function claimed(store: Store, claim: Claim, hear: Hear, sending = () => {}): Promise<ClaimReply> {
  return new Promise((resolve, reject) => {
    store.claim(claim, WITHIN, { sending, claimed: resolve, claimFailed: reject, notice: hear })
  })
}

const hex = (bytes: Buffer | undefined): string | undefined => bytes?.toString('hex')

/** Fields in a fixed order: messages are compared as text. */
function plainOutcome({ kind, fence, bytes, ttlLeft, invalidated, staleLeft, tags }: Outcome): object {
  return { kind, fence, ttlLeft, invalidated, staleLeft, tags, bytes: hex(bytes) }
}

function plainNotice(notice: Notice): object {
  if (notice.kind === 'progress') return { kind: 'progress', bytes: hex(notice.bytes) }
  return notice.kind === 'outcome' ? { kind: 'outcome', outcome: plainOutcome(notice.outcome) } : notice
}

/** The notice that Redis must send for a notice of the model: it only announces outcomes that are too large. */
function announced(notice: Notice): Notice {
  const tooLarge = notice.kind === 'outcome' && notice.outcome.bytes.length > MESSAGE_LIMIT
  return tooLarge ? { kind: 'too-large' } : notice
}

function plainReply(reply: unknown): unknown {
  return JSON.parse(
    JSON.stringify(reply, (name, value) => {
      if (value?.type === 'Buffer') return Buffer.from(value.data).toString('hex')
      return name === 'holder' ? String(value).split(':').at(-1) : value
    }) ?? 'null',
  )
}

/** Returns the time of the test as the command TIME does. */
const TIME = new Script(`
local now = tonumber(redis.call('GET', 'now'))
return { math.floor(now / 1000), (now % 1000) * 1000 }`).with([], [])

/** A plain read does not tell the server's time. By the client's bound of it, a value is fresh for up to this much less, ms. */
const BOUND = 61

/** Asserts that a plain read found the value of the model, or found nothing because it was about to expire. */
function assertReadAgrees(found: Outcome | undefined, expected: Outcome | undefined): void {
  if (!found || !expected) {
    assert.ok((expected?.ttlLeft ?? 0) <= BOUND, `nothing was read of ${JSON.stringify(expected)}`)
    assert.equal(found, undefined)
    return
  }
  const { ttlLeft } = found
  assert.ok(ttlLeft <= expected.ttlLeft && ttlLeft >= expected.ttlLeft - BOUND, `fresh for ${ttlLeft}`)
  assert.deepEqual(plainOutcome({ ...found, ttlLeft: expected.ttlLeft }), plainOutcome(expected))
}

type Names = (text: string) => string

/** The state of a record in the model. */
function stateOfRecord(record: ResourceRecord | undefined, named: Names): object | undefined {
  if (!record) return undefined
  const { value, lease, outcome } = record
  return {
    fence: record.fence,
    invalidatedUpTo: record.invalidatedUpTo,
    bypassUntil: record.bypassUntil,
    value: value && {
      bytes: hex(value.bytes),
      fence: value.fence,
      fresh: value.freshUntil,
      acceptedAt: value.acceptedAt,
      staleUntil: value.staleUntil,
      tags: value.tags,
    },
    lease: lease && {
      token: named(lease.token),
      until: lease.expiresAt,
      length: lease.length,
      holder: lease.holder.split(':').at(-1),
      trace: lease.trace,
      progress: hex(lease.progress),
      unwanted: lease.notifyUnwanted,
    },
    outcome: outcome && {
      fence: outcome.fence,
      kind: outcome.kind,
      until: outcome.readableUntil,
      error: hex(outcome.bytes),
      errorFresh: outcome.errorFreshUntil,
      tags: outcome.tags,
    },
    parks: [...record.parks].map(([park, kind]) => `${kind} ${named(park)}`),
    waitsUntil: record.waitsUntil,
    parked: record.parks.size,
    expiresAt: record.expiresAt,
  }
}

const KINDS: Record<string, string> = { v: 'value', e: 'error', r: 'release', n: 'unstored' }

/** The same state from the fields of the hash. Repeats the table of prelude.ts independently. */
function stateOfHash(fields: Map<string, Buffer>, named: Names): object | undefined {
  if (fields.size === 0) return undefined
  const text = (name: string) => fields.get(name)?.toString('latin1')
  const number = (name: string) => Number(text(name) ?? 0)
  const parks = [...fields.keys()].filter((name) => /^[@~]/.test(name))
  const known = new Set([
    'v',
    'w',
    'vf',
    'vu',
    'va',
    'vs',
    'o',
    'u',
    'l',
    'h',
    'c',
    'g',
    'a',
    's',
    'k',
    'su',
    'e',
    'eu',
    'et',
    'n',
    'f',
    'd',
    'pu',
    'wu',
    'x',
  ])
  const unknown = [...fields.keys()].filter((name) => !known.has(name) && !parks.includes(name))
  assert.deepEqual(unknown, [], 'fields that the table does not know')
  const kept = fields.get('v') ?? fields.get('w')
  const value = kept && parseValue(kept)
  if (value && fields.has('v')) {
    // The header must agree with the fields.
    const told = [value.fence, value.freshUntil, value.staleUntil]
    assert.deepEqual(told, [number('vf'), number('vu'), number('vs')], 'header of the value')
    assert.ok(!fields.has('w'), 'not both v and w')
  }
  return {
    fence: number('f'),
    invalidatedUpTo: number('d'),
    bypassUntil: number('pu'),
    value: value
      ? {
          bytes: hex(value.bytes),
          fence: number('vf'),
          fresh: number('vu'),
          acceptedAt: number('va'),
          staleUntil: number('vs'),
          tags: value.tags,
        }
      : undefined,
    lease: fields.has('o')
      ? {
          token: named(text('o') ?? ''),
          until: number('u'),
          length: number('l'),
          holder: text('h')?.split(':').at(-1),
          trace: text('c') ?? '',
          progress: hex(fields.get('g')),
          unwanted: fields.has('a'),
        }
      : undefined,
    outcome: fields.has('s')
      ? {
          fence: number('s'),
          kind: KINDS[text('k') ?? ''],
          until: number('su'),
          error: hex(fields.get('e')),
          errorFresh: number('eu'),
          tags: text('et') ?? '',
        }
      : undefined,
    parks: parks.map((park) => `${park.startsWith('~') ? 'waits' : 'claims'} ${named(park.slice(1))}`),
    waitsUntil: number('wu'),
    parked: number('n'),
    expiresAt: number('x'),
  }
}

/** Both stores, and the operations on them. */
class Worlds {
  readonly #client: Redis
  readonly #model = new Model()
  readonly #parties: Process[] = []
  readonly #keys: string[]
  readonly #flights: FlightState[] = []
  #newcomers = 0
  /** Attempt numbers of regrants: higher than those of claims. */
  #regrants = 1000
  readonly #grants: (GrantRef & { party: number })[] = []
  readonly #past: (() => Promise<void>)[] = []
  readonly #names = new Map<string, string>()
  readonly #cleanup: (() => void)[] = []

  constructor(client: Redis) {
    this.#client = client
    const run = newId()
    this.#keys = [`${run}:a`, `${run}:b`]
  }

  async open(connections: readonly Connection[], scripts: LockerScripts): Promise<void> {
    for (const connection of connections) await this.#enter(connection, scripts)
    for (let index = 0; index < FLIGHTS; index++) {
      const party = index % connections.length
      const key = this.#keys[index % 4 === 0 ? 1 : 0] as string
      this.#flights.push(this.#flight(party, key, `flight${index}`))
    }
    await this.#setTime(EPOCH)
  }

  #flight(party: number, key: string, name: string): FlightState {
    const nonce = newId()
    this.#names.set(nonce, name)
    const { redis, heard } = this.#party(party)
    const note = (told: string[]) => (notice: Notice) =>
      told.push(`${name} ${JSON.stringify(plainNotice(notice))}`)
    this.#cleanup.push(() => redis.ignore(nonce))
    const tell = note(heard.model)
    // On Redis a probe has no recipient in the process.
    const toldByModel = (notice: Notice) => notice.kind !== 'probe' && tell(announced(notice))
    const hear = { model: toldByModel, redis: note(heard.redis) }
    return { party, key, nonce, attempt: 0, afterFence: 0, parkedFence: 0, last: undefined, hear }
  }

  async #enter(connection: Connection, scripts: LockerScripts): Promise<void> {
    const name = `party${this.#parties.length}`
    const options = { scripts, maxParked: MAX_PARKED, messageLimit: MESSAGE_LIMIT, time: TIME }
    const heard: Process['heard'] = { model: [], redis: [] }
    const model = this.#model.connect()
    const redis = new RedisStore(connection, options)
    const drops = (told: string[]) => ({
      up() {},
      down() {},
      invalidated: (key: string, fence: number) => {
        const index = this.#keys.indexOf(key)
        if (index >= 0) told.push(`drop ${index} ${fence}`)
      },
      tagInvalidated() {},
    })
    this.#cleanup.push(model.listen(drops(heard.model)), redis.listen(drops(heard.redis)))
    // The id of the model's inbox is known from the token of a grant.
    const probe = { record: name, nonce: newId(), attempt: 1, lease: 1000, afterFence: 0, parkedFence: 0 }
    await claimed(model, { ...probe, ...PLAIN_WANTS }, () => {})
    const token = this.#model.find(name)?.lease?.token ?? ''
    this.#names.set(token.slice(0, 22), name).set(connection.inbox.id, name)
    this.#parties.push({ model, redis, connection, seen: 0, heard, gone: false })
  }

  #party(index: number): Process {
    return this.#parties[index % this.#parties.length] as Process
  }

  /** Replaces random ids by names that are the same in both stores. */
  readonly #named: Names = (text) =>
    [text.slice(0, 22), text.slice(22, 44)].map((id) => this.#names.get(id) ?? `?${id}`).join(' ') +
    text.slice(44)

  async #setTime(to: number): Promise<void> {
    time = to
    await this.#client.mset('now', time, 'us', this.#model.micros)
    // Both delete expired records now: later the time may be set back.
    for (const key of this.#keys) await this.compare(key)
  }

  async apply(op: Op): Promise<void> {
    switch (op.type) {
      case 'claim':
        return this.#again(this.#claims([op]))
      case 'batch':
        return this.#again(this.#claims(op.claims))
      case 'renew':
        return this.#withGrant(op, (store, grant) => store.renew({ ...grant, lease: op.lease }, WITHIN))
      case 'settle': {
        const { kind, ttl, outcomeRetention, keepStale, tags, bypassFor } = op
        const settlement = {
          kind,
          ttl,
          outcomeRetention,
          keepStale,
          tags,
          bypassFor,
          bytes: Buffer.from(op.bytes),
        }
        return this.#withGrant(op, (store, grant) => store.settle({ ...grant, ...settlement }, WITHIN))
      }
      case 'release':
        return this.#release(op)
      case 'releaseIfUnwanted':
        return this.#withGrant(op, (store, grant) =>
          store.releaseIfUnwanted({ ...grant, outcomeRetention: op.outcomeRetention }, WITHIN),
        )
      case 'progress':
        return this.#withGrant(op, (store, grant) =>
          store.progress({ ...grant, bytes: Buffer.from(op.bytes) }, WITHIN),
        )
      case 'unpark': {
        const { party, key, nonce } = this.#flights[op.flight] as FlightState
        return this.#again(() => this.#both(party, key, (store) => store.unpark(key, nonce, WITHIN)))
      }
      case 'readFresh':
        return this.#again(() => this.#readFresh(op.party, this.#keys[op.key] as string))
      case 'invalidate':
      case 'snapshot': {
        const key = this.#keys[op.key] as string
        return this.#again(async () => {
          await this.#both<unknown>(op.party, key, (store) => store[op.type](key, WITHIN))
        })
      }
      case 'repeat':
        return this.#past.at(-1 - op.back)?.()
      case 'wait':
        return this.#setTime(time + op.ms)
      case 'deadline': {
        const found = this.#model.find(this.#keys[op.key] as string)
        const { value, lease, outcome } = found ?? {}
        const ends = [
          value?.freshUntil,
          value?.staleUntil,
          lease?.expiresAt,
          lease && lease.expiresAt + lease.length,
        ]
        const others = [
          outcome?.readableUntil,
          outcome?.errorFreshUntil,
          found?.bypassUntil,
          found?.waitsUntil,
          found?.expiresAt,
        ]
        const ahead = [...ends, ...others].filter((at = 0) => at > time)
        const at = ahead[op.which % ahead.length]
        return at === undefined ? undefined : this.#setTime(at - 1 + op.by)
      }
      case 'crowd':
        return this.#crowd(op.first)
      case 'leave':
        return this.#leave()
    }
  }

  async #crowd(first: number): Promise<void> {
    const { key } = this.#flights[first] as FlightState
    for (let count = 0; count < FLIGHTS; count++) {
      const flight = (first + count) % FLIGHTS
      if (this.#flights[flight]?.key !== key) continue
      await this.#claims([{ flight, ...PLAIN_CLAIM }])()
    }
  }

  async #readFresh(index: number, key: string): Promise<void> {
    const party = this.#party(index)
    if (party.gone) return
    assertReadAgrees(await party.redis.readFresh(key, WITHIN), await party.model.readFresh(key, WITHIN))
    await this.compare(key)
  }

  /** A first, plain claim. */
  #newcomer(party: number, key: string): { flight: FlightState; claim: Claim } {
    const flight = this.#flight(party, key, `newcomer${this.#newcomers++}`)
    flight.attempt = 1
    const { nonce } = flight
    return {
      flight,
      claim: { record: key, nonce, attempt: 1, lease: 1000, afterFence: 0, parkedFence: 0, ...PLAIN_WANTS },
    }
  }

  /** Runs an operation, and records it for 'repeat'. */
  async #again(operation: () => Promise<void>): Promise<void> {
    this.#past.push(operation)
    await operation()
  }

  /** The claims of one turn of one process. They are fixed now, also for repetitions. */
  #claims(ops: ClaimOp[]): () => Promise<void> {
    const party = (this.#flights[ops[0]?.flight ?? 0] as FlightState).party
    const claims = ops.map((op, at) => {
      const mine = this.#flights.filter((flight) => flight.party === party)
      const flight = (at === 0 ? this.#flights[op.flight] : mine[op.flight % mine.length]) as FlightState
      const waitOnly = this.#flights.indexOf(flight) >= WAITING
      if (op.newcomer && !waitOnly) return this.#newcomer(party, flight.key)
      if (op.resent && flight.last) return { flight, claim: flight.last }
      const last = this.#model.find(flight.key)?.fence ?? 0
      const knowledge = { own: undefined, none: 0, last }
      const expected = { any: 0, last, former: Math.max(0, last - 1) }
      const claim: Claim = {
        record: flight.key,
        nonce: flight.nonce,
        attempt: ++flight.attempt,
        lease: op.lease,
        afterFence: knowledge[op.afterFence] ?? flight.afterFence,
        parkedFence: knowledge[op.parkedFence] ?? flight.parkedFence,
        refresh: op.refresh,
        takeover: !op.stay,
        maxStaleness: op.maxStaleness,
        acceptStaleWhileHeld: op.acceptStaleWhileHeld,
        allowBypass: op.allowBypass,
        expectedFence: expected[op.expectedFence],
        waitOnly,
        trace: op.trace,
      }
      flight.last = claim
      return { flight, claim }
    })
    return () => this.#claim(party, claims)
  }

  async #claim(index: number, claims: { flight: FlightState; claim: Claim }[]): Promise<void> {
    const party = this.#party(index)
    if (party.gone) return
    this.#model.seen = party.seen
    const answers = await Promise.all(
      claims.map(({ claim, flight }) => claimed(party.redis, claim, flight.hear.redis)),
    )
    for (const [at, { flight, claim }] of claims.entries()) {
      const reply = await claimed(party.model, claim, flight.hear.model)
      assert.deepEqual(plainReply(answers[at]), plainReply(reply), 'reply to a claim')
      if (reply.status !== 'granted' && reply.status !== 'parked') continue
      party.seen = Math.max(party.seen, reply.fence)
      flight.parkedFence = reply.status === 'parked' ? reply.fence : 0
      if (reply.status === 'parked') flight.afterFence = reply.afterFence
      const { record: key, nonce, attempt } = claim
      if (reply.status === 'granted')
        this.#grants.unshift({ party: index, record: key, nonce, attempt, fence: reply.fence })
    }
    for (const key of new Set(claims.map(({ claim }) => claim.record))) await this.compare(key)
  }

  /** Runs an operation on both stores, and compares the replies and the state. */
  async #both<T>(index: number, key: string, act: (store: Store) => Promise<T>): Promise<T | undefined> {
    const party = this.#party(index)
    if (party.gone) return
    this.#model.seen = party.seen
    const reply = await act(party.model)
    assert.deepEqual(plainReply(await act(party.redis)), plainReply(reply), 'reply')
    await this.compare(key)
    return reply
  }

  #fence(grant: GrantRef, forged: GrantOp['forged']): number {
    if (forged === 'above') return grant.fence + 1
    return forged === 'current' ? (this.#model.find(grant.record)?.fence ?? grant.fence) : grant.fence
  }

  async #withGrant<T>(
    { grant, forged }: GrantOp,
    act: (store: Store, grant: GrantRef) => Promise<T>,
  ): Promise<void> {
    const found = this.#grants[grant % (this.#grants.length || 1)]
    if (!found) return
    const { party, ...given } = found
    const used = { ...given, fence: this.#fence(given, forged) }
    const owner = this.#party(party)
    const elsewhere = forged === 'elsewhere'
    await this.#again(async () => {
      await this.#both(elsewhere ? party + 1 : party, used.record, (store) => {
        const { inbox } = this.#isModel(store) ? owner.model : owner.redis
        return act(store, elsewhere ? { ...used, inbox } : used)
      })
    })
  }

  #isModel(store: Store): boolean {
    return this.#parties.some(({ model }) => model === store)
  }

  async #release(op: Extract<Op, { type: 'release' }>): Promise<void> {
    const found = this.#grants[op.grant % (this.#grants.length || 1)]
    if (!found) return
    const { party, ...grant } = found
    const regrant = op.regrant === undefined ? undefined : { attempt: ++this.#regrants, lease: op.regrant }
    const { outcomeRetention, asExpired } = op
    const release = { ...grant, fence: this.#fence(grant, op.forged), outcomeRetention, asExpired, regrant }
    await this.#again(async () => {
      const reply = await this.#both(party, grant.record, (store) => store.release(release, WITHIN))
      if (reply?.fence === undefined || !regrant) return
      const who = this.#party(party)
      who.seen = Math.max(who.seen, reply.fence)
      this.#grants.unshift({ ...found, attempt: regrant.attempt, fence: reply.fence })
    })
  }

  /** The last process exits without unparking. */
  async #leave(): Promise<void> {
    const party = this.#party(this.#parties.length - 1)
    if (party.gone) return
    await this.#drain()
    party.gone = true
    party.model.close()
    await party.connection.close()
    await noticedGone(this.#client, party.connection)
  }

  async compare(key: string): Promise<void> {
    const reply = (await LOOK.with([key], []).send(senderOf(this.#client))) as Buffer[]
    const fields = new Map<string, Buffer>()
    for (let at = 0; at + 1 < reply.length; at += 2) fields.set(String(reply[at]), reply[at + 1] as Buffer)
    const found = stateOfHash(fields, this.#named)
    assert.deepEqual(found, stateOfRecord(this.#model.find(key), this.#named), 'state')
  }

  #drain(): Promise<void> {
    const present = this.#parties.filter(({ gone }) => !gone)
    return messagesArrived(
      this.#client,
      present.map(({ connection }) => connection),
    )
  }

  /** Compares the final state and all messages. */
  async finish(): Promise<void> {
    for (const key of this.#keys) await this.compare(key)
    await this.#drain()
    for (const { heard } of this.#parties) assert.deepEqual(heard.redis, heard.model, 'messages')
  }

  close(): Promise<unknown> {
    for (const clean of this.#cleanup) clean()
    return this.#client.del(this.#keys)
  }
}

const PLAIN_VALUE = { kind: 'value', outcomeRetention: 1, keepStale: 0, tags: '', bypassFor: 0 } as const

/** Counterexamples of the past, shrunk. */
const REGRESSIONS: Record<string, Op[]> = {
  'a claim sent again, when the clock went back to where there was a result': [
    { type: 'claim', flight: 1, ...PLAIN_CLAIM },
    { type: 'settle', ...PLAIN_VALUE, bytes: Uint8Array.of(), ttl: 0, grant: 0, forged: 'no' },
    { type: 'claim', flight: 5, ...PLAIN_CLAIM, newcomer: true },
    { type: 'wait', ms: -1 },
    { type: 'repeat', back: 0 },
  ],
  'an invalidated value that no flight may read, when the clock went back to where one might': [
    { type: 'claim', flight: 1, ...PLAIN_CLAIM },
    { type: 'claim', flight: 2, ...PLAIN_CLAIM },
    { type: 'settle', ...PLAIN_VALUE, bytes: Uint8Array.of(1), ttl: 0, grant: 0, forged: 'no' },
    { type: 'claim', flight: 5, ...PLAIN_CLAIM },
    { type: 'wait', ms: 1 },
    { type: 'invalidate', party: 0, key: 0 },
    { type: 'wait', ms: -1 },
    { type: 'claim', flight: 2, ...PLAIN_CLAIM },
  ],
  'progress of no bytes, for a flight that is parked beside a stale value': [
    { type: 'claim', flight: 1, ...PLAIN_CLAIM },
    {
      type: 'settle',
      ...PLAIN_VALUE,
      bytes: Uint8Array.of(1),
      ttl: 0,
      keepStale: 5000,
      grant: 0,
      forged: 'no',
    },
    { type: 'claim', flight: 2, ...PLAIN_CLAIM },
    { type: 'progress', bytes: Uint8Array.of(), grant: 0, forged: 'no' },
    { type: 'claim', flight: 5, ...PLAIN_CLAIM },
  ],
  'a settlement of a resource that was never granted, under a fence that is 0': [
    { type: 'claim', flight: 1, ...PLAIN_CLAIM },
    { type: 'wait', ms: 500 },
    { type: 'claim', flight: 9, ...PLAIN_CLAIM },
    { type: 'settle', ...PLAIN_VALUE, bytes: Uint8Array.of(), ttl: 0, grant: 0, forged: 'current' },
  ],
}

const settle = (ttl: 300 | 5000, grant = 0, forged: GrantOp['forged'] = 'no') =>
  ({ type: 'settle', ...PLAIN_VALUE, bytes: Uint8Array.of(1), ttl, grant, forged }) as const
const claim = (flight: number, refresh = false) =>
  ({ type: 'claim', flight, ...PLAIN_CLAIM, refresh }) as const
const release = {
  type: 'release',
  regrant: undefined,
  asExpired: false,
  outcomeRetention: 200,
  grant: 0,
  forged: 'no',
} as const
const expireLease = { ...release, asExpired: true } as const
const wait = (ms: number) => ({ type: 'wait', ms }) as const
/** Settles a value that is stale at once and kept for `keepStale` ms. */
const staleValue = (keepStale: 90 | 5000) =>
  ({ ...settle(300), ttl: 0, keepStale, outcomeRetention: 1500 }) as const
/** A claim that accepts a value that has been stale for less than `maxStaleness` ms. */
const acceptingStale = (flight: number, maxStaleness: 100 | 5000) =>
  ({ ...claim(flight), maxStaleness }) as const
const unstored = { ...settle(300), kind: 'unstored', bypassFor: 300 } as const
const noBypass = (flight: number) => ({ ...claim(flight), allowBypass: false }) as const
const releaseIfUnwanted = {
  type: 'releaseIfUnwanted',
  outcomeRetention: 200,
  grant: 0,
  forged: 'no',
} as const
const unpark = (flight: number) => ({ type: 'unpark', flight }) as const

/** Sequences that are too rare to be found at random. They run first, with the scripts as they are and with every planted bug. */
const RARE: [Op[]][] = [
  // The process of the first flight to be notified has gone.
  [[claim(1), claim(3), claim(2), { type: 'leave' }, release]],
  // The flight that was notified of the free resource unparks.
  [[claim(1), claim(2), claim(5), release, { type: 'unpark', flight: 2 }]],
  // A lease that expired longer ago than its length, on a record that lives on.
  [[claim(1), settle(5000), claim(1, true), { type: 'wait', ms: 501 }, settle(300)]],
  // The lease expired, and a flight that was parked may not take over.
  [[claim(1), claim(2), { type: 'wait', ms: 250 }, { ...claim(2), stay: true }]],
  // The lease was expired by its holder: all flights are notified, and one that may not take over does not.
  [[claim(1), claim(2), claim(4), expireLease, { ...claim(2), stay: true }, claim(4)]],
  [[claim(1), claim(2), expireLease, wait(200), expireLease, settle(300)]],
  // The token of one grant with the fence of another.
  [[claim(1), release, claim(2), settle(300, 1, 'current')]],
  // Stale for exactly `maxStaleness`.
  [[claim(1), staleValue(5000), wait(100), acceptingStale(2, 100)]],
  // `staleUntil` has passed, on a record that lives on.
  [[claim(1), staleValue(90), wait(90), acceptingStale(2, 5000)]],
  // The value is fresh again after the clock was set back, and the claim is repeated.
  [[claim(1), staleValue(5000), acceptingStale(2, 100), wait(-1), { type: 'repeat', back: 0 }]],
  // A stale value, for a flight that is parked, one that refreshes, and one that wants a later fence.
  [
    [
      claim(1),
      staleValue(5000),
      claim(2),
      claim(5),
      { ...acceptingStale(5, 5000), acceptStaleWhileHeld: 5000 },
    ],
  ],
  [
    [
      claim(1),
      staleValue(5000),
      claim(2),
      { ...acceptingStale(5, 5000), acceptStaleWhileHeld: 5000, refresh: true },
    ],
  ],
  [
    [
      claim(1),
      staleValue(5000),
      claim(2),
      { ...acceptingStale(5, 5000), acceptStaleWhileHeld: 5000, afterFence: 'last' },
    ],
  ],
  [
    [
      claim(1),
      staleValue(5000),
      claim(2),
      wait(50),
      { ...acceptingStale(5, 5000), acceptStaleWhileHeld: 50 },
    ],
  ],
  // A stale value is invalidated; and is replaced while another process renews it.
  [[claim(1), staleValue(5000), { type: 'invalidate', party: 0, key: 0 }, acceptingStale(2, 5000)]],
  [[claim(1), staleValue(5000), claim(2), settle(300)]],
  // During a bypass: a flight that must hold the lease, and one that is parked.
  [[claim(1), unstored, noBypass(2), claim(5), release, claim(5)]],
  // A value ends a bypass, a failure does not; the value before it stays.
  [[claim(1), settle(5000), claim(2, true), unstored, claim(5)]],
  [[claim(1), unstored, noBypass(2), settle(300), wait(299), noBypass(5), claim(1)]],
  [[claim(1), unstored, { type: 'invalidate', party: 0, key: 0 }, { ...claim(2), expectedFence: 'former' }]],
  // A result that was invalidated while its work ran begins no bypass, and is not served as stale.
  [[claim(1), { type: 'invalidate', party: 0, key: 0 }, unstored, claim(2)]],
  [[claim(1), { type: 'invalidate', party: 0, key: 0 }, staleValue(5000), acceptingStale(2, 5000)]],
  // Invalidated while flights that were parked may still read the value; and again when none may.
  [
    [
      claim(1),
      claim(2),
      { ...settle(5000), outcomeRetention: 200 },
      { type: 'invalidate', party: 0, key: 0 },
      claim(2),
      noBypass(5),
      wait(200),
      { type: 'invalidate', party: 0, key: 0 },
    ],
  ],
  [[claim(1), release, { ...claim(2), expectedFence: 'former' }]],
  // releaseIfUnwanted: a flight is parked, and unparks; or its process has gone.
  [[claim(1), claim(2), claim(5), releaseIfUnwanted, unpark(2), unpark(5), releaseIfUnwanted]],
  [[claim(1), claim(3), { type: 'leave' }, releaseIfUnwanted, { type: 'repeat', back: 0 }]],
  [[claim(1), claim(2), unpark(2)]],
  // A holder that asked for a notice, and died: its successor has not asked.
  [[claim(1), claim(2), releaseIfUnwanted, wait(250), claim(2)]],
  // A renewal while a stale value is kept.
  [[claim(1), staleValue(5000), claim(2), { type: 'renew', lease: 250, grant: 0, forged: 'no' }]],
  // The expected fence was invalidated and released.
  [
    [
      claim(1),
      { type: 'invalidate', party: 0, key: 0 },
      releaseIfUnwanted,
      { ...claim(2), expectedFence: 'last' },
    ],
  ],
  // A value with tags.
  [[claim(1), { ...settle(300), tags: '17 s:1:t/x' }]],
  // A parked flight is notified of progress, of an unstored value, and of a result, once.
  [[claim(1), claim(2), { type: 'progress', bytes: Uint8Array.of(1), grant: 0, forged: 'no' }, unstored]],
  [[claim(1), claim(2), settle(300), { type: 'repeat', back: 0 }]],
  // All flights are notified when the lease was expired by its holder.
  [[claim(1), claim(2), claim(5), expireLease]],
  // A flight that only waits parks on a free record, and behind a lease that has expired; each is told the outcome.
  [[claim(9), claim(1), claim(2), settle(300)]],
  [[claim(1), wait(250), claim(9), claim(2), settle(300)]],
  // It may not swallow the message that the record is free, and leaves without passing one on.
  [[claim(1), claim(9), claim(2), release]],
  [[claim(1), claim(9), claim(2), expireLease]],
  [[claim(1), claim(9), claim(2), release, unpark(9)]],
  // The record is kept for it, whatever else ends.
  [[claim(9), claim(1), release, wait(300)]],
  [[claim(9), claim(1), expireLease, wait(300)]],
  [[claim(9), claim(1), { ...release, regrant: 250 }, wait(600)]],
  [[claim(9), claim(1), { type: 'renew', lease: 250, grant: 0, forged: 'no' }, wait(600)]],
  [[claim(9), claim(1), { type: 'invalidate', party: 0, key: 0 }, wait(600)]],
  [[claim(9), { type: 'invalidate', party: 0, key: 0 }]],
  // It reads the outcome that it was not told of, and no earlier one.
  [[claim(1), { ...settle(300), ttl: 0, outcomeRetention: 1500 }, claim(9), claim(1), claim(9)]],
  [[claim(9), claim(1), { ...settle(300), ttl: 0, outcomeRetention: 1500 }, claim(9)]],
  // Another process acts for the owner.
  [[claim(1), settle(300, 0, 'elsewhere')]],
]

/** A planted bug: one passage of a script, and what stands there instead. */
interface Mutant {
  script: keyof LockerScripts
  from: string
  to: string
}

const HELD = 'return owner == token and lastFence == fence and now <= leaseUntil + length'
const NEXT_FENCE = 'math.max(lastFence + 1, us, highestFence + 1)'
const MUTANTS: Record<string, Mutant> = {
  'a claim that is not idempotent': { script: 'claim', from: 'if owner == token then', to: 'if false then' },
  'a fence that only counts': { script: 'claim', from: NEXT_FENCE, to: 'lastFence + 1' },
  'a fence that is the time': { script: 'claim', from: NEXT_FENCE, to: 'us' },
  'a fence that ignores the highest one seen': { script: 'claim', from: ', highestFence + 1)', to: ')' },
  'a flight that stays parked when it is granted': {
    script: 'claim',
    from: 'if isParked then gone',
    to: 'if false then gone',
  },
  'no bound on parked flights': {
    script: 'claim',
    from: '>= maxParked then return',
    to: '>= 1000 then return',
  },
  'a refresh that lets the stale value expire': {
    script: 'claim',
    from: 'keep(key, math.max(freshUntil, staleUntil, readableUntil, errorFreshUntil,',
    to: 'keep(key, math.max(',
  },
  'a takeover by a flight that must not': {
    script: 'claim',
    from: 'if owner and parkedFence > 0 and noTakeover',
    to: 'if false',
  },
  'a count of parked flights that only grows': {
    script: 'claim',
    from: "'n' set[#set + 1] = parkedCount - 1",
    to: "'n' set[#set + 1] = parkedCount",
  },
  'a hit on an expired value': {
    script: 'claim',
    from: '(not refresh and value and valueFence > afterFence and freshUntil > now)',
    to: '(not refresh and value and valueFence > afterFence)',
  },
  'an outcome that is readable only for its ttl': {
    script: 'claim',
    from: 'local awaited = parkedFence > 0',
    to: 'local awaited = false',
  },
  'a refresh that accepts the result of the running grant': {
    script: 'claim',
    from: 'if refresh or invalidatedUpTo >= lastFence then afterFence',
    to: 'if invalidatedUpTo >= lastFence then afterFence',
  },
  'a stale value beyond maxStaleness': {
    script: 'claim',
    from: 'staleFor < maxStaleness',
    to: 'maxStaleness > 0',
  },
  'a stale value that is not kept any more': {
    script: 'claim',
    from: 'and staleUntil > now then',
    to: 'then',
  },
  'a fresh value as a stale one': { script: 'claim', from: 'and staleFor >= 0 and', to: 'and' },
  'a stale value for a refresh': {
    script: 'claim',
    from: 'if value and not refresh and valueFence > afterFence and staleFor',
    to: 'if value and valueFence > afterFence and staleFor',
  },
  'a stale value of a grant up to afterFence': {
    script: 'claim',
    from: 'not refresh and valueFence > afterFence and staleFor',
    to: 'not refresh and staleFor',
  },
  'a stale value for a flight that is parked': {
    script: 'claim',
    from: 'stale and parkedFence == 0 and staleFor < acceptStaleWhileHeld',
    to: 'stale and staleFor < acceptStaleWhileHeld',
  },
  'a stale value beyond acceptStaleWhileHeld': {
    script: 'claim',
    from: 'parkedFence == 0 and staleFor < acceptStaleWhileHeld',
    to: 'parkedFence == 0 and acceptStaleWhileHeld > 0',
  },
  'a claim that forgets staleUntil': {
    script: 'claim',
    from: 'keep(key, math.max(freshUntil, staleUntil,',
    to: 'keep(key, math.max(freshUntil,',
  },
  'a bypass for a flight that must hold the lease': {
    script: 'claim',
    from: 'if bypassUntil > now and not noBypass',
    to: 'if bypassUntil > now',
  },
  'a bypass that unparks the flight that may have been notified': {
    script: 'claim',
    from: 'if bypassUntil > now and not noBypass then',
    to: 'if bypassUntil > now and not noBypass then remove(key, { park })',
  },
  'a grant although expectedFence was invalidated': {
    script: 'claim',
    from: 'or invalidatedUpTo >= expectedFence)',
    to: ')',
  },
  'a grant that ignores expectedFence': {
    script: 'claim',
    from: 'if expectedFence > 0 and (expectedFence ~= lastFence or invalidatedUpTo >= expectedFence)',
    to: 'if false',
  },
  'an unstored value, withheld from flights that were parked for it': {
    script: 'claim',
    from: "if awaited and outcomeKind == 'n'",
    to: 'if false',
  },
  'a successor that is notified as its predecessor asked': {
    script: 'claim',
    from: "local gone = owner and { 'a' } or {}",
    to: 'local gone = {}',
  },
  'a grant to a flight that only waits': { script: 'claim', from: 'if leased or waitOnly', to: 'if leased' },
  'a flight that only waits, as one that claims': {
    script: 'claim',
    from: "(waitOnly and '~' or '@')",
    to: "'@'",
  },
  'a record that is not kept for the flights that only wait': {
    script: 'claim',
    from: 'if waitOnly then',
    to: 'if false then',
  },
  'a flight that only waits, for a grant that has ended': {
    script: 'claim',
    from: 'int(owner and lastFence or lastFence + 1)',
    to: 'int(lastFence)',
  },
  'a claim that forgets the flights that only wait': {
    script: 'claim',
    from: 'bypassUntil, waitsUntil,',
    to: 'bypassUntil,',
  },
  'a renewal that forgets the flights that only wait': {
    script: 'renew',
    from: 'num(waitsUntil), now',
    to: 'now',
  },
  'a release that forgets the flights that only wait': {
    script: 'release',
    from: 'num(bypassUntil), num(waitsUntil))',
    to: 'num(bypassUntil))',
  },
  'a release that a flight that only waits is notified of': {
    script: 'release',
    from: "local claims = string.sub(park, 1, 1) == '@'",
    to: 'local claims = true',
  },
  'a flight that only waits, and passes on a notice that it never had': {
    script: 'unpark',
    from: 'if waits then return 1 end',
    to: '',
  },
  'an invalidation that forgets the flights that only wait': {
    script: 'invalidate',
    from: 'num(waitsUntil), leaseUntil',
    to: 'leaseUntil',
  },
  'an unfenced settlement': { script: 'settle', from: HELD, to: 'return true' },
  'a settlement by the token alone': {
    script: 'settle',
    from: HELD,
    to: 'return owner == token and now <= leaseUntil + length',
  },
  'a settlement by the fence alone': {
    script: 'settle',
    from: HELD,
    to: 'return lastFence == fence and now <= leaseUntil + length',
  },
  'a settlement however late': {
    script: 'settle',
    from: HELD,
    to: 'return owner == token and lastFence == fence',
  },
  'a settlement without grace': {
    script: 'settle',
    from: HELD,
    to: HELD.replace('leaseUntil + length', 'leaseUntil'),
  },
  'a settlement that is not idempotent': {
    script: 'settle',
    from: 'if outcomeFence and num(outcomeFence) == fence then',
    to: 'if false then',
  },
  'flights that stay parked after a settlement': {
    script: 'settle',
    from: 'for i = 1, #parked do gone[#gone + 1] = parked[i] end',
    to: '',
  },
  'an invalidated value that is stored as fresh': {
    script: 'settle',
    from: 'invalidated and 0 or now + ttl',
    to: 'now + ttl',
  },
  'a replaced value that is not broadcast': {
    script: 'settle',
    from: 'if replaced then',
    to: 'if false then',
  },
  'a replaced stale value that is not broadcast': {
    script: 'settle',
    from: 'math.max(freshUntil, staleUntil) > now',
    to: 'freshUntil > now',
  },
  'a message without a limit': { script: 'settle', from: '#bytes <= messageLimit', to: 'true' },
  'a header without staleUntil': {
    script: 'settle',
    from: 'fence, freshUntil, staleUntil)',
    to: 'fence, freshUntil, 0)',
  },
  'a header that does not tell of tags': { script: 'settle', from: "tags ~= '' and 1 or 0", to: '0' },
  'a stale value that was invalidated while its work ran': {
    script: 'settle',
    from: "if kind ~= 'v' or invalidated then keepStale",
    to: "if kind ~= 'v' then keepStale",
  },
  'a settlement that forgets staleUntil': {
    script: 'settle',
    from: 'keep(key, math.max(freshUntil, staleUntil,',
    to: 'keep(key, math.max(freshUntil,',
  },
  'a value without its tags': {
    script: 'settle',
    from: "header .. struct.pack('>I4', #tags) .. tags",
    to: "header .. struct.pack('>I4', 0)",
  },
  'a message without its tags': {
    script: 'settle',
    from: "if keepStale > 0 or tags ~= '' then head",
    to: 'if false then head',
  },
  'a failure without its tags': {
    script: 'settle',
    from: "if kind ~= 'v' and tags ~= '' then",
    to: 'if false then',
  },
  'a bypass that a value does not end': {
    script: 'settle',
    from: "'vs', 'pu', 'w'",
    to: "'vs', 'w'",
  },
  'a bypass that begins with an invalidated result': {
    script: 'settle',
    from: 'bypassUntil = invalidated and 0 or now',
    to: 'bypassUntil = now',
  },
  'an unstored value that replaces the stored one': {
    script: 'settle',
    from: "redis.call('HSET', key, 'e', bytes, 's', int(fence), 'k', 'n'",
    to: "redis.call('HSET', key, 'v', bytes, 'e', bytes, 's', int(fence), 'k', 'n'",
  },
  'an unstored value in a message as a fresh one': {
    script: 'settle',
    from: "if kind == 'n' then ttl = 0 end",
    to: '',
  },
  'progress of no bytes, withheld from a flight that parks beside a stale value': {
    script: 'claim',
    from: 'value, progress }',
    to: "value, progress ~= '' and progress }",
  },
  'a settlement that takes a resource without an outcome for one that fence 0 ended': {
    script: 'settle',
    from: 'if outcomeFence and num(outcomeFence) == fence then',
    to: 'if num(outcomeFence) == fence then',
  },
  'a renewal that ignores its grant': { script: 'renew', from: HELD, to: 'return true' },
  'a renewal that forgets staleUntil': {
    script: 'renew',
    from: 'num(freshUntil), num(staleUntil),',
    to: 'num(freshUntil),',
  },
  'progress that no parked flight receives': {
    script: 'progress',
    from: 'for _, park in ipairs(parked) do',
    to: 'for _, park in ipairs({}) do',
  },
  'a release that notifies no flight': {
    script: 'release',
    from: 'local gone = notifyFree(',
    to: 'local gone = false and notifyFree(',
  },
  'an expired lease of which one flight alone is notified': {
    script: 'release',
    from: "notifyFree(channels, parked, '1')",
    to: "notifyFree(channels, parked, '0')",
  },
  'a lease that is given up instead of expired': {
    script: 'release',
    from: 'if asExpired then',
    to: 'if false then',
  },
  'a notice to a flight whose process has gone': {
    script: 'release',
    from: 'or receivers > 0 then break',
    to: 'or true then break',
  },
  'a flight that unparks, and does not pass its notice on': {
    script: 'unpark',
    from: 'local gone = notifyFree(',
    to: 'if true then return 1 end local gone = notifyFree(',
  },
  'a flight that stays parked after it left': { script: 'unpark', from: 'remove(key, { park })', to: '' },
  'the last flight unparks, and the holder is not notified': {
    script: 'unpark',
    from: 'if notifyUnwanted and #others == 0 then',
    to: 'if false then',
  },
  'a flight unparks, and the holder is notified as if it were the last': {
    script: 'unpark',
    from: 'if notifyUnwanted and #others == 0 then',
    to: 'if notifyUnwanted then',
  },
  'a holder that is notified without having asked': {
    script: 'unpark',
    from: 'if notifyUnwanted and #others == 0 then',
    to: 'if #others == 0 then',
  },
  'an invalidation that is not broadcast': {
    script: 'invalidate',
    from: "local published = redis.pcall('PUBLISH', channel,",
    to: 'local published = tostring(',
  },
  'a stale value after its invalidation': {
    script: 'invalidate',
    from: "{ 'vu', 'eu', 'vs', 'pu', 'v' }",
    to: "{ 'vu', 'eu', 'pu' }",
  },
  'an invalidated value, lost to flights that were parked for it': {
    script: 'invalidate',
    from: 'if value then',
    to: 'if false then',
  },
  'an invalidated value, kept although no flight may read it': {
    script: 'invalidate',
    from: 'if not readable then',
    to: 'if false then',
  },
  'an invalidated value that is found again, empty, when the clock goes back': {
    script: 'invalidate',
    from: "gone[6], gone[7] = 'w', 'vf'",
    to: "gone[6] = 'w'",
  },
  'a bypass that an invalidation does not end': {
    script: 'invalidate',
    from: "{ 'vu', 'eu', 'vs', 'pu', 'v' }",
    to: "{ 'vu', 'eu', 'vs', 'v' }",
  },
  'a release with a flight parked': {
    script: 'releaseIfUnwanted',
    from: 'if #gone < #parked then',
    to: 'if false then',
  },
  'a release only if no flight was ever parked': {
    script: 'releaseIfUnwanted',
    from: "if cluster ~= '1' and receivers == 0",
    to: 'if false',
  },
  'a conditional release without the lease': { script: 'releaseIfUnwanted', from: HELD, to: 'return true' },
  'a conditional release that is not idempotent': {
    script: 'releaseIfUnwanted',
    from: 'if num(outcomeFence) == fence then',
    to: 'if false then',
  },
  'a conditional release that does not ask for a notice': {
    script: 'releaseIfUnwanted',
    from: "'n', #parked - #gone, 'a', '1'",
    to: "'n', #parked - #gone",
  },
}

function mutant({ script, from, to }: Mutant): LockerScripts {
  const scripts = buildScripts(TEST_TIME)
  const { source } = scripts[script]
  const at = source.lastIndexOf(from)
  assert.ok(at >= 0, `the script has changed: ${from}`)
  return { ...scripts, [script]: new Script(source.slice(0, at) + to + source.slice(at + from.length)) }
}

testConformance<LockerScripts, Op>({
  name: 'conformance',
  title: 'S1 S2 S3 S6 conformance - the scripts do what the memory store does',
  clock,
  op,
  createWorlds: (client) => new Worlds(client),
  sound: () => buildScripts(TEST_TIME),
  runs: RUNS,
  rare: RARE,
  regressions: REGRESSIONS,
  mutants: Object.fromEntries(Object.entries(MUTANTS).map(([name, bug]) => [name, () => mutant(bug)])),
  runsPerMutant: 10 * RUNS,
})
