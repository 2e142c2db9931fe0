// What is left while it is still being attached, connected or subscribed is left at the gateway too.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RemoteBus } from '../../../src/bus/remote/index.ts'
import { FakeGateway } from '../../support/fake-gateway.ts'
import { onBothWorlds } from '../../support/gateway.ts'
import { messagingIn } from '../../support/gateway-messaging.ts'
import { remoteOptions } from '../../support/remote-bus.ts'
import { until } from '../../support/wait.ts'

onBothWorlds('remote - a queue that is detached while it attaches is detached at the gateway', async (w) => {
  await using m = messagingIn(w)
  const { port } = await m.open()
  await using remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, remoteOptions())
  const there = m.bus().queue('q')
  const queue = remote.queue<number>('q')
  const events: string[] = []
  for (const name of ['attaching', 'attached', 'detaching', 'detached'] as const)
    queue.on(name, () => events.push(name))
  // The first time, nothing is sent before the socket is there.
  for (const isConnected of [false, true]) {
    assert.equal(remote.isOnline(), isConnected)
    const attaching = queue.attach({ ttl: 300 })
    await queue.detach()
    assert.equal(await attaching, false)
    assert.equal(queue.isAttached(), false)
    assert.deepEqual(events.splice(0), ['attaching', 'attached', 'detaching', 'detached'])
    await until(async () => !(await there.exists()), { what: 'the queue to expire: nobody is attached' })
  }
  await queue.attach()
  const detaching = queue.detach()
  await queue.attach()
  await detaching
  assert.equal(queue.isAttached(), true, 'attached anew')
  assert.equal(await queue.push(1), 1)
})

onBothWorlds('remote - a role that is left while it is awaited is free', async (w) => {
  await using m = messagingIn(w)
  const { port } = await m.open()
  await using remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, remoteOptions())
  const channel = remote.channel('c')
  const left = async () => {
    const connecting = channel.connect()
    await Promise.all([channel.disconnect(), assert.rejects(connecting, { code: 'E_CLOSED' })])
    assert.equal(channel.isAttached(), false)
  }
  // Nothing is sent before the socket is there.
  await left()
  await remote.connect()
  const there = m.bus().channel('c')
  await there.connect()
  await left()
  await there.disconnect()
  await left()
  await there.connect()
  await there.disconnect()
  await channel.connect()
  assert.equal(channel.isAttached(), true)
})

onBothWorlds('remote - a topic that is unsubscribed from while it subscribes', async (w) => {
  await using m = messagingIn(w)
  const { port } = await m.open()
  await using remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, remoteOptions())
  const topic = remote.pubsub<number>('t')
  const received: unknown[] = []
  topic.on('message', (message) => received.push(message))
  for (let n = 0; n < 2; n++) {
    const subscribing = topic.subscribe()
    await Promise.all([topic.unsubscribe(), assert.rejects(subscribing, { code: 'E_CLOSED' })])
    assert.equal(topic.isSubscribed(), false)
    await remote.connect()
  }
  await topic.subscribe()
  await topic.publish(1)
  await until(() => received.length > 0, { what: 'the message' })
  await topic.publish(2)
  await until(() => received.length > 1, { what: 'the other one' })
  assert.deepEqual(received, [1, 2], 'each once')
})

test('remote - what still comes of an earlier attachment is not of the next one', async () => {
  const subs: unknown[] = []
  await using gateway = await FakeGateway.start(({ id, type, sub }, send) => {
    if (type !== 'attach') return false
    subs.push(id)
    send({ id, ok: true })
    if (subs.length === 2) send({ sub: subs[0], event: 'detached' })
    assert.equal(sub, undefined)
    return true
  })
  await using bus = gateway.bus()
  const queue = bus.queue('q')
  await queue.attach()
  await queue.detach()
  await queue.attach()
  await bus.connect()
  assert.notEqual(subs[0], subs[1])
  assert.equal(queue.isAttached(), true)
})
