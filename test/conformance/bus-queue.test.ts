// Compares the scripts of the queues of the bus on a real Redis with the specification, operation by operation: the same
// replies, the same state, the same signals to each address in the same order. Time is an argument of both.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { CLOSED_TTL, type QueueContext, QueueRecord } from '../../src/bus/store/queue-record.ts'
import { reservationKey } from '../../src/bus/store/redis/keys.ts'
import { QueueKeys } from '../../src/bus/store/redis/queues/queue-keys.ts'
import { RedisQueueStore } from '../../src/bus/store/redis/queues/queue-store.ts'
import { type BusQueueScripts, buildBusQueueScripts } from '../../src/bus/store/redis/queues/scripts/index.ts'
import { KEPT, ROLE } from '../../src/bus/store/redis/queues/scripts/prelude.ts'
import type { Outgoing, QueueSignal, Taken } from '../../src/bus/store/store.ts'
import { ID_LENGTH, newId } from '../../src/kernel/keys.ts'
import { type Request, Script } from '../../src/kernel/redis/call.ts'
import type { Connection } from '../../src/kernel/redis/connection.ts'
import { systemClock } from '../../src/kernel/time.ts'
import { senderOf } from '../support/clients.ts'
import { messagesArrived, noticedGone, testConformance, WITHIN, type Worlds } from './suite.ts'

const RUNS = Number(process.env['SOLOFLIGHT_RUNS'] ?? 150)
const EPOCH = 1_700_000_000_000
const PREFIX = 'p'
/** The second one cannot stand in a key. */
const QUEUES = ['mail', 'näme }\n "\ud800'] as const
/** Of messages, and names of metadata. */
const KEYS = ['', 'a', 'b', '3:a', 'ä b\n"c"\0', '\ud800', '\ud801'] as const
const TOKENS = ['', 'mine', 'foreign'] as const
/** Addresses: the first two are in one process, the last one is in a process that may die. */
const PEERS = 5
const LEAVER = 4

const nat = (max: number) => fc.nat({ max })
const mostly = <T>(value: T, ...others: T[]) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, fc.constantFrom(...others))
const queue = mostly(0, 0, 0, 1)
const peer = nat(PEERS - 1)
const ttl = fc.constantFrom(300, 1000, 30_000)
const size = fc.oneof(
  { weight: 12, arbitrary: nat(3) },
  { weight: 1, arbitrary: fc.constantFrom(90_000, 200_000, 300_000) },
)
const message = fc.record({ key: mostly(0, 1, 1, 2, 3, 4, 5, 6), size, isEnd: mostly(false, true) })
/** Which of what it holds a consumer acknowledges, and ids that it does not hold. */
const acks = fc.constantFrom('all', 'none', 'first', 'last', 'twice', 'foreign')
const op = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant('attach' as const),
      queue,
      peer,
      ttl,
      maxsize: fc.constantFrom(0, 0, 1, 3),
      token: mostly(0, 1, 2),
      attachedTo: fc.constantFrom('none', 'present', 'closed'),
      watchesHolder: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('detach' as const), queue, peer }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('renew' as const),
      renewals: fc.array(fc.record({ queue, peer }), { minLength: 1, maxLength: 3 }),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant('push' as const),
      queue,
      peer,
      messages: fc.array(message, { maxLength: 5 }),
      /** How often each message is repeated. */
      times: mostly(1, 1, 1, 30),
      repeated: mostly(false, false, true),
      awaitsRoom: fc.boolean(),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('consume' as const),
      queue,
      peer,
      lease: fc.constantFrom(100, 250, 10_000),
      reliable: fc.boolean(),
      exclusive: mostly(false, true, true),
      last: mostly(0, 0, 2, 1000, Number.POSITIVE_INFINITY),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      type: fc.constant('take' as const),
      queue,
      peer,
      acks,
      have: mostly('right', 'less', 'none'),
      want: fc.constantFrom<number>(1, 1, 2, 5, 200, 0),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('stop' as const),
      queue,
      peer,
      acks,
      unhanded: fc.constantFrom('none', 'last', 'all'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('read' as const),
      queue,
      peer,
      after: fc.constantFrom<number>(0, 0, 1, 3, 100, Number.MAX_SAFE_INTEGER),
      want: fc.constantFrom<number>(0, 1, 3, 200),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('inspect' as const), queue, peer }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('flush' as const), queue, peer }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('remove' as const), queue, peer }) },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('readMetadata' as const),
      queue,
      peer,
      names: fc.option(fc.array(nat(KEYS.length - 1), { minLength: 1, maxLength: 3 }), { nil: undefined }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('writeMetadata' as const),
      queue,
      peer,
      names: fc.array(nat(KEYS.length - 1), { maxLength: 3 }),
      /** Further names. */
      more: mostly(0, 0, 998, 1000),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('advance' as const), ms: fc.integer({ min: -20, max: 250 }) }),
  },
  /** Advances to the end of a lease or of a queue, or just before or after it. */
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('deadline' as const), which: nat(5), by: mostly(0, -1, 1) }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('leave' as const) }) },
)
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never
type Of<Type extends Op['type']> = Extract<Op, { type: Type }>

/** One address: what the specification says that it is told, and what it is told. */
interface Peer {
  store: RedisQueueStore
  connection: Connection
  address: string
  gone: boolean
  number: number
  expected: QueueSignal[]
  received: QueueSignal[]
}

/** The contents of keys, and their expiries. */
const READ_KEYS = new Script(`
local READ = {
  hash = { 'HGETALL' }, zset = { 'ZRANGE', 0, -1, 'WITHSCORES' }, stream = { 'XRANGE', '-', '+' }, string = { 'GET' },
}
local found = {}
for n, key in ipairs(KEYS) do
  local read = READ[redis.call('TYPE', key).ok]
  found[n] = { read and redis.call(read[1], key, unpack(read, 2)) or {}, redis.call('PTTL', key) }
end
return found`)

/** A script that is sent twice, as after a lost connection: the second reply counts. */
class TwiceScript extends Script {
  override with(keys: readonly string[], args: readonly (string | Buffer)[]): Request {
    const once = super.with(keys, args)
    return {
      key: once.key,
      async send(sender) {
        await once.send(sender)
        return once.send(sender)
      },
    }
  }
}

const sorted = (entries: Iterable<readonly [string, unknown]>): Record<string, unknown> =>
  Object.fromEntries([...entries].sort(([one], [other]) => (one < other ? -1 : 1)))

/** A text as Redis has it, one character per byte. */
const latin = (text: string): string => Buffer.from(text).toString('latin1')

/** The state of a queue. */
type State = Record<string, unknown>

/** What Redis should have, by the specification; undefined if there is no queue. */
function stateOf(record: QueueRecord, now: number): State | undefined {
  const { life } = record
  if (!life || life.expiresAt <= now) return undefined
  const marks = new Map<string, string>()
  for (const [key, id] of life.turns) marks.set(`k${latin(JSON.stringify(key))}`, `${id}`)
  for (const { id, key, redelivered } of life.messages.values()) {
    const isTurn = key !== '' && life.turns.get(key) === id
    if (isTurn || redelivered > 0)
      marks.set(`${id}`, redelivered + (isTurn ? ` ${latin(JSON.stringify(key))}` : ''))
  }
  const roles = { consumer: 'c', reader: 'r', producer: 'p' }
  const waiting = [...life.waiting].map(([name, since]): [string, number] => {
    const [role = '', address = ''] = name.split(' ')
    return [roles[role as 'consumer'] + address, since]
  })
  return {
    id: life.id,
    ttl: life.ttl,
    maxsize: life.maxsize,
    expiresAt: life.expiresAt,
    last: life.last,
    cursor: life.cursor,
    fence: life.fence,
    holder: life.holder ?? '',
    messages: [...life.messages.values()].map(({ id, key, kind, bytes }) => [
      id,
      latin((kind === 'end' ? 'e' : 'u') + (key === '' ? '' : JSON.stringify(key))),
      bytes.toString('latin1'),
    ]),
    returned: [...life.returned],
    blocked: sorted([...life.blocked].map(([key, ids]) => [latin(JSON.stringify(key)), [...ids]])),
    held: sorted(
      [...life.consumers]
        .filter(([, { held }]) => held.size > 0)
        .map(([address, { held }]) => [address, [...held]]),
    ),
    marks: sorted(marks),
    attachments: sorted(
      [...life.attachments].map(([address, { watchesHolder, batch }]) => {
        const consumer = life.consumers.get(address)
        const { number, first, count } = batch
        const flags = consumer && `/${consumer.lease} ${+consumer.reliable}${+consumer.exclusive}`
        return [address, `${+watchesHolder} ${number} ${first} ${count}${flags ?? ''}`]
      }),
    ),
    leases: sorted([
      ...[...life.attachments].map(([address, { leaseEndsAt }]) => [`a${address}`, leaseEndsAt] as const),
      ...[...life.consumers].map(([address, { leaseEndsAt }]) => [`c${address}`, leaseEndsAt] as const),
    ]),
    waiting: sorted(waiting),
    metadata: sorted(
      [...life.metadata].map(([name, bytes]) => [latin(JSON.stringify(name)), bytes.toString('latin1')]),
    ),
  }
}

/** Whether a consumer has to repeat its request. */
function isUnfinished(reply: unknown): boolean {
  if (typeof reply !== 'object' || reply === null) return reply === false
  const { kind, messages, isAll } = reply as Partial<Taken>
  return kind === 'taken' && messages?.length === 0 && isAll === false
}

/** Pairs of a reply. */
function pairs(content: unknown): [string, string][] {
  const parts = content as Buffer[]
  return Array.from({ length: parts.length / 2 }, (_, n) => [
    (parts[2 * n] as Buffer).toString('latin1'),
    (parts[2 * n + 1] as Buffer).toString('latin1'),
  ])
}

/** The ids of ranges ` from-to`. */
function idsIn(ranges: string): number[] {
  return [...ranges.matchAll(/(\d+)-(\d+)/g)].flatMap(([, from, to]) =>
    Array.from({ length: Number(to) - Number(from) + 1 }, (_, n) => Number(from) + n),
  )
}

/** What Redis has; undefined if there is no queue. */
function stateIn(contents: readonly unknown[], now: number): State | undefined {
  const [queue, stream, leases, ids, turns, waiting, metadata] = contents
  const fields = new Map(pairs(queue))
  const number = (name: string) => Number(fields.get(name))
  if (!(number('e') > now)) return undefined
  const known = {
    returned: [] as number[],
    blocked: {} as Record<string, number[]>,
  }
  const attachments: [string, string][] = []
  const held: [string, number[]][] = []
  for (const [name, text] of fields) {
    if (name.length === 1) continue
    const [, attachment = '', ranges = ''] = /^(.*?)((?: \d+-\d+)*)$/.exec(text) ?? []
    attachments.push([name.slice(1), attachment])
    if (ranges !== '') held.push([name.slice(1), idsIn(ranges)])
  }
  for (const [member] of pairs(ids)) {
    const [, kind = '', of = '', letter = '', id = ''] = /^([rb])(.*?)([a-p])(\d+)$/s.exec(member) ?? []
    assert.equal(letter.charCodeAt(0) - 96, id.length, `${member} in I`)
    if (kind === 'r') known.returned.push(Number(id))
    else {
      const name = of.slice(of.indexOf(':') + 1)
      assert.equal(Number(of.slice(0, of.indexOf(':'))), name.length, `${member} in I`)
      known.blocked[name] = [...(known.blocked[name] ?? []), Number(id)]
    }
  }
  const ends = pairs(leases).map(([member, score]): [string, number] => [member, Number(score) % ROLE])
  assert.ok(
    ends.every(([, end]) => end >= number('d')),
    'no lease ends before d',
  )
  return {
    id: fields.get('i'),
    ttl: number('t'),
    maxsize: number('m'),
    expiresAt: number('e'),
    last: number('l'),
    cursor: number('c'),
    fence: number('f'),
    holder: fields.get('h'),
    messages: (stream as [Buffer, Buffer[]][]).map(([id, [field, bytes]]) => [
      Number(String(id).replace('-0', '')),
      field?.toString('latin1'),
      bytes?.toString('latin1'),
    ]),
    ...known,
    blocked: sorted(Object.entries(known.blocked)),
    held: sorted(held),
    marks: sorted(pairs(turns)),
    attachments: sorted(attachments),
    leases: sorted(ends),
    waiting: sorted(pairs(waiting).map(([member, score]) => [member, Number(score) % ROLE])),
    metadata: sorted(pairs(metadata)),
  }
}

/** The specification and Redis, and the operations on both. */
class QueueWorlds implements Worlds<BusQueueScripts, Op> {
  readonly #client: Redis
  /** Whether each transition takes place twice, and its second reply counts. */
  readonly #isTwice: boolean
  readonly #records = QUEUES.map(() => new QueueRecord())
  /** The life that each queue had when it was closed. */
  readonly #closed = QUEUES.map(() => '')
  readonly #peers: Peer[] = []
  #time = EPOCH

  constructor(client: Redis, isTwice: boolean) {
    this.#client = client
    this.#isTwice = isTwice
  }

  async open(connections: readonly Connection[], scripts: BusQueueScripts): Promise<void> {
    const [first, second, third, leaver] = connections as [Connection, Connection, Connection, Connection?]
    for (const connection of [first, first, second, third, leaver ?? third]) {
      const store = new RedisQueueStore(connection, PREFIX, { scripts })
      const received: QueueSignal[] = []
      const { address } = store.listen({ onSignal: (signal) => received.push(signal), onUp: () => {} })
      this.#peers.push({ store, connection, address, gone: false, number: 0, expected: [], received })
    }
    for (const name of QUEUES) await this.#client.set(reservationKey(PREFIX, 'queue', name), 'mine')
    await this.#setTime(EPOCH)
  }

  async #setTime(to: number): Promise<void> {
    this.#time = to
    await this.#client.set('now', String(to))
  }

  #context(): QueueContext {
    return {
      now: this.#time,
      send: (address, signal) => {
        const heard = this.#peers.find((peer) => peer.address === address)
        if (heard && !heard.gone) heard.expected.push(signal)
        const inbox = address.slice(0, ID_LENGTH)
        return this.#peers.some(({ connection, gone }) => !gone && connection.inbox.id === inbox)
      },
    }
  }

  /** Applies a transition to the specification. */
  #specify<T>(queue: number, transition: (record: QueueRecord, context: QueueContext) => T): T {
    const record = this.#records[queue] as QueueRecord
    const reply = transition(record, this.#context())
    if (!this.#isTwice) return reply
    // Whom it wakes may differ: it is told once more.
    const { waiting: _, ...state } = stateOf(record, this.#time) ?? {}
    const second = transition(record, this.#context())
    const { waiting: __, ...again } = stateOf(record, this.#time) ?? {}
    // What looked at as many messages as it may, and gave none, goes on.
    if (!isUnfinished(reply)) assert.deepEqual(again, state, 'twice has the effect of once')
    return second
  }

  async apply(op: Op): Promise<void> {
    const peer = this.#peers['peer' in op ? op.peer : 0] as Peer
    if (!peer.gone) await this.#do(op, peer)
    const present = new Set(this.#peers.filter(({ gone }) => !gone).map(({ connection }) => connection))
    await messagesArrived(this.#client, [...present])
    for (const [index, { received, expected, gone }] of this.#peers.entries())
      if (!gone)
        assert.deepEqual(received.splice(0), expected.splice(0), `signals to ${index} after ${op.type}`)
    await this.#compare()
  }

  async #do(op: Op, peer: Peer): Promise<void> {
    const { store, address } = peer
    const name = QUEUES['queue' in op ? op.queue : 0] as string
    switch (op.type) {
      case 'attach':
        return this.#attach(op, peer)
      case 'detach':
        this.#specify(op.queue, (record, context) => record.detach(address, context))
        return store.detach(name, address, WITHIN)
      case 'renew': {
        const renewals = op.renewals.map(({ queue, peer }) => ({
          queue,
          address: this.#peers[peer]?.address as string,
        }))
        const renew = () =>
          renewals.map(({ queue, address }) =>
            (this.#records[queue] as QueueRecord).renew(address, this.#context()),
          )
        const expected = renew()
        if (this.#isTwice) assert.deepEqual(renew(), expected)
        const named = renewals.map(({ queue, address }) => ({ queue: QUEUES[queue] as string, address }))
        return assert.deepEqual(await store.renew(named, WITHIN), expected, 'reply to renew')
      }
      case 'push':
        return this.#push(op, peer)
      case 'consume': {
        const { lease, reliable, exclusive, last } = op
        const request = { address, lease, reliable, exclusive, last }
        // One that goes on to discard does so again.
        const expected = this.#specify(op.queue, (record, context) => record.consume(request, context))
        return assert.deepEqual(await store.consume(name, request, WITHIN), expected, 'reply to consume')
      }
      case 'take': {
        const held = this.#held(op.queue, address)
        const acked = this.#acked(op.acks, held)
        const left = held.filter((id) => !acked.includes(id)).length
        const have = { right: left, less: Math.max(0, left - 1), none: 0 }[op.have] as number
        const request = { address, acked, have, want: op.want }
        const expected = this.#specify(op.queue, (record, context) => record.take(request, context))
        return assert.deepEqual(await store.take(name, request, WITHIN), expected, 'reply to take')
      }
      case 'stop': {
        const held = this.#held(op.queue, address)
        const unhanded = { none: [], last: held.slice(-2), all: held }[op.unhanded] as number[]
        const request = { address, acked: this.#acked(op.acks, held), unhanded }
        this.#specify(op.queue, (record, context) => record.leave(request, context))
        return store.leave(name, request, WITHIN)
      }
      case 'read': {
        const { after, want } = op
        const expected = this.#specify(op.queue, (record, context) =>
          record.read(address, after, want, context),
        )
        const reply = await store.read(name, address, after, want, WITHIN)
        return assert.deepEqual(reply, expected, 'reply to read')
      }
      case 'inspect': {
        const expected = this.#specify(op.queue, (record, context) => record.inspect(context))
        return assert.deepEqual(await store.inspect(name, WITHIN), expected, 'reply to inspect')
      }
      case 'flush': {
        const expected = this.#specify(op.queue, (record, context) => record.flush(context))
        return assert.equal(await store.flush(name, WITHIN), expected, 'reply to flush')
      }
      case 'remove': {
        const life = this.#records[op.queue]?.life?.id ?? ''
        const expected = this.#specify(op.queue, (record, context) => record.remove(address, context))
        if (!this.#records[op.queue]?.life) this.#closed[op.queue] = life
        return assert.equal(await store.remove(name, address, WITHIN), expected, 'reply to remove')
      }
      case 'readMetadata': {
        const names = op.names?.map((index) => KEYS[index] as string)
        const expected = this.#specify(op.queue, (record, context) => record.readMetadata(names, context))
        const found = await store.readMetadata(name, names, WITHIN)
        return assert.deepEqual(sorted(found), sorted(expected), 'reply to readMetadata')
      }
      case 'writeMetadata': {
        const names = [
          ...op.names.map((index) => KEYS[index] as string),
          ...Array.from({ length: op.more }, (_, n) => `${n}`),
        ]
        const entries = new Map(names.map((name, index) => [name, Buffer.from([index])]))
        const expected = this.#specify(op.queue, (record, context) => record.writeMetadata(entries, context))
        return assert.equal(
          await store.writeMetadata(name, entries, WITHIN),
          expected,
          'reply to writeMetadata',
        )
      }
      case 'advance':
        return this.#setTime(this.#time + op.ms)
      case 'deadline': {
        const ends = this.#records.flatMap(({ life }) =>
          life
            ? [
                life.expiresAt,
                ...[...life.attachments.values(), ...life.consumers.values()].map(
                  ({ leaseEndsAt }) => leaseEndsAt,
                ),
              ]
            : [],
        )
        const end = ends[op.which % (ends.length || 1)]
        return end === undefined ? undefined : this.#setTime(end + op.by)
      }
      case 'leave': {
        const leaver = this.#peers[LEAVER] as Peer
        if (leaver.gone) return
        leaver.gone = true
        await leaver.connection.close()
        return noticedGone(this.#client, leaver.connection)
      }
    }
  }

  async #attach(
    { queue, ttl, maxsize, token, attachedTo, watchesHolder }: Of<'attach'>,
    { store, address }: Peer,
  ) {
    const lives = {
      none: '',
      present: this.#records[queue]?.life?.id ?? '',
      closed: this.#closed[queue] as string,
    }
    const request = {
      ...{ address, ttl, maxsize, watchesHolder, life: newId() },
      ...{ token: TOKENS[token] as string, attachedTo: lives[attachedTo as 'none'] },
    }
    const isReserved = request.token !== 'foreign'
    const expected = this.#specify(queue, (record, context) => record.attach(request, isReserved, context))
    const reply = await store.attach(QUEUES[queue] as string, request, WITHIN)
    assert.deepEqual(reply, expected, 'reply to attach')
  }

  async #push({ queue, messages, times, repeated, awaitsRoom }: Of<'push'>, peer: Peer): Promise<void> {
    const { store, address } = peer
    const all: Outgoing[] = []
    for (let n = 0; n < times; n++)
      for (const { key, size, isEnd } of messages)
        all.push({
          key: KEYS[key] as string,
          kind: isEnd ? 'end' : 'user',
          bytes: Buffer.alloc(times > 1 ? 1 : size, all.length),
        })
    const number = repeated ? peer.number : ++peer.number
    const request = { address, number, messages: all, awaitsRoom }
    const expected = this.#specify(queue, (record, context) => record.push(request, context))
    assert.deepEqual(await store.push(QUEUES[queue] as string, request, WITHIN), expected, 'reply to push')
  }

  #held(queue: number, address: string): number[] {
    return [...(this.#records[queue]?.life?.consumers.get(address)?.held ?? [])]
  }

  #acked(acks: Of<'take'>['acks'], held: readonly number[]): number[] {
    switch (acks) {
      case 'all':
        return [...held]
      case 'first':
        return held.slice(0, 1)
      case 'last':
        return held.slice(-2)
      case 'twice':
        return [...held.slice(0, 2), ...held.slice(0, 2)]
      case 'foreign':
        // Nobody acknowledges what the same request gives.
        return [...held.slice(0, 1), ...(this.#isTwice ? [] : [1, 2, 3, 10 ** 21])]
      default:
        return []
    }
  }

  async #compare(): Promise<void> {
    for (const [index, record] of this.#records.entries()) {
      const { all } = new QueueKeys(PREFIX, QUEUES[index] as string)
      const found = (await READ_KEYS.with(all, []).send(senderOf(this.#client))) as [unknown, number][]
      const contents = found.map(([content]) => content)
      assert.deepEqual(stateIn(contents, this.#time), stateOf(record, this.#time), 'state')
      for (const [at, [, expiry]] of found.entries()) {
        if (expiry === -2) continue
        // The clock may have been set back by 20 ms each time.
        const most = at === all.length - 1 ? CLOSED_TTL : KEPT + 31_000
        assert.ok(expiry > KEPT / 2 && expiry <= most, `${all[at]} expires in ${expiry} ms`)
      }
    }
  }

  close(): Promise<unknown> {
    return this.#client.flushall()
  }
}

const TEST_CLOCK = `local now = tonumber(redis.call('GET', 'now'))`

/** Replaces some scripts. */
function changed(scripts: BusQueueScripts, change: (script: Script) => Script): BusQueueScripts {
  const all = { ...scripts }
  for (const name of Object.keys(all) as (keyof BusQueueScripts)[]) all[name] = change(all[name])
  return all
}

const sound = () => buildBusQueueScripts(TEST_CLOCK)
const soundTwice = () => changed(sound(), ({ source }) => new TwiceScript(source))

/** The scripts with a planted bug: a text of them, and what replaces it. */
function mutant(from: string, to: string): () => BusQueueScripts {
  return () => {
    let found = false
    const scripts = changed(sound(), ({ source }) => {
      found ||= source.includes(from)
      return new Script(source.replaceAll(from, to))
    })
    assert.ok(found, `the scripts have changed: ${from}`)
    return scripts
  }
}

const attach = (peer: number, options: Partial<Of<'attach'>> = {}): Op => ({
  ...{
    type: 'attach',
    queue: 0,
    peer,
    ttl: 30_000,
    maxsize: 0,
    token: 0,
    attachedTo: 'none',
    watchesHolder: true,
  },
  ...options,
})
const consume = (peer: number, options: Partial<Of<'consume'>> = {}): Op => ({
  ...{ type: 'consume', queue: 0, peer, lease: 10_000, reliable: true, exclusive: false, last: 0 },
  ...options,
})
const push = (
  peer: number,
  count: number,
  options: Partial<Of<'push'>> & { key?: number; size?: number } = {},
): Op => {
  const { key = 0, size = 1, ...rest } = options
  const messages = Array.from({ length: count }, () => ({ key, size, isEnd: false }))
  return {
    ...{ type: 'push', queue: 0, peer, messages, times: 1, repeated: false, awaitsRoom: true },
    ...rest,
  }
}
const take = (peer: number, want: number, options: Partial<Of<'take'>> = {}): Op => ({
  ...{ type: 'take', queue: 0, peer, acks: 'all', have: 'right', want },
  ...options,
})
const stop = (peer: number, options: Partial<Of<'stop'>> = {}): Op => ({
  ...{ type: 'stop', queue: 0, peer, acks: 'none', unhanded: 'none' },
  ...options,
})
const read = (peer: number, after: number, want: number): Op => ({
  type: 'read',
  queue: 0,
  peer,
  after,
  want,
})
const on = (type: 'inspect' | 'flush' | 'remove' | 'detach', peer: number): Op => ({ type, queue: 0, peer })
const renew = (...peers: number[]): Op => ({
  type: 'renew',
  renewals: peers.map((peer) => ({ queue: 0, peer })),
})
const advance = (ms: number): Op => ({ type: 'advance', ms })
const two = [attach(0), attach(2)]

/** Sequences that random operations rarely contain. */
const RARE: [Op[]][] = [
  // Takes in order: first what was returned. One message was never handed over.
  [
    [
      ...two,
      consume(0),
      consume(2),
      push(0, 5),
      take(0, 3),
      stop(0, { unhanded: 'last' }),
      take(2, 2),
      take(2, 9),
    ],
  ],
  // Acknowledges some, and asks again for what it has lost.
  [
    [
      ...two,
      consume(0),
      push(0, 5),
      take(0, 4),
      take(0, 1, { acks: 'first', have: 'none' }),
      take(0, 9, { acks: 'twice' }),
    ],
  ],
  [
    [
      ...two,
      consume(0),
      consume(2),
      push(0, 4),
      take(0, 2),
      take(2, 2),
      take(0, 1, { acks: 'foreign' }),
      on('inspect', 0),
    ],
  ],
  // One at a time of a key; the next ones wait again in order.
  [
    [
      ...[
        ...two,
        consume(0),
        consume(2),
        push(0, 4, { key: 1 }),
        push(2, 2, { key: 3 }),
        push(2, 1, { key: 2 }),
      ],
      ...[
        take(0, 1),
        take(2, 9),
        take(2, 9),
        take(0, 9),
        take(0, 9, { acks: 'first' }),
        stop(2),
        take(0, 9),
        take(0, 9),
      ],
    ],
  ],
  // A message that is returned to a key whose turn is at another.
  [
    [
      ...[
        ...two,
        consume(0, { reliable: false }),
        consume(2),
        push(0, 4, { key: 1 }),
        take(0, 1),
        take(2, 1),
        take(2, 3),
      ],
      ...[stop(0), take(2, 9, { acks: 'none' }), take(2, 9), take(2, 9), take(2, 9)],
    ],
  ],
  // Many are blocked: one script looks at so many, and no more.
  [
    [
      ...[...two, consume(0), consume(2), push(0, 5, { key: 1, times: 300 }), take(0, 1), push(0, 1)],
      ...[take(2, 1), take(2, 1), take(0, 1), take(0, 200), take(0, 200)],
    ],
  ],
  // Discards up to an id, step by step.
  [
    [
      ...two,
      push(0, 5, { times: 300 }),
      consume(0, { last: 1400 }),
      consume(0, { last: 1400 }),
      take(0, 200),
    ],
  ],
  [
    [
      ...two,
      push(0, 5, { times: 200 }),
      consume(0, { last: Number.POSITIVE_INFINITY }),
      consume(0, { last: 2 }),
    ],
  ],
  [
    [
      ...[
        ...two,
        consume(0),
        consume(2),
        push(0, 6, { key: 1 }),
        take(0, 1),
        take(2, 9),
        stop(0),
        push(0, 3),
      ],
      consume(0, { last: 7 }),
      take(0, 9),
    ],
  ],
  // Large messages.
  [
    [
      ...two,
      consume(0),
      push(0, 5, { size: 90_000 }),
      read(2, 0, 200),
      take(0, 200),
      take(0, 200, { acks: 'none', have: 'none' }),
    ],
  ],
  [
    [
      ...two,
      consume(0),
      push(0, 2, { size: 300_000 }),
      read(2, 0, 1),
      read(2, 1, 1),
      take(0, 9),
      take(0, 9),
      take(0, 9),
    ],
  ],
  [
    [
      ...two,
      push(0, 5, { times: 30 }),
      read(2, 0, 200),
      read(2, 100, 200),
      read(2, 149, 1),
      read(2, 150, 1),
      push(0, 1),
    ],
  ],
  // A queue that is full.
  [
    [
      ...[
        attach(0, { maxsize: 3 }),
        attach(2),
        push(0, 5),
        push(2, 1),
        on('inspect', 0),
        consume(2),
        take(2, 1),
        push(0, 2),
      ],
      ...[push(0, 2), on('flush', 0), push(0, 4), push(0, 9, { repeated: true }), push(2, 0)],
    ],
  ],
  // One exclusive consumer after the other.
  [
    [
      ...[
        ...two,
        attach(1),
        consume(0, { exclusive: true, lease: 100 }),
        consume(2, { exclusive: true }),
        take(2, 1),
        take(0, 1),
      ],
      ...[
        push(0, 3),
        take(0, 1),
        take(2, 2),
        on('inspect', 0),
        stop(2),
        take(0, 1),
        advance(100),
        take(2, 1),
        take(2, 3),
      ],
    ],
  ],
  // Leases end: what was held is returned, or dropped.
  [
    [
      ...[
        ...two,
        consume(0, { lease: 100 }),
        consume(2),
        push(0, 3),
        take(0, 2),
        take(2, 2),
        take(2, 2),
        advance(99),
      ],
      ...[on('inspect', 2), advance(1), take(2, 9), take(0, 1), renew(0, 2)],
    ],
  ],
  [
    [
      ...[
        ...two,
        consume(0, { lease: 100, reliable: false }),
        consume(2),
        push(0, 3, { key: 1 }),
        take(0, 1),
        take(2, 1),
      ],
      ...[advance(100), take(2, 1), take(2, 1), on('inspect', 0)],
    ],
  ],
  // Attached again, with another interest: the last batch is still known.
  [[...two, push(0, 2), attach(0, { watchesHolder: false }), push(0, 9, { repeated: true })]],
  // One lease ends 1 ms after another.
  [
    [
      ...[...two, consume(0, { lease: 100 }), advance(1), consume(2, { lease: 100 }), advance(99)],
      on('inspect', 0),
    ],
  ],
  // Attachments end before their queue does.
  [
    [
      ...[
        attach(0, { ttl: 300 }),
        attach(2),
        attach(3),
        consume(0),
        push(0, 1),
        take(0, 1),
        advance(299),
        renew(2),
      ],
      ...[
        consume(2),
        take(2, 1),
        read(3, 5, 1),
        advance(1),
        push(2, 1),
        take(2, 9),
        push(0, 1),
        renew(0),
        advance(300),
        renew(2),
      ],
    ],
  ],
  // Nobody listens to those who wait first.
  [
    [
      ...[
        attach(4),
        attach(0),
        attach(2),
        consume(4),
        consume(0),
        consume(2),
        take(4, 1),
        advance(1),
        take(0, 1),
        advance(1),
      ],
      ...[
        take(2, 1),
        { type: 'leave' as const },
        push(0, 1),
        take(0, 1),
        push(0, 2),
        push(0, 1),
        renew(0),
        renew(2),
      ],
    ],
  ],
  // The leases of two consumers end one ms apart.
  [
    [
      ...two,
      push(0, 2),
      consume(0, { lease: 100 }),
      take(0, 1),
      advance(1),
      consume(2, { lease: 100 }),
      take(2, 1),
      advance(99),
      on('inspect', 0),
    ],
  ],
  // Closed twice by the one who has closed it, and by another one.
  [
    [
      ...two,
      push(0, 2),
      on('remove', 0),
      on('remove', 0),
      on('remove', 2),
      advance(600_000),
      on('remove', 0),
    ],
  ],
  // Closed, and made again.
  [
    [
      ...[
        ...two,
        push(0, 2),
        on('remove', 0),
        attach(2, { attachedTo: 'closed' }),
        push(2, 1),
        attach(2),
        on('remove', 0),
      ],
      ...[push(2, 1), attach(0, { attachedTo: 'closed' }), attach(0), attach(0, { attachedTo: 'present' })],
    ],
  ],
  [
    [
      attach(0, { ttl: 300 }),
      push(0, 2),
      advance(300),
      attach(2, { token: 2 }),
      attach(2, { token: 1 }),
      push(2, 1),
      read(2, 0, 9),
    ],
  ],
  [
    [
      attach(0, { ttl: 300 }),
      on('detach', 0),
      attach(0),
      consume(0),
      push(0, 2),
      take(0, 1),
      on('detach', 0),
      advance(299),
      on('inspect', 0),
    ],
  ],
  // More than one script removes.
  [
    [
      attach(0, { ttl: 1000 }),
      { type: 'writeMetadata', queue: 0, peer: 0, names: [5, 6], more: 998 },
      { type: 'writeMetadata', queue: 0, peer: 0, names: [1], more: 0 },
    ],
  ],
  [
    [
      attach(0),
      consume(0),
      push(0, 5),
      take(0, 5),
      on('flush', 0),
      stop(0),
      push(0, 1),
      consume(0),
      take(0, 5),
    ],
  ],
]

const shared = { clock: systemClock, op, rare: RARE, runs: RUNS, runsPerMutant: 10 * RUNS }

testConformance({
  ...shared,
  name: 'bus queue conformance',
  title: 'bus queue conformance - the scripts do what the specification says',
  createWorlds: (client) => new QueueWorlds(client, false),
  sound,
  mutants: {
    'a message that is pushed twice': mutant('if num(number) <= num(known) then', 'if false then'),
    'room that is not there': mutant('local accepted = maxsize > 0 and', 'local accepted = false and'),
    'a producer who is not told of room': mutant("wakeAll(2, 'r')", ''),
    'a producer who does not wait': mutant("wait(2, 'p' .. address)", ''),
    'a reader who is not told': mutant('wakeReaders()\n', '\n'),
    'a consumer who is told in vain': mutant(
      "if send(address, 'm') then count = count - 1 end",
      'count = count - 1',
    ),
    'consumers who are told together': mutant(
      "if send(address, 'm') then count = count - 1 end",
      "send(address, 'm')",
    ),
    'a consumer who is told though another is exclusive': mutant(
      "if holder ~= '' then\n    if count",
      'if false then\n    if count',
    ),
    'a stream without expiry': mutant('keep(streamKey)\n  end\nend\nlocal reply', 'end\nend\nlocal reply'),
    'blocked messages without expiry': mutant('keep(idsKey)', ''),
    'turns without expiry': mutant('keep(turnsKey)', ''),
    'waiting without expiry': mutant('keep(waitingKey)', ''),
    'ids that are no numbers': mutant('string.char(96 + #id) .. id', "'a' .. id"),
    'another message of a key': mutant('if turn and turn ~= id then', 'if false then'),
    'a turn that nobody has': mutant('if isReliable then\n        turns', 'if false then\n        turns'),
    'a turn that ends with the first message': mutant(
      'if key then\n          local prefix',
      'if false then\n          local prefix',
    ),
    'a count that is lost with the turn': mutant("redis.call('HGET', turnsKey, id) or '0'", "'0'"),
    'messages that were not handed over and count': mutant('if not unhanded[id] then', 'if true then'),
    'a lease that is never over': mutant("'-inf', int(now), 'LIMIT'", "'-inf', int(now - 1), 'LIMIT'"),
    'a consumer whose lease is over too early': mutant(
      'local to = int(4398046511104 + now)',
      'local to = int(4398046511104 + now + 1)',
    ),
    'a lease that is overlooked': mutant('if leaseEnd >= due then return end', 'if true then return end'),
    'what is dropped and returned': mutant("string.find(text, '/%d+ 1')", "string.find(text, '/%d+ ')"),
    'a holder that remains': mutant("    redis.call('HSET', queueKey, 'h', '')\n", ''),
    'a fence that stays': mutant("'f')) + 1))", "'f')) + 0))"),
    'a consumer that is not told of the next holder': mutant(
      'announceHolder()\n  end\n  wake',
      'end\n  wake',
    ),
    'a message that is skipped': mutant('cursor = num(id) + 1 end', 'cursor = num(id) + 2 end'),
    'a batch that is too large': mutant(`count > 0 and size > ${256 * 1024}`, 'false'),
    'more than one script should look at': mutant('scanned == 1000 or', ''),
    'messages that are not given again': mutant('if count > have then', 'if false then'),
    'a reader that is told too early that it has all': mutant(
      'if #messages < count then isAll',
      'if #messages <= count then isAll',
    ),
    'a reader that waits at a place that was lost': mutant('after = math.min(after, last)\n', ''),
    'what is closed and forgotten': mutant("return 'C' end", 'end'),
    'a queue that is not reserved': mutant("~= token then return 'U' end", "== 'x' then return 'U' end"),
    'what remains of an expired queue': mutant(
      "redis.call('UNLINK', queueKey, streamKey",
      "redis.call('UNLINK', queueKey",
    ),
    'an attachment that forgets its batch': mutant("string.sub(attachment or '0 0 0 0', 2)", "' 0 0 0'"),
    'discarding that goes too far': mutant(
      'math.min(last, upTo) - cursor + 1',
      'math.min(last, upTo + 1) - cursor + 1',
    ),
    'discarding that forgets what was returned': mutant(
      'if num(id) > upTo then return 1 end',
      'if true then return 1 end',
    ),
  },
})

testConformance({
  ...shared,
  name: 'bus queue conformance, twice',
  title: 'bus queue conformance - a script that is sent twice has the effect of one',
  createWorlds: (client) => new QueueWorlds(client, true),
  sound: soundTwice,
  mutants: {
    'a batch that is pushed twice': () =>
      changed(
        mutant('if num(number) <= num(known) then', 'if false then')(),
        ({ source }) => new TwiceScript(source),
      ),
  },
})
