// Consumption: at most once, reliable, exclusive, in order per key, readers that remove nothing.

import assert from 'node:assert/strict'
import type { ConsumeOptions, MessageInfo, Queue } from '../../src/bus/index.ts'
import { AlreadyAttachedError, LeaseLostError } from '../../src/errors.ts'
import type { Codec } from '../../src/kernel/codec/codec.ts'
import { type BusWorld, onBothStores } from '../support/bus.ts'
import { rejectionOf, soon, until } from '../support/wait.ts'

const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n + 1)

/** A queue object of a process of its own, attached, and what it has received. */
async function member(w: BusWorld, name = 'q') {
  const queue = w.open().queue<number>(name)
  const received: number[] = []
  const infos: MessageInfo[] = []
  queue.on('message', (value, _id, info) => {
    received.push(value)
    infos.push(info)
  })
  await queue.attach({ ttl: 5000 })
  return { queue, received, infos }
}

const pushAll = (queue: Queue<number>, values: readonly number[]) =>
  Promise.all(values.map((value) => queue.push(value)))

onBothStores('B1 consume - every message goes to one consumer, whatever their number', async (w) => {
  const [producer, ...consumers] = [await member(w), await member(w), await member(w), await member(w)]
  for (const { queue } of consumers) await queue.consume()
  await pushAll(producer.queue, upTo(1000))
  const all = () => consumers.flatMap(({ received }) => received)
  await until(() => all().length >= 1000, { what: 'the messages' })
  assert.deepEqual(
    all().sort((a, b) => a - b),
    upTo(1000),
  )
  assert.equal(await producer.queue.count(), 0)
})

onBothStores('B1 consume - stop at every tenth of 1,000 messages: none is lost, in order', async (w) => {
  const { queue, received } = await member(w)
  let stops = 0
  queue.on('message', (value) => {
    if (value % 10 !== 0) return
    stops++
    void queue.stop()
  })
  queue.on('consuming', (on) => {
    if (!on && received.length < 1000) void queue.consume()
  })
  await pushAll(queue, upTo(1000))
  await queue.consume()
  await until(() => received.length >= 1000, { what: 'the messages', timeout: 20_000 })
  assert.deepEqual(received, upTo(1000))
  assert.equal(stops, 100)
})

onBothStores('B1 consume - no message follows stop, and the rest stays in the queue', async (w) => {
  const { queue, received } = await member(w)
  queue.on('message', (value) => value === 3 && void queue.stop())
  await pushAll(queue, upTo(10))
  await queue.consume()
  await until(() => !queue.isConsuming(), { what: 'the stop' })
  assert.deepEqual(received, [1, 2, 3])
  assert.equal(await queue.count(), 7)
})

onBothStores('B1 consume - max: so many messages and no more; consume again goes on', async (w) => {
  const { queue, received } = await member(w)
  const consuming: boolean[] = []
  queue.on('consuming', (on) => consuming.push(on))
  await pushAll(queue, upTo(10))
  await queue.consume({ max: 4 })
  await until(() => consuming.length === 2, { what: 'the end' })
  assert.deepEqual(received, [1, 2, 3, 4])
  assert.equal(await queue.count(), 6)
  await queue.consume({ max: -1 })
  await until(() => received.length === 10, { what: 'the rest' })
  assert.deepEqual(received, upTo(10))
  assert.deepEqual(consuming, [true, false, true])
})

onBothStores('B2 consume - reliable with max: it stops when so many are acknowledged', async (w) => {
  const { queue, received } = await member(w)
  await pushAll(queue, upTo(4))
  await queue.consume({ reliable: true, prefetch: 10, max: 2 })
  await until(() => received.length === 2, { what: 'two messages' })
  assert.ok(queue.isConsuming())
  await queue.ack(1)
  assert.ok(queue.isConsuming())
  await queue.ack(2)
  await until(() => !queue.isConsuming(), { what: 'the end' })
  assert.equal(await queue.count(), 2)
  for await (const { id } of queue.messages({ reliable: true, max: 2 })) {
    received.push(id)
    await queue.ack(id)
  }
  assert.deepEqual(received, [1, 2, 3, 4])
  assert.equal(await queue.count(), 0)
})

onBothStores('B2 consume - what was returned by stop cannot be acknowledged any more', async (w) => {
  const { queue, received } = await member(w)
  await pushAll(queue, upTo(3))
  await queue.consume({ reliable: true, prefetch: 3 })
  await until(() => received.length === 3, { what: 'three messages' })
  await queue.ack(1)
  await queue.stop()
  await queue.ack(1)
  assert.ok((await rejectionOf(queue.ack(3))) instanceof LeaseLostError)
  assert.equal(await queue.count(), 2)
})

onBothStores(
  'B2 consume - a message that cannot be decoded is passed over, and no other is acknowledged by that',
  async (w) => {
    const codec: Codec = {
      encode: (value) => Buffer.from(String(value)),
      decode: (bytes) => {
        if (bytes.toString() === '3') throw new Error('not for this codec')
        return Number(bytes)
      },
    }
    const [producer, queue] = [w.open({ codec }).queue<number>('q'), w.open({ codec }).queue<number>('q')]
    await producer.attach()
    await queue.attach()
    await pushAll(producer, upTo(4))
    const received: number[] = []
    queue.on('message', (value) => received.push(value))
    await queue.consume({ reliable: true, prefetch: 10 })
    await until(() => received.length === 3, { what: 'three messages' })
    assert.deepEqual(received, [1, 2, 4])
    await queue.stop()
    assert.equal(await queue.count(), 3)
  },
)

onBothStores('consume - an iteration that has ended does not stop another consumption', async (w) => {
  const { queue, received } = await member(w)
  await queue.push(1)
  const old = queue.messages({ max: 1 })
  await old.next()
  await until(() => !queue.isConsuming(), { what: 'the end' })
  await queue.consume()
  await old.return?.()
  assert.ok(queue.isConsuming())
  await queue.push(2)
  await until(() => received.length === 1, { what: 'the message' })
})

onBothStores('consume - one object consumes once at a time', async (w) => {
  const { queue } = await member(w)
  await queue.consume()
  assert.ok((await rejectionOf(queue.consume())) instanceof AlreadyAttachedError)
  assert.throws(() => queue.messages(), AlreadyAttachedError)
  await queue.stop()
  await queue.stop()
  await queue.consume()
})

onBothStores('consume - throttle: a fetch waits until it says so', async (w) => {
  const { queue, received } = await member(w)
  const calls: (() => void)[] = []
  await pushAll(queue, upTo(3))
  await queue.consume({ throttle: (ready) => void calls.push(ready) })
  await until(() => calls.length === 1, { what: 'the throttle' })
  assert.equal(
    await soon(until(() => received.length > 0, { what: 'a message', timeout: 60 }).catch(() => 0)),
    0,
  )
  for (const count of [1, 2, 3]) {
    calls.at(-1)?.()
    calls.at(-1)?.()
    await until(() => received.length === count && calls.length === count + 1, { what: `message ${count}` })
  }
  assert.deepEqual(received, [1, 2, 3])
})

onBothStores('consume - as an iteration: a message is fetched when it is asked for', async (w) => {
  const { queue } = await member(w)
  await pushAll(queue, upTo(5))
  const seen: number[] = []
  for await (const { value, id, redelivered } of queue) {
    assert.equal(value, id)
    assert.equal(redelivered, 0)
    seen.push(value)
    if (value === 2) break
  }
  assert.deepEqual(seen, [1, 2])
  assert.equal(await queue.count(), 3)
  assert.ok(!queue.isConsuming())
  const iterator = queue.messages({ prefetch: 3 })
  assert.equal((await iterator.next()).value?.value, 3)
  // Two more were fetched.
  assert.equal(await queue.count(), 0)
  await iterator.return?.()
  assert.equal(await queue.count(), 2)
  const waiting = queue.messages()
  await waiting.next()
  await waiting.next()
  const last = waiting.next()
  await queue.close()
  assert.equal((await last).done, true)
})

onBothStores(
  'B2 consume - reliable: what is not acknowledged goes to another consumer, in order',
  async (w) => {
    const [producer, a, b] = [await member(w), await member(w), await member(w)]
    await pushAll(producer.queue, upTo(10))
    await a.queue.consume({ reliable: true, prefetch: 10 })
    await until(() => a.received.length === 10, { what: 'ten messages' })
    await a.queue.ack(4)
    await b.queue.consume({ reliable: true, prefetch: 10 })
    await a.queue.stop()
    await until(() => b.received.length === 6, { what: 'the other six' })
    assert.deepEqual(b.received, [5, 6, 7, 8, 9, 10])
    assert.deepEqual(
      b.infos.map(({ redelivered }) => redelivered),
      [1, 1, 1, 1, 1, 1],
    )
    await b.queue.ack(10)
    await b.queue.stop()
    assert.equal(await producer.queue.count(), 0)
  },
)

onBothStores('B2 consume - reliable holds one message by default, and several consumers share', async (w) => {
  const [producer, a, b] = [await member(w), await member(w), await member(w)]
  await a.queue.consume({ reliable: true })
  await b.queue.consume({ reliable: true })
  await pushAll(producer.queue, upTo(4))
  await until(() => a.received.length === 1 && b.received.length === 1, { what: 'one message each' })
  assert.deepEqual([...a.received, ...b.received].sort(), [1, 2])
  assert.equal(await producer.queue.count(), 2)
  await a.queue.ack(2)
  await until(() => a.received.length === 2, { what: 'the next' })
})

onBothStores(
  'B2 consume - ack acknowledges what this consumer received up to the id, and no other',
  async (w) => {
    const [producer, a, b] = [await member(w), await member(w), await member(w)]
    await a.queue.consume({ reliable: true })
    await producer.queue.push(1)
    await until(() => a.received.length === 1, { what: 'the first' })
    await b.queue.consume({ reliable: true })
    await producer.queue.push(2)
    await until(() => b.received.length === 1, { what: 'the second' })
    await b.queue.ack(2)
    await b.queue.stop()
    await a.queue.stop()
    await b.queue.consume({ reliable: true })
    await until(() => b.received.length === 2, { what: 'the first again' })
    assert.deepEqual(b.received, [2, 1])
  },
)

onBothStores('consume - last: what was received before, up to an id, is discarded', async (w) => {
  const { queue, received } = await member(w)
  await pushAll(queue, upTo(6))
  await queue.consume({ reliable: true, prefetch: 4 })
  await until(() => received.length === 4, { what: 'four messages' })
  await queue.stop()
  received.length = 0
  await queue.consume({ reliable: true, prefetch: 10, last: 3 })
  await until(() => received.length === 3, { what: 'the rest' })
  assert.deepEqual(received, [4, 5, 6])
})

onBothStores('B2 consume - key: one message of a key is held at a time, in order', async (w) => {
  const producer = await member(w)
  const consumers = await Promise.all([member(w), member(w), member(w)])
  const log: { key: string | undefined; value: number }[] = []
  const held = new Set<string>()
  const acks: Promise<void>[] = []
  for (const { queue } of consumers) {
    queue.on('message', (value, id, { key = '' }) => {
      assert.ok(!held.has(key), `two messages of ${key} at once`)
      held.add(key)
      log.push({ key, value })
      setTimeout(() => {
        held.delete(key)
        acks.push(queue.ack(id))
      }, Math.random() * 5)
    })
    await queue.consume({ reliable: true })
  }
  const keys = ['a', 'b', 'a:1', 'ä']
  await Promise.all(upTo(120).map((value) => producer.queue.push(value, { key: keys[value % 4] as string })))
  await until(() => log.length === 120, { what: 'the messages', timeout: 20_000 })
  await until(() => acks.length === 120, { what: 'the acknowledgements' })
  await Promise.all(acks)
  for (const key of keys) {
    const values = log.filter((entry) => entry.key === key).map(({ value }) => value)
    assert.deepEqual(
      values,
      [...values].sort((a, b) => a - b),
    )
    assert.equal(values.length, 30)
  }
})

onBothStores(
  'B3 consume - exclusive: one receives, and the next takes over with a higher fence',
  async (w) => {
    const [producer, a, b] = [await member(w), await member(w), await member(w)]
    await a.queue.consume({ exclusive: true })
    await b.queue.consume({ exclusive: true })
    await pushAll(producer.queue, upTo(50))
    await until(() => a.received.length === 50, { what: 'all of them' })
    assert.deepEqual(b.received, [])
    assert.equal(a.infos[0]?.fence, 1)
    await a.queue.stop()
    await pushAll(producer.queue, upTo(50))
    await until(() => b.received.length === 50, { what: 'all of the others' })
    assert.deepEqual(b.received, upTo(50))
    assert.equal(b.infos[0]?.fence, 2)
    await a.queue.consume({ exclusive: true })
    await b.queue.detach()
    await producer.queue.push(51)
    await until(() => a.received.at(-1) === 51, { what: 'the last' })
    assert.equal(a.infos.at(-1)?.fence, 3)
  },
)

onBothStores('consume - readers remove nothing: each gets every message, from where it begins', async (w) => {
  const [producer, a, b, c] = [await member(w), await member(w), await member(w), await member(w)]
  await pushAll(producer.queue, upTo(5))
  await a.queue.consume({ remove: false })
  await b.queue.consume({ remove: false, index: 3 })
  await pushAll(producer.queue, [6, 7])
  await until(() => a.received.length === 7 && b.received.length === 4, { what: 'the messages' })
  assert.deepEqual(a.received, upTo(7))
  assert.deepEqual(b.received, [4, 5, 6, 7])
  assert.equal(await producer.queue.count(), 7)
  await c.queue.consume({ max: 6 })
  await until(() => !c.queue.isConsuming(), { what: 'the consumer' })
  // It reads what is still there.
  await b.queue.stop()
  b.received.length = 0
  await b.queue.consume({ remove: false })
  await until(() => b.received.length === 1, { what: 'the rest' })
  assert.deepEqual(b.received, [7])
})

onBothStores('consume - a reader whose place is behind the last message begins there', async (w) => {
  const [producer, reader] = [await member(w), await member(w)]
  await pushAll(producer.queue, upTo(3))
  await reader.queue.consume({ remove: false, index: 1000, prefetch: 1 })
  let pushed = 3
  const goesOn = async () => {
    await producer.queue.push(++pushed)
    return reader.received.length > 2
  }
  await until(goesOn, { what: 'the reader to go on' })
  await until(() => reader.received.at(-1) === pushed, { what: 'the messages' })
  // The first time that it reads may come after a push.
  const [first = 0] = reader.received
  assert.ok(first > 3)
  assert.deepEqual(reader.received, upTo(pushed).slice(first - 1))
})

onBothStores('consume - a long log is read in order, in several fetches', async (w) => {
  const [producer, reader] = [await member(w), await member(w)]
  await pushAll(producer.queue, upTo(2000))
  await reader.queue.consume({ remove: false, prefetch: 1000 })
  await until(() => reader.received.length === 2000, { what: 'the log', timeout: 20_000 })
  assert.deepEqual(reader.received, upTo(2000))
})

onBothStores(
  'consume - a process that was attached and detached consumes nothing and holds nothing',
  async (w) => {
    const [a, b] = [await member(w), await member(w)]
    await pushAll(a.queue, upTo(10))
    await a.queue.consume({ reliable: true, prefetch: 5 })
    await until(() => a.received.length === 5, { what: 'five messages' })
    await a.queue.detach()
    assert.ok(!a.queue.isConsuming())
    await b.queue.consume({ reliable: true, prefetch: 10 })
    await until(() => b.received.length === 10, { what: 'all of them' })
    assert.deepEqual(b.received, upTo(10))
  },
)

onBothStores('consume - ack takes the id of a message and nothing else', async (w) => {
  const { queue, received } = await member(w)
  await queue.push(1)
  await queue.consume({ reliable: true })
  await until(() => received.length === 1, { what: 'the message' })
  for (const id of [Number.NaN, 0, -1, 1.5, '1', undefined, {}])
    assert.ok((await rejectionOf(queue.ack(id as number))) instanceof TypeError)
  await queue.stop()
  assert.equal(await queue.count(), 1)
})

onBothStores('consume - options that contradict each other are refused', async (w) => {
  const { queue } = await member(w)
  const wrong: ConsumeOptions[] = [
    ...[{ remove: false, reliable: true }, { remove: false, exclusive: true }, { index: 1 }, { last: 1 }],
    ...[{ max: 0 }, { max: 1.5 }, { prefetch: 0 }, { prefetch: 1001 }, { lease: 99 }],
    ...[{ reliable: 1 as never }, { throttle: 'x' as never }, { prefetched: 1 } as never],
  ]
  for (const options of wrong)
    assert.ok((await rejectionOf(queue.consume(options))) instanceof TypeError, JSON.stringify(options))
  assert.throws(() => queue.messages({ throttle: () => {} }), TypeError)
  assert.ok(!queue.isConsuming())
})
