// Compares the scripts of services on a real Redis with the specification, operation by operation: the same replies, the same
// state, the same messages to the same processes, the same announcements. Time is an argument of both.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { FORMAT, ID_LENGTH, newId } from '../../src/kernel/keys.ts'
import { type Request, Script } from '../../src/kernel/redis/call.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import { RedisServicesStore } from '../../src/services/store/redis/redis-store.ts'
import { buildServicesScripts, type ServicesScripts } from '../../src/services/store/redis/scripts/index.ts'
import { ServiceKeys } from '../../src/services/store/redis/service-calls.ts'
import {
  loadOf,
  type RecordContext,
  ServiceRecord,
  scoreOf,
} from '../../src/services/store/service-record.ts'
import type {
  Announcement,
  Dispatch,
  DispatchReply,
  Load,
  Message,
  Registration,
} from '../../src/services/store/store.ts'
import { senderOf } from '../support/clients.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const RUNS = Number(process.env['SOLOFLIGHT_RUNS'] ?? 300)
const WITHIN = 10_000
const EPOCH = 1_700_000_000_000
const PREFIX = 'p'
/** The second one cannot stand in a key. */
const SERVICES = ['add', 'näme }\n "\ud800'] as const
const SETTINGS = ['a', ' b\n"c"\0', '\ud800', '\ud801'] as const
/** Calls that one script deals at most. */
const BATCH = 25
const HOUR = 60 * 60_000

/** Peers that stay, those that share the connection of the first, and those that leave. */
const PEERS = 4
const LEAVERS = [2, 3]

const nat = (max: number) => fc.nat({ max })
const mostly = <T>(value: T, ...others: T[]) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, fc.constantFrom(...others))
const service = mostly(0, 0, 1)
const peer = nat(PEERS - 1)
const bytes = fc.uint8Array({ maxLength: 4 })
const message = fc.record({
  kind: fc.constantFrom('c', 'x'),
  fields: fc.array(fc.constantFrom('a', '17', 'ä', '!'), { maxLength: 2 }),
  bytes,
})
/** How much of what was dealt was received and is over, or more than was dealt. */
const load = fc.record({ unreceived: fc.integer({ min: -2, max: 3 }), running: nat(3) })
const anyCall = fc.record({
  preferred: mostly(-1, ...Array.from({ length: PEERS }, (_, index) => index)),
  avoided: fc.oneof(
    { weight: 3, arbitrary: fc.array(peer, { maxLength: 0 }) },
    fc.array(peer, { maxLength: 3 }),
  ),
  message,
})
const registration = fc.record({
  limit: fc.constantFrom(Number.POSITIVE_INFINITY, 0, 1, 1, 2, 3, 40),
  lease: fc.constantFrom(100, 300, 5000),
  info: fc.constantFrom('{"host":"a"}', '', 'no "JSON"\n\\ \0 ä'),
  load,
})
const reply = fc.record({ to: mostly(0, 1, 2, 3, 4, 5), message })
const op = fc.oneof(
  {
    weight: 7,
    arbitrary: fc.record({ type: fc.constant('register' as const), peer, service, registration }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('registerAll' as const),
      peer,
      registrations: fc.tuple(registration, registration),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('unregister' as const), peer, service, message }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('mark' as const), peer, service, message }) },
  {
    weight: 6,
    arbitrary: fc.record({ type: fc.constant('dispatch' as const), peer, service, call: anyCall }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('dispatchBatch' as const),
      peer,
      service,
      calls: fc.oneof(
        { weight: 5, arbitrary: fc.array(anyCall, { minLength: 2, maxLength: 6 }) },
        fc.array(anyCall, { minLength: 24, maxLength: 30 }),
      ),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('dispatchAll' as const), peer, service, message }) },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('report' as const),
      peer,
      service,
      /** Of one turn. */
      reports: fc.array(fc.record({ load, replies: fc.array(reply, { maxLength: 3 }) }), {
        minLength: 1,
        maxLength: 3,
      }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('check' as const), peer, service, process: nat(5) }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('prune' as const), peer, service, message }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('send' as const), peer, to: nat(5), message }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('resumed' as const), peer }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('setting' as const),
      peer,
      service,
      name: nat(SETTINGS.length - 1),
      bytes: fc.option(bytes, { nil: undefined }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('advance' as const), ms: fc.integer({ min: -20, max: 250 }) }),
  },
  /** Advances to the end of a lease, just before it, or just after it. */
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('deadline' as const), which: nat(5), by: mostly(0, -1, 1) }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('leave' as const), which: nat(1) }) },
)
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never
type Of<Type extends Op['type']> = Extract<Op, { type: Type }>
type CallOp = Of<'dispatch'>['call']
type LoadOp = Of<'report'>['reports'][number]['load']
type MessageOp = Of<'mark'>['message']

const shownMessage = ({ kind, fields, body }: Message): string =>
  // Inboxes read headers as Latin-1.
  `${kind} ${fields.map((field) => Buffer.from(field).toString('latin1')).join(' ')} ${body.toString('hex')}`
const messageOf = ({ kind, fields, bytes }: MessageOp): Message => ({
  kind,
  fields,
  body: Buffer.from(bytes),
})

/** One process: what the specification says that it receives, and what arrives. */
interface Peer {
  store: RedisServicesStore
  connection: Connection
  gone: boolean
  expected: { messages: string[]; announcements: Announcement[] }
  received: { messages: string[]; announcements: Announcement[] }
}

/** Reads the contents and expiries of keys. */
const READ_KEYS = new Script(`
local READ = { hash = { 'HGETALL' }, zset = { 'ZRANGE', 0, -1, 'WITHSCORES' } }
local found = {}
for n, key in ipairs(KEYS) do
  local read = READ[redis.call('TYPE', key).ok]
  found[n] = read and redis.call(read[1], key, unpack(read, 2)) or {}
end
return found`)

/** The expiries of all keys but the time. */
const READ_EXPIRIES = new Script(`
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if key ~= 'now' then
    found[#found + 1] = key
    found[#found + 1] = redis.call('PTTL', key)
  end
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

/** The specification and Redis, and the operations on both. */
class Worlds {
  readonly #client: Redis
  readonly #records = new Map(SERVICES.map((name) => [name as string, new ServiceRecord(name)]))
  readonly #peers: Peer[] = []
  #time = EPOCH
  /** An inbox that nobody ever had, and one of a process that does not exist any more in a process that does. */
  readonly #strangers: string[] = []

  constructor(client: Redis) {
    this.#client = client
  }

  async open(connections: readonly Connection[], scripts: ServicesScripts): Promise<void> {
    for (const connection of connections) {
      const store = new RedisServicesStore(connection, PREFIX, { scripts })
      const received: Peer['received'] = { messages: [], announcements: [] }
      store.open({
        onMessage: (message) => {
          const fields = message.fields.map((field) => Buffer.from(field, 'latin1').toString())
          received.messages.push(shownMessage({ ...message, fields }))
        },
        onAnnouncement: (announcement) => received.announcements.push(announcement),
        onUp: () => {},
      })
      const expected = { messages: [], announcements: [] }
      this.#peers.push({ store, connection, gone: false, expected, received })
    }
    const [first] = this.#peers
    assert.ok(first)
    this.#strangers.push(newId() + newId(), first.connection.inbox.id + newId())
    await this.#setTime(EPOCH)
  }

  #peer(index: number): Peer {
    return this.#peers[index % this.#peers.length] as Peer
  }

  #address(index: number): string {
    return this.#peers[index]?.store.address ?? (this.#strangers[index % 2] as string)
  }

  async #setTime(to: number): Promise<void> {
    this.#time = to
    await this.#client.set('now', String(to))
  }

  #context(): RecordContext {
    return {
      now: this.#time,
      send: (to, messages) => this.#send(to, messages),
      announce: (announcement) => this.#announce(announcement),
    }
  }

  #send(to: string, messages: readonly Message[]): boolean {
    const heard = this.#peers.find(({ store }) => store.address === to)
    if (heard && !heard.gone) heard.expected.messages.push(...messages.map(shownMessage))
    return this.#peers.some(({ connection, gone }) => !gone && connection.inbox.id === to.slice(0, ID_LENGTH))
  }

  #announce(announcement: Announcement): void {
    for (const { expected, gone } of this.#peers) if (!gone) expected.announcements.push(announcement)
  }

  #record(service: number): ServiceRecord {
    return this.#records.get(SERVICES[service] as string) as ServiceRecord
  }

  async apply(op: Op): Promise<void> {
    const acting = 'peer' in op ? this.#peer(op.peer) : undefined
    if (!acting?.gone) await this.#do(op, acting as Peer)
    await this.#drain()
    for (const { received, expected } of this.#peers) {
      assert.deepEqual(received.messages.splice(0), expected.messages.splice(0), 'messages')
      assert.deepEqual(received.announcements.splice(0), expected.announcements.splice(0), 'announcements')
    }
    await this.#compare()
  }

  async #do(op: Op, peer: Peer): Promise<void> {
    switch (op.type) {
      case 'register':
        return this.#register(peer, [[op.service, op.registration]])
      case 'registerAll':
        return this.#register(peer, [...op.registrations.entries()])
      case 'unregister': {
        const message = messageOf(op.message)
        this.#record(op.service).unregister(peer.store.address, message, this.#context())
        return peer.store.unregister(SERVICES[op.service] as string, message, WITHIN)
      }
      case 'mark': {
        const message = messageOf(op.message)
        this.#record(op.service).mark(peer.store.address, message, this.#context())
        return peer.store.mark(SERVICES[op.service] as string, message, WITHIN)
      }
      case 'dispatch':
        return this.#dispatch(peer, op.service, [op.call])
      case 'dispatchBatch':
        return this.#dispatch(peer, op.service, op.calls)
      case 'dispatchAll': {
        const message = messageOf(op.message)
        const expected = this.#record(op.service).dispatchAll(message, this.#context())
        const dealt = await peer.store.dispatchAll(SERVICES[op.service] as string, message, WITHIN)
        assert.deepEqual(
          dealt,
          expected.map((each) => ({ kind: 'dealt', ...each })),
          'reply to dispatchAll',
        )
        return
      }
      case 'report':
        return this.#report(peer, op)
      case 'check': {
        const process = this.#address(op.process)
        const expected = this.#record(op.service).check(process, this.#context())
        const health = await peer.store.check(SERVICES[op.service] as string, process, WITHIN)
        return assert.equal(health, expected, 'reply to check')
      }
      case 'prune': {
        const message = messageOf(op.message)
        const expected = this.#record(op.service).prune(message, this.#context())
        const struck = await peer.store.prune(SERVICES[op.service] as string, message, WITHIN)
        return assert.deepEqual(struck, expected, 'reply to prune')
      }
      case 'send': {
        const to = this.#address(op.to)
        const message = messageOf(op.message)
        const expected = this.#send(to, [message])
        return assert.equal(await peer.store.send(to, message, WITHIN), expected, 'reply to send')
      }
      case 'resumed': {
        const announcement = { kind: 'resumed', process: peer.store.address } as const
        this.#announce(announcement)
        return peer.store.announce(announcement, WITHIN)
      }
      case 'setting':
        return this.#setting(peer, op)
      case 'advance':
        return this.#setTime(this.#time + op.ms)
      case 'deadline': {
        const ends = [...this.#records.values()].flatMap(({ processes }) =>
          [...processes.values()].map(({ leaseEndsAt }) => leaseEndsAt),
        )
        const end = ends[op.which % (ends.length || 1)]
        return end === undefined ? undefined : this.#setTime(end + op.by)
      }
      case 'leave':
        return this.#leave(LEAVERS[op.which] as number)
    }
  }

  /** What a process reports. */
  #loadOf({ store }: Peer, service: number, { unreceived, running }: LoadOp): Load {
    const { dealt = 0 } = this.#record(service).processes.get(store.address) ?? {}
    const received = Math.max(0, dealt - unreceived)
    return { received, finished: Math.max(0, received - running) }
  }

  async #register(
    peer: Peer,
    registrations: [service: number, registration: Of<'register'>['registration']][],
  ): Promise<void> {
    const all: Registration[] = []
    const context = this.#context()
    for (const [service, { load, ...registration }] of registrations) {
      const full = { ...registration, load: this.#loadOf(peer, service, load) }
      all.push({ ...full, service: SERVICES[service] as string })
      this.#record(service).register(peer.store.address, full, context)
    }
    const errors = await peer.store.register(all, WITHIN)
    assert.deepEqual(
      errors,
      all.map(() => undefined),
    )
  }

  async #dispatch(peer: Peer, service: number, calls: CallOp[]): Promise<void> {
    const dispatches: Dispatch[] = calls.map(({ preferred, avoided, message }) => ({
      service: SERVICES[service] as string,
      preferred: preferred === -1 ? '' : this.#address(preferred),
      avoided: avoided.map((index) => this.#address(index)),
      message: messageOf(message),
    }))
    const expected: DispatchReply[] = []
    for (let from = 0; from < dispatches.length; from += BATCH) {
      const batch = dispatches.slice(from, from + BATCH)
      expected.push(...this.#record(service).dispatch(batch, this.#context()))
    }
    const replies = await Promise.all(
      dispatches.map(
        (dispatch) =>
          new Promise((onReply, onError) => peer.store.dispatch(dispatch, WITHIN, { onReply, onError })),
      ),
    )
    assert.deepEqual(replies, expected, 'replies to calls')
  }

  async #report(peer: Peer, { service, reports }: Of<'report'>): Promise<void> {
    const all = reports.map(({ load, replies }) => ({
      load: this.#loadOf(peer, service, load),
      replies: replies.map(({ to, message }) => ({ to: this.#address(to), message: messageOf(message) })),
    }))
    const received = Math.max(...all.map(({ load }) => load.received))
    const finished = Math.max(...all.map(({ load }) => load.finished))
    const replies = all.flatMap((report) => report.replies)
    const { address } = peer.store
    this.#record(service).report(address, { received, finished }, replies, this.#context())
    const name = SERVICES[service] as string
    await Promise.all(all.map(({ load, replies }) => peer.store.report(name, load, replies, WITHIN)))
  }

  async #setting({ store }: Peer, op: Of<'setting'>): Promise<void> {
    const [service, name] = [SERVICES[op.service] as string, SETTINGS[op.name] as string]
    const bytes = op.bytes && Buffer.from(op.bytes)
    const record = this.#record(op.service)
    assert.deepEqual(await store.readSetting(service, name, WITHIN), record.settings.get(name), 'a setting')
    const expected = record.writeSetting(name, bytes, this.#context())
    const written = await store.writeSetting(service, name, bytes, WITHIN)
    assert.equal(written, expected, 'reply to a setting')
    assert.deepEqual(await store.readSetting(service, name, WITHIN), record.settings.get(name), 'a setting')
  }

  /** A process dies. */
  async #leave(index: number): Promise<void> {
    const peer = this.#peer(index)
    if (peer.gone) return
    peer.gone = true
    await peer.connection.close()
    const left = async () => (await this.#client.pubsub('NUMSUB', peer.connection.inboxChannel))[1] === 0
    await until(left, { what: 'the server to see that it has gone', every: 1 })
  }

  async #compare(): Promise<void> {
    for (const [service, { processes, settings }] of this.#records) {
      const { all } = new ServiceKeys(PREFIX, service)
      const found = (await READ_KEYS.with(all, []).send(senderOf(this.#client))) as Buffer[][]
      const [leases, free, loads, infos, values] = found.map((content) => {
        const pairs = new Map<string, string>()
        for (let at = 0; at < content.length; at += 2)
          pairs.set(String(content[at]), (content[at + 1] as Buffer).toString('latin1'))
        return Object.fromEntries([...pairs].sort(([one], [other]) => (one < other ? -1 : 1)))
      })
      const entries = [...processes].sort(([one], [other]) => (one < other ? -1 : 1))
      const of = (value: (entry: (typeof entries)[number][1]) => string) =>
        Object.fromEntries(entries.map(([process, entry]) => [process, value(entry)]))
      const isFree = ([, entry]: (typeof entries)[number]) => loadOf(entry) < entry.limit
      const names = [...settings].map(([name, bytes]) => [JSON.stringify(name), bytes.toString('latin1')])
      assert.deepEqual(
        { leases, free, loads, infos, values },
        {
          leases: of(({ leaseEndsAt }) => String(leaseEndsAt)),
          free: Object.fromEntries(
            entries.filter(isFree).map(([process, entry]) => [process, `${scoreOf(entry)}`]),
          ),
          loads: of(
            ({ dealt, finished, limit }) => `${dealt} ${finished} ${Number.isFinite(limit) ? limit : -1}`,
          ),
          infos: of(({ info }) => Buffer.from(info).toString('latin1')),
          values: Object.fromEntries(names.sort(([one = ''], [other = '']) => (one < other ? -1 : 1))),
        },
        'state',
      )
    }
    await this.#compareExpiries()
  }

  /** Every key has an expiry, and outlives what it holds. */
  async #compareExpiries(): Promise<void> {
    const found = (await READ_EXPIRIES.with([], []).send(senderOf(this.#client))) as (Buffer | number)[]
    for (let at = 0; at < found.length; at += 2) {
      const [key, expiry] = [String(found[at]), Number(found[at + 1])]
      if (/\}r\//.test(key)) assert.ok(expiry > 0 && expiry <= 60_000, `${key} expires in ${expiry} ms`)
      else {
        const least = /\}V$/.test(key) ? 6 * 24 * HOUR : 0.9 * HOUR
        assert.ok(expiry > least && expiry < least + 36 * HOUR, `${key} expires in ${expiry} ms`)
      }
    }
  }

  /** Resolves when all messages that were published so far have arrived. */
  async #drain(): Promise<void> {
    const present = new Set(this.#peers.filter(({ gone }) => !gone).map(({ connection }) => connection))
    await Promise.all(
      [...present].map(
        ({ inbox, inboxChannel }) =>
          new Promise<void>((resolve) => {
            const marker = newId()
            inbox.listen(marker, {
              hint() {
                inbox.ignore(marker)
                resolve()
              },
            })
            void this.#client.publish(inboxChannel, `${FORMAT}${marker}m`)
          }),
      ),
    )
  }

  async close(): Promise<void> {
    for (const { store } of this.#peers) store.close()
    await this.#client.flushall()
  }
}

const TEST_CLOCK = `
local now = tonumber(redis.call('GET', 'now'))
local us = now * 1000`

/** Replaces some scripts. */
function changed(change: (script: Script) => Script): ServicesScripts {
  const scripts = buildServicesScripts(TEST_CLOCK)
  for (const name of Object.keys(scripts) as (keyof ServicesScripts)[]) scripts[name] = change(scripts[name])
  return scripts
}

async function open() {
  const t = await setup()
  const client = await t.client()
  const connect = async () => {
    const connection = new Connection(t.redis)
    await connection.call(new Script('return 1').with([], []), WITHIN)
    await until(() => connection.subscribed, { what: 'a subscription', every: 1 })
    return connection
  }
  const [first, second] = await Promise.all([connect(), connect()])
  return {
    t,
    client,
    connect,
    /** Holds when both worlds agree on all operations. */
    property: (scripts: ServicesScripts) =>
      fc.asyncProperty(fc.array(op, { minLength: 1, maxLength: 30, size: 'max' }), async (ops) => {
        const worlds = new Worlds(client)
        const leavers = ops.some(({ type }) => type === 'leave')
          ? await Promise.all(LEAVERS.map(connect))
          : [second, second]
        try {
          // The peers 0 and 1 are two processes by their addresses, with one inbox.
          await worlds.open([first, first, ...leavers], scripts)
          for (const op of ops) await worlds.apply(op)
        } finally {
          await worlds.close()
          for (const connection of leavers) if (connection !== second) await connection.close()
        }
      }),
    async [Symbol.asyncDispose]() {
      for (const connection of [first, second]) await connection.close()
      await t[Symbol.asyncDispose]()
    },
  }
}

const anyMessage: MessageOp = { kind: 'c', fields: ['17'], bytes: Uint8Array.of(0, 10, 255) }
const anyLoad: LoadOp = { unreceived: 0, running: 0 }
const register = (peer: number, limit = Number.POSITIVE_INFINITY, lease: 100 | 5000 = 5000): Op => ({
  type: 'register',
  peer,
  service: 0,
  registration: { limit, lease, info: '{"host":"a"}', load: { unreceived: 0, running: 3 } },
})
const call = (preferred = -1, avoided: number[] = []): CallOp => ({ preferred, avoided, message: anyMessage })
/** Calls that can be told apart. */
const dispatch = (...calls: CallOp[]): Op => ({
  ...{ type: 'dispatchBatch', peer: 0, service: 0 },
  calls: calls.map((each, index) => ({ ...each, message: { ...anyMessage, bytes: Uint8Array.of(index) } })),
})
const report = (peer: number, load = anyLoad): Op => ({
  type: 'report',
  peer,
  service: 0,
  reports: [{ load, replies: [{ to: 1, message: anyMessage }] }],
})
const dispatchAll: Op = { type: 'dispatchAll', peer: 0, service: 0, message: anyMessage }
const check = (process: number): Op => ({ type: 'check', peer: 0, service: 0, process })
const advance = (ms: number): Op => ({ type: 'advance', ms })
const write = (name: number, bytes: Of<'setting'>['bytes'] = Uint8Array.of(1)): Op => ({
  ...{ type: 'setting', peer: 0, service: 0, name, bytes },
})

/** Cases that random operations rarely produce. They are tried first in every run of the property. */
const RARE_CASES: [Op[]][] = [
  // All are full, then one has room again, and the key of those that have room is made anew.
  [[register(1, 1), dispatch(call(), call()), report(1), dispatch(call())]],
  // The least busy one is avoided, or another one is preferred, or full.
  [
    [
      register(0),
      register(1),
      register(2),
      dispatch(call(1), call(1), call(-1, [0, 2]), call(-1, [0, 1, 2])),
    ],
  ],
  [[register(0, 1), register(1), dispatch(call(0), call(0))]],
  // The first to be chosen do not listen: their calls go to others, in order.
  [
    [
      ...[2, 3].map((peer) => register(peer, 40)),
      { type: 'leave', which: 0 },
      { type: 'leave', which: 1 },
      register(0, 2),
      dispatch(...Array.from({ length: 5 }, () => call(2)), call(3), call(0)),
      check(2),
    ],
  ],
  [[register(2), register(0), { type: 'leave', which: 0 }, dispatchAll, check(2)]],
  [
    [
      register(2),
      register(0),
      { type: 'leave', which: 0 },
      { type: 'prune', peer: 0, service: 0, message: anyMessage },
    ],
  ],
  [
    [
      ...[2, 3].map((peer) => register(peer, 40)),
      ...[0, 1].map((which): Op => ({ type: 'leave', which })),
      register(0, 40),
      dispatch(...Array.from({ length: 8 }, () => call())),
    ],
  ],
  // The only process does not listen, and is full in the meantime.
  [[register(2, 1), { type: 'leave', which: 0 }, dispatch(call(), call())]],
  // A lease ends.
  [[register(0, 1, 100), advance(99), check(0), advance(1), check(0), check(0)]],
  [[register(0, 1, 100), advance(100), dispatch(call()), register(0, 1, 100)]],
  // A process that received more than was dealt; a load that does not shrink.
  [
    [
      register(0),
      dispatch(call(), call()),
      register(0),
      report(0, { unreceived: -2, running: 0 }),
      report(0, { unreceived: 3, running: 0 }),
    ],
  ],
  [
    [
      write(2),
      write(3),
      { type: 'setting', peer: 0, service: 0, name: 2, bytes: undefined },
      register(0),
      write(1),
    ],
  ],
]

const seed = process.env['SOLOFLIGHT_SEED']
const parameters = {
  numRuns: RUNS,
  examples: RARE_CASES,
  includeErrorInReport: true,
  ...(seed !== undefined && { seed: Number(seed) }),
}

test('services conformance - the scripts do what the specification says', async () => {
  await using t = await open()
  await fc.assert(t.property(buildServicesScripts(TEST_CLOCK)), parameters)
})

/** What may be sent twice with the effect of one, messages included. */
const TWICE: (keyof ServicesScripts)[] = ['dispatch', 'dispatchAll', 'register']

test('services conformance - a script that is sent twice has the effect of one', async () => {
  await using t = await open()
  await fc.assert(t.property(sentTwice(buildServicesScripts(TEST_CLOCK))), parameters)
})

/** Planted bugs: a text of the scripts, and what replaces it. */
const MUTANTS: Record<string, [from: string, to: string]> = {
  'a call that is not counted': ['load.dealt = int(load.dealt + 1)\n      rank', 'rank'],
  'a call to all that is not counted': ['load.dealt = int(load.dealt + 1)\n    rank', 'rank'],
  'a load that is not written': [
    "redis.call('HSET', loadsKey, process, load.dealt",
    "redis.call('ECHO', load.dealt",
  ],
  'a full process that is chosen': ['limit >= 0 and running >= limit', 'false'],
  'a process that is full too early': ['running >= limit', 'running + 1 >= limit'],
  'an order without loads': ['running * ', '0 * '],
  'an order without turns': ['+ us % ', '+ 0 * us % '],
  'a preferred process that is not': [
    "if preferred and redis.call('ZSCORE'",
    "if false and redis.call('ZSCORE'",
  ],
  'a preferred process that is full': [
    "redis.call('ZSCORE', freeKey, preferred)",
    "redis.call('ZSCORE', leasesKey, preferred)",
  ],
  'an avoided process that is chosen': ['if not avoided[process] then', 'if true then'],
  'too few that are looked at beside the avoided': [
    "'ZRANGE', freeKey, 0, count)",
    "'ZRANGE', freeKey, 0, count - 1)",
  ],
  'an avoided process that is never chosen': ['return free[1]', 'return nil'],
  'none instead of full': ["== 0 and 'N' or 'F'", "== 0 and 'F' or 'F'"],
  'a process that does not listen and stays': ["    strike(process)\n    return 'gone'", "    return 'gone'"],
  'a call that is lost with a process': ["if outcome == 'gone' then", "if outcome == 'away' then"],
  'calls that are dealt again in another order': ['table.sort(left)', ''],
  'a lease that is never over': ["'-inf', now, 'LIMIT'", "'-inf', now - 1, 'LIMIT'"],
  'a lease that is over too early': ["'-inf', now, 'LIMIT'", "'-inf', now + 1, 'LIMIT'"],
  'a process that stays in one key': [
    'ipairs({ loadsKey, infosKey }) do redis',
    'ipairs({ loadsKey }) do redis',
  ],
  'a process that goes without a word': ["announce('d'", "tostring('d'"],
  'a process that comes without a word': ["isNew and announce('u'", "false and announce('u'"],
  'a renewal that is announced': ["isNew and announce('u'", "announce('u'"],
  'a renewal that forgets the load': ['leaseLeft(process) and readLoad(process)', 'nil'],
  'a limit that stays': ['load.limit = limit', 'load.limit = load.limit or limit'],
  'a load that shrinks': ['num(finished) > num(load.finished)', 'true'],
  'calls that are forgotten': ['num(received) > num(load.dealt)', 'true'],
  'a report that forgets replies': ['for n = 9, #ARGV, 2', 'for n = 11, #ARGV, 2'],
  'a health that is unknown': ["if expired == process then return 'L' end", ''],
  'those that a cleaning strikes off and does not name': ['struck[#struck + 1] = process', ''],
  'a mark that does not count': ["readLoad(process) or { dealt = '0' }", "{ dealt = '0' }"],
  'a setting that is changed without a word': ["announce('s', setting)", ''],
  'a setting that stays': ["redis.call('HDEL', settingsKey, setting)", ''],
  'loads without expiry': [
    'ipairs({ leasesKey, freeKey, loadsKey, infosKey }) do keep',
    'ipairs({ leasesKey, freeKey, infosKey }) do keep',
  ],
  'a key of those that have room that is made anew without expiry': [
    '    keep(freeKey, math.max',
    '    math.max(1, math.max',
  ],
  'settings without expiry': [
    "redis.call('HSET', settingsKey, setting, bytes)\n  keep",
    "redis.call('HSET', settingsKey, setting, bytes)\n  tostring",
  ],
}

/** Planted bugs that only a script that is sent twice shows. */
const TWICE_MUTANTS: Record<string, [from: string, to: string]> = {
  'a reply that is not kept because nobody listened': [
    'return isChanged and keepReply(reply) or reply',
    "return string.find(reply, 'D') and keepReply(reply) or reply",
  ],
  'a batch that is dealt twice': ['if last == number then return', 'if false then return'],
  'a reply that is not kept': [
    "redis.call('SET', replyKey",
    "redis.call('ECHO', replyKey) local _ = (function() end)(replyKey",
  ],
  'a reply that is kept without its first byte': ['#last + 2)', '#last + 3)'],
}

/** The scripts with a planted bug. */
function mutant([from, to]: [from: string, to: string]): ServicesScripts {
  let found = false
  const scripts = changed((script) => {
    found ||= script.source.includes(from)
    return new Script(script.source.replaceAll(from, to))
  })
  assert.ok(found, `the scripts have changed: ${from}`)
  return scripts
}

const sentTwice = (scripts: ServicesScripts): ServicesScripts => ({
  ...scripts,
  ...Object.fromEntries(TWICE.map((name) => [name, new TwiceScript(scripts[name].source)])),
})

describe('services conformance - finds planted bugs', () => {
  let t: Awaited<ReturnType<typeof open>>
  before(async () => {
    t = await open()
  })
  after(() => t[Symbol.asyncDispose]())

  const finds = (name: string, scripts: () => ServicesScripts) =>
    test(`services conformance - finds ${name}`, async () => {
      const { failed, numRuns } = await fc.check(t.property(scripts()), {
        numRuns: 5 * RUNS,
        examples: RARE_CASES,
        endOnFailure: true,
      })
      assert.ok(failed, `not found in ${numRuns} runs`)
    })
  for (const [name, replacement] of Object.entries(MUTANTS)) finds(name, () => mutant(replacement))
  for (const [name, replacement] of Object.entries(TWICE_MUTANTS))
    finds(name, () => sentTwice(mutant(replacement)))
})
