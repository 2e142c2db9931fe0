// The store of services on Redis, beside what the conformance test compares: batches, repetitions, forged and refused
// messages, clusters.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UnavailableError } from '../../src/errors.ts'
import { newId } from '../../src/kernel/keys.ts'
import { type CommandSender, type Request, Script } from '../../src/kernel/redis/call.ts'
import type { RedisSource } from '../../src/kernel/redis/client.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import { parseBroadcast } from '../../src/locker/store/redis/wire.ts'
import { RedisServicesStore } from '../../src/services/store/redis/redis-store.ts'
import { servicesScripts } from '../../src/services/store/redis/scripts/index.ts'
import { ServiceKeys } from '../../src/services/store/redis/service-calls.ts'
import { encodeAnnouncement, parseAnnouncement } from '../../src/services/store/redis/wire.ts'
import type { Announcement, DispatchReply, Message, Registration } from '../../src/services/store/store.ts'
import { RedisCluster } from '../support/cluster.ts'
import { Monitor } from '../support/monitor.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const WITHIN = 5000
const message = (text: string): Message => ({ kind: 'c', fields: ['id'], body: Buffer.from(text) })
const registration = (service: string, limit = Number.POSITIVE_INFINITY): Registration => ({
  ...{ service, limit, lease: 5000, info: '{}' },
  load: { received: 0, finished: 0 },
})

/** A process: its store, and what it has received. */
class Process implements AsyncDisposable {
  readonly connection: Connection
  readonly store: RedisServicesStore
  readonly messages: Message[] = []
  readonly announcements: Announcement[] = []
  #ups = 0

  constructor(redis: RedisSource, options: ConstructorParameters<typeof RedisServicesStore>[2] = {}) {
    this.connection = new Connection(redis)
    this.store = new RedisServicesStore(this.connection, 'soloflight', options)
    this.store.open({
      onMessage: (message) => this.messages.push(message),
      onAnnouncement: (announcement) => this.announcements.push(announcement),
      onUp: () => this.#ups++,
    })
  }

  static async open(...args: ConstructorParameters<typeof Process>): Promise<Process> {
    const process = new Process(...args)
    await process.store.check('none', '', WITHIN)
    await until(() => process.#ups > 0, { what: 'a subscription' })
    return process
  }

  dispatch(text: string, service = 'add'): Promise<DispatchReply> {
    const dispatch = { service, preferred: '', avoided: [], message: message(text) }
    return new Promise((onReply, onError) => this.store.dispatch(dispatch, WITHIN, { onReply, onError }))
  }

  /** The bodies of its messages. */
  get bodies(): string[] {
    return this.messages.map(({ body }) => body.toString())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.store.close()
    await this.connection.close()
  }
}

test('services store - the calls, reports, registrations and their ends of one turn share a command', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const { store } = process
  const names = Array.from({ length: 30 }, (_, index) => `service ${index}`)
  const report = (count: number) =>
    Promise.all(
      Array.from({ length: count }, (_, index) =>
        store.report(
          'add',
          { received: index, finished: index },
          [{ to: store.address, message: message('r') }],
          5000,
        ),
      ),
    )
  const steps: [commands: number, () => Promise<unknown>][] = [
    [
      1,
      () =>
        store.register(
          names.map((name) => registration(name)),
          WITHIN,
        ),
    ],
    [1, () => store.register([registration('add')], WITHIN)],
    [1, () => process.dispatch('a')],
    [2, () => Promise.all(Array.from({ length: 50 }, (_, index) => process.dispatch(`${index}`)))],
    [1, () => report(1)],
    [2, () => report(50)],
    [1, () => Promise.all(names.map((name) => store.unregister(name, message('w'), WITHIN)))],
  ]
  // The first use of a script sends its text too.
  for (const [, step] of steps) await step()
  const client = await t.client()
  for (const [commands, step] of steps) {
    await using monitor = await Monitor.start(client)
    await step()
    assert.equal(await monitor.clientCommands(), commands)
  }
})

test('services store - a large call is sent alone', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  await process.store.register([registration('add')], WITHIN)
  await process.dispatch('first')
  await using monitor = await Monitor.start(await t.client())
  await Promise.all([process.dispatch('a'), process.dispatch('b'.repeat(300_000)), process.dispatch('c')])
  assert.equal(await monitor.clientCommands(), 3)
})

test('services store - a reply that is lost with the connection: the call is dealt once', async () => {
  await using t = await setup({ proxy: true })
  await using process = await Process.open(t.redis)
  const { store } = process
  await store.register([registration('add')], WITHIN)
  await process.dispatch('first')
  await store.dispatchAll('add', message('to all'), WITHIN)
  const [, , loads = ''] = new ServiceKeys('soloflight', 'add').all
  let dealt = 2
  for (const bytes of [0, 3, 9]) {
    const { dispatch, dispatchAll } = servicesScripts
    const one = t.proxy.swallowReplyAfter(new RegExp(`^EVALSHA ${dispatch.sha1} `), bytes)
    const replies = await Promise.all([process.dispatch('a'), process.dispatch('b')])
    assert.deepEqual(
      replies.map(({ kind }) => kind),
      ['dealt', 'dealt'],
    )
    const all = t.proxy.swallowReplyAfter(new RegExp(`^EVALSHA ${dispatchAll.sha1} `), bytes)
    assert.equal((await store.dispatchAll('add', message('c'), WITHIN)).length, 1)
    assert.deepEqual([one.hits, all.hits], [1, 1])
    dealt += 3
    const load = await t.server.call('HGET', loads, store.address)
    assert.equal(String(load), `${dealt} 0 -1`)
  }
})

/** Keeps what was sent, so that it can be sent again later. */
class RecordingScript extends Script {
  readonly requests: Request[] = []

  override with(keys: readonly string[], args: readonly (string | Buffer)[]): Request {
    const request = super.with(keys, args)
    this.requests.push(request)
    return request
  }
}

test('services store - a batch that arrives again after later ones has no effect', async () => {
  await using t = await setup()
  const dispatch = new RecordingScript(servicesScripts.dispatch.source)
  await using process = await Process.open(t.redis, { scripts: { ...servicesScripts, dispatch } })
  await process.store.register([registration('add')], WITHIN)
  for (const text of ['a', 'b', 'c']) await process.dispatch(text)
  const client = await t.client()
  const sender: CommandSender = { send: (name, args) => client.callBuffer(name, args) }
  for (const request of dispatch.requests) await request.send(sender)
  await process.dispatch('d')
  await until(() => process.messages.length >= 4, { what: 'the messages' })
  assert.deepEqual(process.bodies, ['a', 'b', 'c', 'd'])
  assert.equal((await client.keys('*}r/*')).length, 1, 'a slot is used again')
})

test('services store - batches without a reply do not share a slot', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  await process.store.register([registration('add')], WITHIN)
  const replies = await Promise.all(Array.from({ length: 200 }, (_, index) => process.dispatch(`${index}`)))
  assert.ok(replies.every(({ kind }) => kind === 'dealt'))
  assert.equal((await (await t.client()).keys('*}r/*')).length, 200 / 25)
})

test('services store - a service whose keys are not ours does not hinder the others', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const [leases = ''] = new ServiceKeys('soloflight', 'bad').all
  await t.server.call('SET', leases, 'x', 'EX', 60)
  const [bad, add] = await process.store.register([registration('bad'), registration('add')], WITHIN)
  assert.ok(bad instanceof UnavailableError && /WRONGTYPE/.test(bad.message), `${bad}`)
  assert.equal(add, undefined)
  assert.equal((await process.dispatch('a')).kind, 'dealt')
  await assert.rejects(process.dispatch('a', 'bad'), /WRONGTYPE/)
  const ends = ['bad', 'add'].map((name) =>
    process.store.unregister(name, message(`last of ${name}`), WITHIN),
  )
  const [badEnd, addEnd] = await Promise.allSettled(ends)
  assert.ok(badEnd?.status === 'rejected' && /WRONGTYPE/.test(`${badEnd.reason}`), `${badEnd?.status}`)
  assert.equal(addEnd?.status, 'fulfilled')
  assert.deepEqual(await process.dispatch('b'), { kind: 'none' })
  await until(() => process.bodies.includes('last of add'), { what: 'the last message' })
})

test('services store - records that somebody has written by hand', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const { store } = process
  const [leases = '', free = '', loads = ''] = new ServiceKeys('soloflight', 'add').all
  for (const address of ['', 'x', newId() + newId()]) await t.server.call('ZADD', free, 0, address)
  assert.deepEqual(await process.dispatch('a'), { kind: 'none' })
  await store.register([registration('add', 1)], WITHIN)
  for (const load of ['', 'x', '1 2', '-1 0 5', '9e9 0 1', '1 0 1\n']) {
    await t.server.call('HSET', loads, store.address, load)
    assert.deepEqual(await process.dispatch('a'), { kind: 'full' }, load)
    await store.report('add', { received: 0, finished: 0 }, [], 5000)
    assert.deepEqual(await store.dispatchAll('add', message('a'), WITHIN), [])
    await store.register([registration('add', 1)], WITHIN)
    assert.equal((await process.dispatch('a')).kind, 'dealt', load)
  }
  await t.server.call('PERSIST', leases)
  await store.register([registration('add', 1)], WITHIN)
  assert.ok(Number(await t.server.call('PTTL', leases)) > 0, 'it got no expiry')
})

test('services store - a call that the server does not let through is refused, and not counted', async () => {
  await using t = await setup()
  await using server = await Process.open(t.redis)
  await server.store.register([registration('add')], WITHIN)
  const user = ['ACL', 'SETUSER', 'mute', 'on', '>secret', '~*', '+@all', 'resetchannels', '&none'] as const
  await t.server.call(...user)
  await using caller = new Process({ ...t.redis, username: 'mute', password: 'secret' })
  await assert.rejects(caller.dispatch('a'), { code: 'E_UNAVAILABLE' })
  await assert.rejects(caller.store.dispatchAll('add', message('a'), WITHIN), { code: 'E_UNAVAILABLE' })
  const [, , loads = ''] = new ServiceKeys('soloflight', 'add').all
  assert.equal(String(await t.server.call('HGET', loads, server.store.address)), '0 0 -1')
})

const address = newId() + newId()
const ANNOUNCEMENTS: Announcement[] = [
  { kind: 'up', service: 'a "b" \n{}', process: address, info: '{"host":"ä"}' },
  { kind: 'down', service: '', process: address, info: '\0\n' },
  { kind: 'setting', service: 'a', name: '\ud800' },
  { kind: 'resumed', process: address },
]

test('services store - announcements are understood by services of the same prefix alone', () => {
  for (const announcement of ANNOUNCEMENTS) {
    const text = Buffer.from(encodeAnnouncement('p', announcement))
    assert.deepEqual(parseAnnouncement('p', text), announcement)
    assert.equal(parseAnnouncement('q', text), undefined)
    assert.equal(parseAnnouncement('p:1', text), undefined)
    assert.equal(parseBroadcast(text), undefined, 'a locker takes it for an invalidation')
  }
})

test('services store - a forged announcement is ignored', () => {
  const forged = [
    '',
    '1',
    '1s',
    '1su',
    '1su p',
    '1su p ',
    '1su p {}',
    '1su p null',
    '1su p "u3"',
    '1su p ["a","b","c"]',
    `1su p ["a","${address}"]`,
    `1su p ["a","${address}",1]`,
    `1su p ["a","${address}","c"`,
    `1sx p ["a","${address}","c"]`,
    `2su p ["a","${address}","c"]`,
    `1su p ${'['.repeat(100_000)}`,
    `1su p ["a","${address}","${'c'.repeat(300_000)}"]`,
    '1ss p ["a"]',
    '1ss p [["a"],"b"]',
    '1sr p ["a"]',
    '117 locker key',
    '1t17 tag',
    `1w soloflight:1:{q}`,
    `1f soloflight:1:{q} ${address} +`,
  ]
  for (const text of forged)
    assert.equal(parseAnnouncement('p', Buffer.from(text)), undefined, text.slice(0, 50))
  assert.equal(parseAnnouncement('p', Buffer.from([0x31, 0x73, 0x75, 0xff, 0xfe])), undefined)
})

test('services store - no message goes to what is no address', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const { store } = process
  for (const to of [
    '',
    'x',
    `${store.address} `,
    `${store.address}\n`,
    store.address.slice(1),
    `*${store.address.slice(1)}`,
  ])
    assert.equal(await store.send(to, message('a'), WITHIN), false, to)
  await store.report(
    'add',
    { received: 0, finished: 0 },
    [{ to: `${store.address}\n`, message: message('a') }],
    5000,
  )
  assert.equal(await store.send(store.address, message('b'), WITHIN), true)
  await until(() => process.messages.length > 0, { what: 'a message' })
  assert.deepEqual(process.bodies, ['b'])
})

test('services store - on a cluster', async () => {
  await using cluster = await RedisCluster.start()
  await using one = await Process.open(await cluster.client())
  await using other = await Process.open(await cluster.client())
  assert.equal(one.store.countsReceivers, false)
  const names = Array.from({ length: 10 }, (_, index) => `service ${index}`)
  for (const { store } of [one, other])
    await store.register(
      names.map((name) => registration(name, 2)),
      WITHIN,
    )
  for (const name of names) {
    const replies = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((text) => one.dispatch(text, name)))
    assert.deepEqual(
      replies.map(({ kind }) => kind),
      ['dealt', 'dealt', 'dealt', 'dealt', 'full'],
    )
    assert.equal((await one.store.dispatchAll(name, message('f'), WITHIN)).length, 2)
    const address = other.store.address
    await one.store.report(name, { received: 3, finished: 3 }, [{ to: address, message: message('r') }], 5000)
    assert.equal(await one.store.writeSetting(name, 'x', Buffer.from('1'), WITHIN), true)
    assert.equal(String(await other.store.readSetting(name, 'x', WITHIN)), '1')
  }
  await until(() => one.messages.length === 30 && other.messages.length === 40, { what: 'the messages' })
  await until(() => other.announcements.filter(({ kind }) => kind === 'setting').length === 10, {
    what: 'the announcements',
  })
  // Nobody hears it, and the count of receivers does not tell.
  await other.connection.close()
  assert.equal(await one.store.send(other.store.address, message('a'), WITHIN), true)
  assert.deepEqual(await one.store.prune('service 0', message('p'), WITHIN), [])
  assert.equal((await one.store.dispatchAll('service 0', message('g'), WITHIN)).length, 2)
})

test('services store - while a slot migrates, a call is dealt once', async () => {
  await using cluster = await RedisCluster.start()
  await using process = await Process.open(await cluster.client())
  await process.store.register([registration('add')], WITHIN)
  await process.dispatch('a')
  const slot = await cluster.slotOf(new ServiceKeys('soloflight', 'add').all[0] ?? '')
  const from = await cluster.ownerOf(slot)
  const to = cluster.nodes.find((node) => node !== from)
  assert.ok(to)
  let reply: Promise<DispatchReply> | undefined
  await cluster.migrateSlot(slot, to, {
    onMigrating: async () => {
      reply = process.dispatch('b')
      await new Promise((resolve) => setTimeout(resolve, 50))
    },
  })
  assert.equal((await reply)?.kind, 'dealt')
  await process.dispatch('c')
  await until(() => process.messages.length >= 3, { what: 'the messages' })
  assert.deepEqual(process.bodies, ['a', 'b', 'c'])
})
