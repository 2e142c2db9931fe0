// The store of queues on Redis, beside what the conformance test compares: keys that somebody has spoilt, forged signals,
// renewals of many queues, clusters.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { QueueKeys } from '../../src/bus/store/redis/queues/queue-keys.ts'
import { RedisQueueStore } from '../../src/bus/store/redis/queues/queue-store.ts'
import type { Outgoing, QueueSignal } from '../../src/bus/store/store.ts'
import { UnavailableError } from '../../src/errors.ts'
import { FORMAT, ID_LENGTH, newId } from '../../src/kernel/keys.ts'
import type { RedisSource } from '../../src/kernel/redis/client.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import { RedisCluster } from '../support/cluster.ts'
import { Monitor } from '../support/monitor.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const WITHIN = 5000
const PREFIX = 'soloflight'
const message = (text: string, key = ''): Outgoing => ({ key, kind: 'user', bytes: Buffer.from(text) })

/** A process with one address. */
class Process implements AsyncDisposable {
  readonly connection: Connection
  readonly store: RedisQueueStore
  readonly address: string
  readonly signals: QueueSignal[] = []
  ups = 0
  #number = 0

  constructor(redis: RedisSource) {
    this.connection = new Connection(redis)
    this.store = new RedisQueueStore(this.connection, PREFIX)
    const listener = { onSignal: (signal: QueueSignal) => this.signals.push(signal), onUp: () => this.ups++ }
    this.address = this.store.listen(listener).address
  }

  static async open(redis: RedisSource): Promise<Process> {
    const process = new Process(redis)
    await process.store.inspect('none', WITHIN)
    await until(() => process.ups > 0, { what: 'a subscription' })
    return process
  }

  attach(queue: string) {
    const request = { ttl: 30_000, maxsize: 0, life: newId(), token: '', attachedTo: '', watchesHolder: true }
    return this.store.attach(queue, { ...request, address: this.address }, WITHIN)
  }

  push(queue: string, ...messages: Outgoing[]) {
    const request = { address: this.address, number: ++this.#number, messages, awaitsRoom: true }
    return this.store.push(queue, request, WITHIN)
  }

  consume(queue: string) {
    const request = { address: this.address, lease: 10_000, reliable: true, exclusive: true, last: 0 }
    return this.store.consume(queue, request, WITHIN)
  }

  take(queue: string, acked: number[] = []) {
    return this.store.take(queue, { address: this.address, acked, have: 0, want: 10 }, WITHIN)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.connection.close()
  }
}

/** All that can be done with a queue. */
const CALLS: Record<string, (process: Process, queue: string) => Promise<unknown>> = {
  attach: (process, queue) => process.attach(queue),
  push: (process, queue) => process.push(queue, message('m', 'k'), message('n', 'k')),
  consume: (process, queue) => process.consume(queue),
  take: (process, queue) => process.take(queue),
  acknowledge: (process, queue) => process.take(queue, [1, 2, 3]),
  read: ({ store, address }, queue) => store.read(queue, address, 0, 10, WITHIN),
  inspect: ({ store }, queue) => store.inspect(queue, WITHIN),
  readMetadata: ({ store }, queue) => store.readMetadata(queue, undefined, WITHIN),
  writeMetadata: ({ store }, queue) => store.writeMetadata(queue, new Map([['a', Buffer.from('b')]]), WITHIN),
  leave: ({ store, address }, queue) => store.leave(queue, { address, acked: [], unhanded: [] }, WITHIN),
  flush: ({ store }, queue) => store.flush(queue, WITHIN),
  detach: ({ store, address }, queue) => store.detach(queue, address, WITHIN),
  remove: ({ store, address }, queue) => store.remove(queue, address, WITHIN),
}

test('bus queue store - a key of a wrong type fails with an error that says why, and leaves no key without expiry', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const client = await t.client()
  const { all } = new QueueKeys(PREFIX, 'mail')
  let failures = 0
  for (const spoilt of all)
    for (const [name, call] of Object.entries(CALLS)) {
      await client.flushall()
      await process.attach('mail')
      await process.push('mail', message('m', 'k'), message('n', 'k'))
      await process.consume('mail')
      await process.take('mail')
      await client.del(spoilt)
      if (/C$/.test(spoilt)) await client.lpush(spoilt, 'spoilt')
      else await client.set(spoilt, 'spoilt')
      const error = await call(process, 'mail').then(
        () => undefined,
        (error: unknown) => error,
      )
      if (error !== undefined) {
        failures++
        assert.ok(error instanceof UnavailableError, `${name} with ${spoilt}: ${error}`)
        assert.match(String((error.cause as Error).message), /WRONGTYPE/)
      }
      for (const key of await client.keys('*'))
        if (key !== spoilt) assert.ok((await client.pttl(key)) > 0, `${key} after ${name} with ${spoilt}`)
    }
  assert.ok(failures > 2 * Object.keys(CALLS).length, `${failures} failures`)
})

test('bus queue store - values that are none fail with an error, or count as nothing', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const client = await t.client()
  const { all } = new QueueKeys(PREFIX, 'mail')
  const [queue = '', stream = '', , , , , metadata = ''] = all
  await process.attach('mail')
  await process.consume('mail')
  await client.xadd(stream, '1', 'nonsense', 'x')
  await client.hset(queue, 'l', '1')
  await assert.rejects(process.take('mail'), UnavailableError)
  await client.hset(metadata, '{', 'x')
  await assert.rejects(process.store.readMetadata('mail', undefined, WITHIN), UnavailableError)
  await client.hset(queue, `a${process.address}`, 'nonsense')
  assert.deepEqual(await process.push('mail', message('m')), { kind: 'detached' })
  assert.deepEqual(await process.take('mail'), { kind: 'lost' })
  await client.hset(queue, 'e', 'nonsense')
  assert.equal(await process.store.inspect('mail', WITHIN), undefined)
})

test('bus queue store - a queue that somebody has spoilt does not keep others from being renewed', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const client = await t.client()
  const queues = Array.from({ length: 60 }, (_, index) => `queue ${index}`)
  for (const queue of queues) await process.attach(queue)
  await process.consume('queue 2')
  await client.set(new QueueKeys(PREFIX, 'queue 1').all[0] ?? '', 'spoilt')
  const renewals = queues.map((queue) => ({ queue, address: process.address }))
  await process.store.renew(renewals, WITHIN)
  await using monitor = await Monitor.start(client)
  const replies = await process.store.renew(
    [...renewals, { queue: 'none', address: process.address }],
    WITHIN,
  )
  assert.equal(await monitor.clientCommands(), 2)
  assert.ok(replies[1] instanceof UnavailableError)
  const others = [...replies.slice(0, 1), ...replies.slice(2)]

  assert.deepEqual(
    others.slice(0, 59),
    Array.from({ length: 59 }, (_, index) => (index === 1 ? 'consuming' : 'attached')),
  )
  assert.equal(others[59], 'detached')
})

test('bus queue store - forged signals that are none are dropped', async () => {
  await using t = await setup()
  await using process = await Process.open(t.redis)
  const client = await t.client()
  const nonce = process.address.slice(ID_LENGTH)
  const { inboxChannel } = process.connection
  for (const text of ['', 'x', 'toString', '__proto__', 'm', '\n', ' m', 'h 1 2 3\nbody'])
    await client.publish(inboxChannel, FORMAT + nonce + text)
  await client.publish(inboxChannel, `${FORMAT}${newId()}m`)
  await client.publish(inboxChannel, `${FORMAT}${nonce}c`)
  await until(() => process.signals.includes('closed'), { what: 'the last signal' })
  assert.deepEqual(process.signals, ['messages', 'holder', 'closed'])
})

test('bus queue store - works on a cluster', { timeout: 120_000 }, async () => {
  await using cluster = await RedisCluster.start()
  await using process = await Process.open(await cluster.client())
  const queues = ['a', 'b', 'c', 'd\n}']
  for (const queue of queues) {
    assert.equal((await process.attach(queue)).kind, 'attached')
    assert.equal(await process.consume(queue), true)
    assert.equal((await process.take(queue)).kind, 'taken')
    process.signals.length = 0
    assert.deepEqual(await process.push(queue, message('m', 'k')), { kind: 'pushed', first: 1, count: 1 })
    await until(() => process.signals.includes('messages'), { what: 'a signal' })
    const taken = await process.take(queue)
    assert.ok(taken.kind === 'taken' && taken.messages[0]?.bytes.toString() === 'm')
  }
  const renewals = queues.map((queue) => ({ queue, address: process.address }))
  assert.deepEqual(
    await process.store.renew(renewals, WITHIN),
    queues.map(() => 'consuming'),
  )
})
