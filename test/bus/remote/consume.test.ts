// How a client behind a gateway consumes: as an iteration, with a throttle, and with the listeners of an EventEmitter.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { RemoteBus } from '../../../src/bus/remote/index.ts'
import { FakeGateway } from '../../support/fake-gateway.ts'
import { type GatewayWorld, onBothWorlds } from '../../support/gateway.ts'
import { messagingIn } from '../../support/gateway-messaging.ts'
import { placeIn, remoteOptions } from '../../support/remote-bus.ts'
import { rejectionOf, until } from '../../support/wait.ts'

/** A queue with these messages, behind a gateway, and the queue of another process. */
async function filled(w: GatewayWorld, messages: readonly unknown[]) {
  const m = messagingIn(w)
  const { port } = await m.open()
  const remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, remoteOptions())
  const queue = remote.queue<unknown>('q')
  await queue.attach({ ttl: 60_000 })
  for (const message of messages) await queue.push(message)
  const there = m.bus().queue<unknown>('q')
  await there.attach()
  return {
    ...{ m, remote, queue, there },
    async [Symbol.asyncDispose]() {
      await remote.disconnect()
      await m[Symbol.asyncDispose]()
    },
  }
}

onBothWorlds('remote - an iteration takes what it asks for, and leaves the rest', async (w) => {
  await using f = await filled(w, [1, 2, 3, 4])
  const { queue, there } = f
  const events: unknown[] = []
  queue.on('message', () => events.push('message'))
  queue.on('consuming', (on) => events.push(on))
  const received: unknown[] = []
  for await (const { value, id, redelivered } of queue) {
    received.push([value, id, redelivered])
    assert.throws(() => queue.messages(), { code: 'E_ALREADY_ATTACHED' })
    if (value === 3) break
  }
  assert.deepEqual(
    received,
    [1, 2, 3].map((n) => [n, n, 0]),
  )
  assert.equal(await there.count(), 1, 'the last one was not fetched')
  assert.deepEqual([events, queue.isConsuming(), queue.consumed()], [[true, false], false, 3])
  await there.push(5)
  const rest: unknown[] = []
  for await (const { value } of queue.messages({ max: 2 })) rest.push(value)
  assert.deepEqual(rest, [4, 5], 'it ends after `max`')
})

onBothWorlds('remote - an iteration waits for messages, and several reads get one each', async (w) => {
  await using f = await filled(w, [])
  const { queue, there } = f
  const iterator = queue.messages()
  const reads = [iterator.next(), iterator.next(), iterator.next()]
  for (const text of ['a', 'b', 'c']) await there.push(text)
  const values = (await Promise.all(reads)).map(({ value }) => value.value)
  assert.deepEqual(values, ['a', 'b', 'c'])
  const last = iterator.next()
  await iterator.return?.()
  assert.deepEqual(await last, { done: true, value: undefined })
  assert.deepEqual(await iterator.next(), { done: true, value: undefined })
  await there.push('d')
  assert.equal(await there.count(), 1)
})

onBothWorlds(
  'remote - a reliable iteration: what is not acknowledged goes back, also what was fetched',
  async (w) => {
    await using f = await filled(w, [1, 2, 3, 4])
    const { queue, there } = f
    for await (const { value, id } of queue.messages({ reliable: true, prefetch: 3 })) {
      if (value === 1) await queue.ack(id)
      else break
    }
    const rest: unknown[] = []
    for await (const { value, redelivered } of there.messages({ max: 3 })) rest.push([value, redelivered])
    assert.deepEqual(rest, [
      [2, 1],
      [3, 0],
      [4, 0],
    ])
  },
)

onBothWorlds(
  'remote - an iteration that began before `attach`; closed, detached and disconnected, it ends',
  async (w) => {
    await using f = await filled(w, [])
    const { remote, m } = f
    const ends: ((queue: ReturnType<typeof remote.queue>) => Promise<unknown>)[] = [
      (queue) => queue.detach(),
      (queue) => queue.stop(),
      (queue) => queue.close(),
      async ({ name }) => {
        const other = m.bus().queue(name)
        await other.attach()
        await other.close()
      },
      () => remote.disconnect(),
    ]
    for (const [index, end] of ends.entries()) {
      const queue = remote.queue(`q${index}`)
      const iterator = queue.messages()
      const first = iterator.next()
      await queue.attach()
      await queue.push('first')
      assert.equal((await first).value?.value, 'first')
      const next = iterator.next()
      await end(queue)
      assert.deepEqual(await next, { done: true, value: undefined }, `${end}`)
      assert.equal(queue.isConsuming(), false)
    }
    assert.throws(() => remote.queue('q').messages(), { code: 'E_CLOSED' })
  },
)

onBothWorlds('remote - an iteration goes on after an outage, a reader where it was', async (w) => {
  const { place, bus, end } = placeIn(w)
  await place.up()
  const remote = new RemoteBus(place.url, remoteOptions({ unavailableAfter: 20_000 }))
  try {
    const queue = remote.queue<number>('q')
    const log = remote.queue<number>('log')
    await Promise.all([queue.attach({ ttl: 60_000 }), log.attach({ ttl: 60_000 })])
    for (const n of [1, 2, 3]) await Promise.all([queue.push(n), log.push(n)])
    const messages = queue.messages({ reliable: true })
    const lines = log.messages({ remove: false, index: 1 })
    assert.deepEqual((await messages.next()).value?.value, 1)
    assert.deepEqual((await lines.next()).value?.value, 2)
    await place.down()
    await until(() => !remote.isOnline(), { what: 'the client to notice' })
    // It waits through the outage.
    const [again, line] = [messages.next(), lines.next()]
    await place.up()
    assert.deepEqual([(await again).value?.value, (await again).value?.redelivered], [1, 1])
    assert.deepEqual((await line).value?.value, 3)
    await queue.ack(1)
    assert.equal((await messages.next()).value?.value, 2)
    await messages.return?.()
    const there = bus().queue<number>('q')
    await until(async () => (await there.count()) === 2, { what: 'the rest to go back' })
  } finally {
    await remote.disconnect()
    await end()
  }
})

onBothWorlds('remote - a throttle is asked before each fetch, and holds the gateway back', async (w) => {
  await using f = await filled(w, [1, 2, 3, 4, 5])
  const { queue, there, remote } = f
  const waiting: (() => void)[] = []
  const received: unknown[] = []
  queue.on('message', (value) => received.push(value))
  await queue.consume({ throttle: (ready) => waiting.push(ready), prefetch: 2 })
  for (const expected of [
    [1, 2],
    [1, 2, 3, 4],
    [1, 2, 3, 4, 5],
  ]) {
    await until(() => waiting.length === 1, { what: 'the throttle' })
    assert.equal(await there.count(), 5 - received.length, 'nothing is fetched meanwhile')
    const ready = waiting.pop()
    ready?.()
    ready?.()
    await until(() => received.length === expected.length, { what: 'the messages' })
    assert.deepEqual(received, expected)
  }
  // One of an earlier consumption.
  const late = waiting.pop()
  await queue.stop()
  await there.push(6)
  await queue.consume({ throttle: (ready) => waiting.push(ready) })
  await until(() => waiting.length === 1, { what: 'the throttle' })
  late?.()
  await remote.connect()
  assert.equal(await there.count(), 1)
  waiting.pop()?.()
  await until(() => received.at(-1) === 6, { what: 'the last message' })
})

onBothWorlds('remote - a throttle of a channel', async (w) => {
  await using m = messagingIn(w)
  const { port } = await m.open()
  await using remote = new RemoteBus(`ws://127.0.0.1:${port}/ws`, remoteOptions())
  const [here, there] = [remote.channel<number>('c'), m.bus().channel('c')]
  const waiting: (() => void)[] = []
  const received: number[] = []
  here.on('message', (value) => received.push(value))
  // The role comes with the first fetch.
  const connecting = Promise.all([here.connect({ throttle: (ready) => waiting.push(ready) }), there.listen()])
  await until(() => waiting.length > 0, { what: 'the throttle' })
  assert.equal(here.isAttached(), false)
  waiting.pop()?.()
  await connecting
  for (const n of [1, 2, 3]) await there.send(n)
  for (const n of [1, 2, 3]) {
    await until(() => waiting.length > 0, { what: 'the throttle' })
    await remote.connect()
    assert.equal(received.length, n - 1)
    // A fetch may find nothing.
    while (received.length < n) {
      waiting.pop()?.()
      await until(() => received.length === n || waiting.length > 0, { what: 'the message' })
    }
  }
  assert.deepEqual(received, [1, 2, 3])
})

test('remote - a consumption that the gateway refuses, and `ready` that it does not take at first', async () => {
  let readies = 0
  await using gateway = await FakeGateway.start(({ id, type, sub, queue }, send) => {
    if (type === 'consume' && queue === undefined && sub === 's1')
      send({ id, problem: { status: 403, error: 'insufficient scope' } })
    else if (type === 'ready') {
      if (++readies < 3) send({ id, problem: { status: 503, error: 'overloaded' } })
      else {
        send({ id, ok: null })
        for (const n of [1, 2, 3]) send({ sub, message: n, info: { id: n, redelivered: 0 } })
      }
    } else return false
    return true
  })
  await using bus = gateway.bus()
  const refused = bus.queue('refused')
  await refused.attach()
  const error = await rejectionOf(refused.messages().next())
  assert.match(String(error), /insufficient scope/)
  assert.equal(refused.isConsuming(), false)
  const queue = bus.queue('queue')
  await queue.attach()
  const iterator = queue.messages()
  assert.equal((await iterator.next()).value?.value, 1, 'asked again')
  assert.equal((await iterator.next()).value?.value, 2, 'one that was not asked for is kept, and no more')
  assert.equal(readies, 3)
})

onBothWorlds('remote - events as those of an EventEmitter', async (w) => {
  await using f = await filled(w, ['text'])
  const { queue } = f
  const received = once(queue as never, 'message')
  await queue.consume()
  assert.deepEqual((await received).slice(0, 2), ['text', 1])
  const listener = () => assert.fail('it was removed')
  queue.once('message', listener).addListener('message', listener)
  assert.equal(queue.listenerCount('message'), 2)
  queue.removeListener('message', listener).off('message', listener)
  assert.equal(queue.listenerCount('message'), 0)
  queue.on('message', listener).removeAllListeners('message')
  queue.on('message', listener).removeAllListeners()
  await queue.push('other')
  await until(() => queue.consumed() === 2, { what: 'the other message' })
})
