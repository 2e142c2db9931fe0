// Compares the scripts of persisted objects and of places on a real Redis with the store in memory, operation by operation: the
// same replies, the same expiry. Time is an argument of both.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { MemoryBus } from '../../src/bus/store/memory-store.ts'
import { recordBase, reservationKey } from '../../src/bus/store/redis/keys.ts'
import { RedisObjectStore } from '../../src/bus/store/redis/objects/object-store.ts'
import { buildObjectScripts, type ObjectScripts } from '../../src/bus/store/redis/objects/scripts.ts'
import { RedisPlaceStore } from '../../src/bus/store/redis/places/place-store.ts'
import { buildPlaceScripts, type PlaceScripts } from '../../src/bus/store/redis/places/scripts.ts'
import { buildTopicScripts } from '../../src/bus/store/redis/topics/scripts.ts'
import { RedisTopicStore } from '../../src/bus/store/redis/topics/topic-store.ts'
import type { Instance, StoredObject } from '../../src/bus/store/store.ts'
import type { Connection } from '../../src/kernel/redis/connection.ts'
import { systemClock } from '../../src/kernel/time.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { EPOCH, Expiries, mutantsOf, sentTwice, TEST_CLOCK } from './bus.ts'
import { testConformance, WITHIN } from './suite.ts'

const RUNS = Number(process.env['SOLOFLIGHT_RUNS'] ?? 100)
const PREFIX = 'p'
/** The second one cannot stand in a key. */
const NAMES = ['cart', 'näme }\n "\ud800'] as const
const PROPERTIES = ['a', 'e', 'version', ' b\n"c"\0', '\ud800', '\ud801', '__proto__'] as const
const TOKENS = ['one', 'ä b\n'] as const

const nat = (max: number) => fc.nat({ max })
const mostly = <T>(value: T, ...others: T[]) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, fc.constantFrom(...others))
const peer = nat(2)
const name = mostly(0, 0, 1)
const kind = mostly('object' as const, 'topic' as const)
const ttl = fc.constantFrom<number>(1000, 90_000, 400_000)
/** The reservations of a test do not end by the time of the server. */
const reservedFor = fc.constantFrom<number>(60_000, 100_000)
const op = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('save' as const),
      peer,
      name,
      base: mostly<'present' | 'last' | 'none' | 'other'>('present', 'last', 'none', 'other'),
      /** Whether it is the last save once more. */
      again: mostly(false, true),
      properties: fc.uniqueArray(nat(PROPERTIES.length - 1), { maxLength: 4 }),
      bytes: fc.uint8Array({ maxLength: 4 }),
      ttl,
    }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('load' as const), peer, name }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('renew' as const),
      peer,
      ttls: fc.array(ttl, { minLength: 1, maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('topic' as const), peer, name }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('exists' as const), peer, kind, name }) },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('reserve' as const),
      peer,
      kind,
      name,
      token: nat(1),
      ttl: reservedFor,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('release' as const), peer, kind, name, token: nat(1) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('advance' as const),
      ms: fc.constantFrom(1, 999, 5000, 30_000, 60_000),
    }),
  },
  /** Advances to the end of something, just before it, or just after it. */
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('deadline' as const), kind, name, by: mostly(0, -1, 1) }),
  },
)
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never
type Of<Type extends Op['type']> = Extract<Op, { type: Type }>

interface Scripts {
  readonly objects: ObjectScripts
  readonly places: PlaceScripts
}

/** One process. */
interface Peer {
  readonly objects: RedisObjectStore
  readonly places: RedisPlaceStore
  readonly topics: RedisTopicStore
}

const shown = (stored: StoredObject | undefined) =>
  stored && {
    version: stored.version,
    properties: new Map(
      [...stored.properties]
        .map(([name, bytes]): [string, string] => [name, bytes.toString('hex')])
        .sort(([one], [other]) => (one < other ? -1 : 1)),
    ),
  }

/** The store in memory and Redis, and the operations on both. */
class Worlds {
  readonly #client: Redis
  readonly #expiries: Expiries
  readonly #clock = new ManualClock(EPOCH)
  readonly #memory: Instance = new MemoryBus({ clock: this.#clock }).connect()
  #peers: readonly Peer[] = []
  /** By name: the versions that were to be saved. */
  readonly #versions = NAMES.map((): string[] => [])
  /** When the keys of reservations end: the test removes them then. */
  readonly #reservations = new Map<string, number>()

  constructor(client: Redis) {
    this.#client = client
    this.#expiries = new Expiries(client)
  }

  async open(connections: readonly Connection[], { objects, places }: Scripts): Promise<void> {
    this.#peers = connections.map((connection) => ({
      objects: new RedisObjectStore(connection, PREFIX, { scripts: objects }),
      places: new RedisPlaceStore(connection, PREFIX, { scripts: places }),
      topics: new RedisTopicStore(connection, PREFIX, { scripts: buildTopicScripts(TEST_CLOCK) }),
    }))
    await this.#advance(0)
  }

  async #advance(ms: number): Promise<void> {
    this.#clock.advance(ms)
    await this.#client.set('now', String(this.#clock.now()))
    for (const [key, until] of this.#reservations)
      if (until <= this.#clock.now() && this.#reservations.delete(key)) await this.#client.del(key)
  }

  async apply(op: Op): Promise<void> {
    const peer = 'peer' in op ? this.#peers[op.peer] : undefined
    await this.#do(op, peer as Peer)
    await this.#compareExpiries()
  }

  async #do(op: Op, peer: Peer): Promise<void> {
    const { objects, places, topics } = this.#memory
    switch (op.type) {
      case 'save':
        return this.#save(op, peer)
      case 'load': {
        const name = NAMES[op.name] as string
        const stored = await peer.objects.load(name, WITHIN)
        return assert.deepEqual(shown(stored), shown(await objects.load(name, WITHIN)), 'an object')
      }
      case 'renew': {
        const ttls = new Map(op.ttls.map((ttl, index) => [NAMES[index] as string, ttl]))
        const errors = await peer.objects.renew(ttls, WITHIN)
        return assert.deepEqual(errors, await objects.renew(ttls, WITHIN), 'reply to renew')
      }
      case 'topic': {
        const terms = { keep: 0, retain: false, ttl: 1000 }
        for (const store of [topics, peer.topics])
          await store.resume(NAMES[op.name] as string, '', 0, terms, WITHIN)
        return
      }
      case 'exists': {
        const [kind, name] = [op.kind, NAMES[op.name] as string]
        const exists = await peer.places.exists(kind, name, WITHIN)
        return assert.equal(exists, await places.exists(kind, name, WITHIN), 'reply to exists')
      }
      case 'reserve': {
        const [kind, name, token] = [op.kind, NAMES[op.name] as string, TOKENS[op.token] as string]
        const reply = await peer.places.reserve(kind, name, token, op.ttl, WITHIN)
        assert.equal(reply, await places.reserve(kind, name, token, op.ttl, WITHIN), 'reply to reserve')
        const key = reservationKey(PREFIX, kind, name)
        if (reply === 'reserved') this.#reservations.set(key, this.#clock.now() + op.ttl)
        return
      }
      case 'release': {
        const [kind, name, token] = [op.kind, NAMES[op.name] as string, TOKENS[op.token] as string]
        await peer.places.release(kind, name, token, WITHIN)
        return places.release(kind, name, token, WITHIN)
      }
      case 'advance':
        return this.#advance(op.ms)
      case 'deadline': {
        const ms = Number((await this.#endOf(op.kind, op.name)) ?? 0) + op.by - this.#clock.now()
        return ms > 0 ? this.#advance(ms) : undefined
      }
    }
  }

  #keyOf(kind: 'object' | 'topic', name: number): string {
    return recordBase(PREFIX, kind, NAMES[name] as string) + (kind === 'object' ? 'O' : 'T')
  }

  #endOf(kind: 'object' | 'topic', name: number): Promise<string | null> {
    return this.#client.hget(this.#keyOf(kind, name), 'e')
  }

  async #save(op: Of<'save'>, peer: Peer): Promise<void> {
    const name = NAMES[op.name] as string
    const versions = this.#versions[op.name] as string[]
    const present = (await this.#memory.objects.load(name, WITHIN))?.version ?? ''
    const bases = { present, last: versions.at(-1) ?? '', none: '', other: 'other' }
    const last = versions.at(-1)
    const version = op.again && last !== undefined ? last : `version ${versions.length}`
    if (version !== last) versions.push(version)
    const properties = new Map(
      op.properties.map((index) => [PROPERTIES[index] as string, Buffer.from(op.bytes)]),
    )
    const request = { base: bases[op.base], version, properties, ttl: op.ttl }
    const saved = await peer.objects.save(name, request, WITHIN)
    assert.equal(saved, await this.#memory.objects.save(name, request, WITHIN), 'reply to save')
    const stored = await peer.objects.load(name, WITHIN)
    assert.deepEqual(shown(stored), shown(await this.#memory.objects.load(name, WITHIN)), 'an object')
  }

  /** Every key has an expiry, and outlives what it holds. */
  async #compareExpiries(): Promise<void> {
    const expiries = await this.#expiries.read(this.#clock.now())
    for (const name of NAMES.keys()) {
      const key = this.#keyOf('object', name)
      const e = Number(await this.#endOf('object', name))
      if (e > 0) Expiries.check(key, expiries.get(key) ?? 0, e)
    }
    for (const [key, expiresAt] of expiries) {
      if (!key.endsWith('n')) continue
      const until = this.#reservations.get(key)
      assert.ok(until !== undefined && Math.abs(expiresAt - until) < 10_000, `${key} ends at another time`)
    }
  }

  async close(): Promise<void> {
    await this.#memory.close()
    await this.#client.flushall()
  }
}

const save = (more: Partial<Of<'save'>> = {}): Op => ({
  ...{ type: 'save', peer: 0, name: 0, base: 'present', again: false, properties: [0], ttl: 90_000 },
  ...{ bytes: Uint8Array.of(1, 0, 255), ...more },
})
const load: Op = { type: 'load', peer: 1, name: 0 }
const exists: Op = { type: 'exists', peer: 1, kind: 'object', name: 0 }
const renew = (ttl: number): Op => ({ type: 'renew', peer: 1, ttls: [ttl] })
const deadline = (by: Of<'deadline'>['by'] = 0): Op => ({ type: 'deadline', kind: 'object', name: 0, by })
const reserve = (token: number, ttl = 60_000, kind: 'object' | 'topic' = 'object'): Op => ({
  ...{ type: 'reserve', peer: token, kind, name: 0, token, ttl },
})
const release = (token: number): Op => ({ type: 'release', peer: token, kind: 'object', name: 0, token })
const advance = (ms: Of<'advance'>['ms']): Op => ({ type: 'advance', ms })

/** Sequences that random operations rarely contain. They come first. */
const RARE_CASES: [Op[]][] = [
  // Somebody else has saved.
  [
    [
      save(),
      save({ properties: [1, 2, 3] }),
      save({ base: 'other', properties: [4] }),
      save({ base: 'none' }),
      load,
    ],
  ],
  // An object expires: another one has none of its properties.
  [
    [
      save({ properties: [0, 1, 4, 5] }),
      deadline(-1),
      exists,
      load,
      deadline(),
      exists,
      load,
      save({ base: 'last', properties: [2] }),
      save({ base: 'none', properties: [3, 5], bytes: Uint8Array.of(9) }),
      load,
    ],
  ],
  // It was sent twice.
  [
    [
      save(),
      save({ again: true, base: 'none', ttl: 400_000 }),
      deadline(),
      save({ again: true, base: 'none' }),
    ],
  ],
  // The longest ttl holds, and one that has expired is not renewed.
  [
    [
      save({ ttl: 90_000 }),
      renew(1000),
      save({ ttl: 1000 }),
      advance(60_000),
      renew(400_000),
      deadline(-1),
      load,
      deadline(),
      renew(400_000),
      load,
    ],
  ],
  // Reservations.
  [
    [
      reserve(0),
      reserve(1),
      reserve(0, 100_000),
      advance(60_000),
      reserve(1),
      release(1),
      reserve(1),
      release(0),
      release(1),
      reserve(0),
    ],
  ],
  [[reserve(0), save(), reserve(1), deadline(), reserve(1), reserve(0)]],
  [
    [
      { type: 'topic', peer: 0, name: 0 },
      reserve(0, 60_000, 'topic'),
      reserve(0),
      advance(30_000),
      reserve(0, 60_000, 'topic'),
    ],
  ],
]

const sound = (): Scripts => ({
  objects: buildObjectScripts(TEST_CLOCK),
  places: buildPlaceScripts(TEST_CLOCK),
})

/** Planted bugs: a text of the scripts, and what replaces it. */
const OBJECT_MUTANTS: Record<string, [from: string, to: string]> = {
  'a save that overwrites that of another': ['if present ~= base then return 0 end', ''],
  'a save that fails when it is sent twice': ['if present == newVersion then return 1 end', ''],
  'an object that lives too long': ['local isExpired = e <= now', 'local isExpired = e < now'],
  'an object that is loaded too long': ["'e')) > now and", "'e')) >= now and"],
  'properties of the object before': ["string.sub(field, 1, 1) == '\"' and", 'false and'],
  'new properties that are removed': ['and not saved[field] then', 'then'],
  'a ttl that shrinks': ['math.max(isExpired and 0 or e, now + num(ARGV[3]))', 'now + num(ARGV[3])'],
  'the ttl of the object before': ['isExpired and 0 or e, now', 'e + 1, now'],
  'a renewal that shrinks': ['or expiresAt <= e then', 'then'],
  'a renewal of what has expired': ['if e <= now or', 'if e == 0 or'],
  'a renewal that is not written': ["redis.call('HSET', key, 'e', int(expiresAt))", ''],
  'a key without expiry': ["redis.call('PEXPIRE', key", "tostring('PEXPIRE', key"],
  'a key that is renewed without its expiry': ['  extend(key, e, expiresAt)', ''],
}
const PLACE_MUTANTS: Record<string, [from: string, to: string]> = {
  'a record that exists too long': ["'e')) > now end", "'e')) >= now end"],
  'a record that does not hinder': ["if exists() then return 'exists' end", ''],
  'a reservation for two': ["return 'taken'", 'holder = nil'],
  'a reservation that its holder cannot renew': ['if holder and holder ~= ARGV[1]', 'if holder'],
  'a reservation that is not prolonged': [
    "redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])",
    "redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2], 'NX')",
  ],
  'a reservation without expiry': [", 'PX', ARGV[2])", ')'],
  'a release by another': ["if redis.call('GET', KEYS[1]) == ARGV[1] then", 'if true then'],
  'a release that does nothing': ["redis.call('DEL', KEYS[1])", 'tostring(KEYS[1])'],
}

const objectMutants = mutantsOf(() => sound().objects, OBJECT_MUTANTS)
const placeMutants = mutantsOf(() => sound().places, PLACE_MUTANTS)
const mutants = {
  ...mapped(objectMutants, (objects): Scripts => ({ ...sound(), objects: objects() })),
  ...mapped(placeMutants, (places): Scripts => ({ ...sound(), places: places() })),
}

function mapped<From, To>(all: Record<string, From>, change: (from: From) => To): Record<string, () => To> {
  return Object.fromEntries(Object.entries(all).map(([bug, scripts]) => [bug, () => change(scripts)]))
}

testConformance<Scripts, Op>({
  name: 'object conformance',
  title: 'B4 object conformance - the scripts do what the specification says',
  clock: systemClock,
  op,
  createWorlds: (client) => new Worlds(client),
  sound,
  runs: RUNS,
  rare: RARE_CASES,
  mutants,
  runsPerMutant: 10 * RUNS,
})

testConformance<Scripts, Op>({
  name: 'object conformance, twice',
  title: 'B4 object conformance - a script that is sent twice has the effect of one',
  clock: systemClock,
  op,
  createWorlds: (client) => new Worlds(client),
  sound: () => ({ objects: sentTwice(sound().objects), places: sentTwice(sound().places) }),
  runs: RUNS,
  rare: RARE_CASES,
  mutants: {
    ...mapped(
      mutantsOf(() => sound().objects, {
        'a save that fails the second time': ['if present == newVersion then return 1 end', ''],
      }),
      (objects): Scripts => ({ ...sound(), objects: sentTwice(objects()) }),
    ),
    ...mapped(
      mutantsOf(() => sound().places, {
        'a reservation that is taken the second time': ['if holder and holder ~= ARGV[1]', 'if holder'],
      }),
      (places): Scripts => ({ ...sound(), places: sentTwice(places()) }),
    ),
  },
  runsPerMutant: 10 * RUNS,
})
