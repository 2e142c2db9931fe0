// Queues: attaching, pushing, the life of a queue, its metadata and its limits.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  AlreadyAttachedError,
  ClosedError,
  CodecError,
  NotAttachedError,
  QueueFullError,
  TooLargeError,
} from '../../src/errors.ts'
import { onBothStores } from '../support/bus.ts'
import { rejectionOf, soon, timed, until } from '../support/wait.ts'

onBothStores('queues - the first process to attach makes the queue, with its ttl and maxsize', async (w) => {
  const [a, b] = [w.open().queue('q'), w.open().queue('q')]
  const events: unknown[] = []
  for (const event of ['attaching', 'attached', 'detaching', 'detached'] as const)
    a.on(event, (...args: unknown[]) => events.push([event, ...args]))
  assert.equal(await a.exists(), false)
  assert.equal(await a.ttl(), null)
  assert.equal(await a.maxsize(), null)
  assert.equal(await a.count(), 0)
  assert.equal(await a.find(), null)
  assert.equal(await a.attach({ ttl: 5000, maxsize: 3 }), false)
  assert.equal(await b.attach({ ttl: 77_000, maxsize: 9 }), true)
  assert.equal(await b.maxsize(), 3)
  const ttl = await b.ttl()
  assert.ok(ttl !== null && ttl > 3000 && ttl <= 5000, `ttl is ${ttl}`)
  assert.equal(await b.exists(), true)
  assert.equal(typeof (await b.find()), 'string')
  assert.ok(a.isAttached())
  await a.detach()
  assert.ok(!a.isAttached())
  assert.deepEqual(events, [['attaching'], ['attached', false], ['detaching'], ['detached']])
})

onBothStores('queues - an object attaches once at a time, and can attach again', async (w) => {
  const queue = w.open().queue('q')
  await queue.attach()
  assert.ok((await rejectionOf(queue.attach())) instanceof AlreadyAttachedError)
  const detached: unknown[] = []
  queue.on('detached', () => detached.push(1))
  await Promise.all([queue.detach(), queue.detach(), queue.attach()])
  assert.equal(detached.length, 1)
  assert.ok(queue.isAttached())
  await queue.detach()
  await queue.detach()
  assert.equal(detached.length, 2)
})

onBothStores('B4 queues - many processes attach at once: one has made the queue', async (w) => {
  const queues = Array.from({ length: 20 }, () => w.open().queue('q'))
  const existed = await Promise.all(queues.map((queue) => queue.attach()))
  assert.equal(existed.filter((did) => !did).length, 1)
})

onBothStores('queues - ids count up from 1, in the order of the pushes, in all processes', async (w) => {
  const [a, b] = [w.open().queue<number>('q'), w.open().queue<number>('q')]
  await a.attach()
  await b.attach()
  assert.deepEqual(await Promise.all([1, 2, 3].map((value) => a.push(value))), [1, 2, 3])
  assert.equal(await b.push(4), 4)
  assert.equal(await a.count(), 4)
  assert.equal(a.pushed(), 3)
  assert.equal(b.pushed(), 1)
})

onBothStores('queues - what is pushed and consumed before attach is done then, in order', async (w) => {
  const [a, b] = [w.open().queue<number>('q'), w.open().queue<number>('q')]
  const pushes = [1, 2, 3].map((value) => a.push(value))
  assert.equal(await soon(Promise.race(pushes), 50), 'pending')
  const received: number[] = []
  b.on('message', (value) => received.push(value))
  await b.consume()
  assert.ok(b.isConsuming())
  await a.attach()
  assert.deepEqual(await Promise.all(pushes), [1, 2, 3])
  await b.attach()
  await until(() => received.length === 3, { what: 'the messages' })
  assert.deepEqual(received, [1, 2, 3])
})

onBothStores('queues - after detach, pushes wait for the next attach', async (w) => {
  const queue = w.open().queue<string>('q')
  await queue.attach()
  const before = queue.push('before')
  await queue.detach()
  assert.equal(await before, 1)
  const after = queue.push('after')
  assert.equal(await soon(after, 50), 'pending')
  await queue.attach()
  assert.equal(await after, 2)
  assert.equal(await queue.count(), 2)
})

onBothStores('queues - a message of every kind arrives as it was, large ones too', async (w) => {
  const [a, b] = [w.open().queue<unknown>('q'), w.open().queue<unknown>('q')]
  await a.attach()
  await b.attach()
  const values = [
    ...[null, true, 0, -0, Number.NaN, '', 'ä\0\r\n', '\ud800', 'x'.repeat(1_000_000)],
    ...[[], { a: [1, { b: undefined }] }, Buffer.from([0, 10, 13, 255]), undefined],
    JSON.parse('{"__proto__":{"polluted":1}}'),
  ]
  for (const value of values) await a.push(value)
  const received: unknown[] = []
  b.on('message', (value) => received.push(value))
  await b.consume()
  await until(() => received.length === values.length, { what: 'the messages' })
  assert.deepEqual(received, values)
})

onBothStores('queues - what cannot be pushed is refused at once, and nothing else', async (w) => {
  const queue = w.open({ maxMessage: 1000 }).queue<unknown>('q')
  await queue.attach()
  assert.ok((await rejectionOf(queue.push('x'.repeat(1000)))) instanceof TooLargeError)
  assert.ok((await rejectionOf(queue.push(() => {}))) instanceof CodecError)
  for (const key of ['', 'x'.repeat(257), 7 as never, '\ud800'])
    assert.ok((await rejectionOf(queue.push(1, { key }))) instanceof TypeError)
  assert.ok((await rejectionOf(queue.push(1, { wait: -1 }))) instanceof TypeError)
  assert.ok((await rejectionOf(queue.push(1, { waits: 1 } as never))) instanceof TypeError)
  assert.equal(await queue.push('y'.repeat(900)), 1)
})

onBothStores('queues - maxsize: a full queue refuses, and takes again when there is room', async (w) => {
  const [a, b] = [w.open().queue<number>('q'), w.open().queue<number>('q')]
  await a.attach({ maxsize: 2 })
  await b.attach()
  const pushed = await Promise.allSettled([1, 2, 3, 4].map((value) => a.push(value)))
  assert.deepEqual(
    pushed.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected', 'rejected'],
  )
  assert.ok((await rejectionOf(b.push(5))) instanceof QueueFullError)
  const { ms } = await timed(rejectionOf(b.push(5, { wait: 300 })))
  assert.ok(ms >= 290 && ms < 2000, `waited ${ms} ms`)
  const waiting = [6, 7].map((value) => b.push(value, { wait: 10_000 }))
  assert.equal(await soon(Promise.race(waiting), 50), 'pending')
  const received: number[] = []
  a.on('message', (value) => received.push(value))
  await a.consume()
  await Promise.all(waiting)
  await until(() => received.length === 4, { what: 'the messages' })
  assert.deepEqual(received, [1, 2, 6, 7])
})

onBothStores(
  'queues - a push waits for room no longer than it says, also behind others and after detach',
  async (w) => {
    const queue = w.open().queue<number>('q')
    await queue.attach({ maxsize: 1 })
    await queue.push(0)
    const first = rejectionOf(queue.push(1, { wait: 900 }))
    assert.equal(await soon(first, 50), 'pending')
    const outcomes = await Promise.all([
      timed(() => rejectionOf(queue.push(2))),
      timed(() => rejectionOf(queue.push(3, { wait: 100 }))),
    ])
    for (const [index, { value, ms }] of outcomes.entries()) {
      assert.ok(value instanceof QueueFullError)
      assert.ok(ms < 600, `push ${index} took ${ms} ms`)
    }
    await queue.detach()
    assert.ok((await first) instanceof QueueFullError)
  },
)

onBothStores('queues - detach while it attaches leaves it detached', async (w) => {
  const queue = w.open().queue<number>('q')
  const attaching = queue.attach()
  await queue.detach()
  await attaching
  assert.ok(!queue.isAttached())
})

onBothStores('queues - a producer that waits for room goes on as soon as there is some', async (w) => {
  const [a, b] = [w.open().queue<number>('q'), w.open().queue<number>('q')]
  await a.attach({ maxsize: 1 })
  await b.attach()
  let received = 0
  b.on('message', () => received++)
  await b.consume()
  // Without the announcement of room each of them would wait for a second.
  const { ms } = await timed(async () => {
    for (let n = 0; n < 200; n++) await a.push(n, { wait: 10_000 })
  })
  await until(() => received === 200, { what: 'the messages' })
  assert.ok(ms < 20_000, `200 pushes took ${ms} ms`)
})

onBothStores('queues - flush removes all messages, and ids go on', async (w) => {
  const queue = w.open().queue<number>('q')
  assert.equal(await queue.flush(), 0)
  await queue.attach()
  await Promise.all([1, 2, 3].map((value) => queue.push(value)))
  assert.equal(await queue.flush(), 3)
  assert.equal(await queue.count(), 0)
  assert.equal(await queue.push(4), 4)
})

onBothStores('queues - close reaches every attached process, and removes the messages', async (w) => {
  const [a, b] = [w.open().queue<number>('q'), w.open().queue<number>('q')]
  await a.attach()
  await b.attach()
  await a.push(1)
  await b.consume()
  const closed = [once(a, 'closed'), once(b, 'closed')]
  await a.close()
  await Promise.all(closed)
  assert.ok(!a.isAttached() && !b.isAttached() && !b.isConsuming())
  assert.equal(await a.exists(), false)
  assert.ok((await rejectionOf(a.close())) instanceof NotAttachedError)
  assert.equal(await b.attach(), false)
  assert.equal(await b.push(2), 1)
})

onBothStores('queues - the queue lives while somebody is attached, and ttl after that', async (w) => {
  const [a, b] = [w.open().queue('q'), w.open().queue('q')]
  await a.attach({ ttl: 300 })
  await a.push('kept')
  await new Promise((resolve) => setTimeout(resolve, 1000))
  assert.equal(await b.count(), 1)
  await a.detach()
  assert.equal(await b.exists(), true)
  await until(async () => !(await b.exists()), { what: 'the queue to expire' })
  assert.equal(await b.attach(), false)
})

onBothStores('queues - metadata: one, several, all, and values that are empty', async (w) => {
  const [a, b] = [w.open().queue('q'), w.open().queue('q')]
  assert.equal(await a.metadata('key', 1), false)
  assert.deepEqual(await a.metadata(), {})
  await a.attach()
  assert.equal(await a.metadata('ttl', 0), true)
  assert.equal(await a.metadata({ maxsize: '', source: [1], 'ä\0': null }), true)
  assert.equal(await b.metadata('ttl'), 0)
  assert.equal(await b.metadata('maxsize'), '')
  for (const name of ['missing', 'toString', '__proto__']) assert.equal(await b.metadata(name), undefined)
  assert.deepEqual(await b.metadata(), { ttl: 0, maxsize: '', source: [1], 'ä\0': null })
  assert.equal(await b.maxsize(), 0)
  await a.close()
  assert.deepEqual(await b.metadata(), {})
})

onBothStores('queues - names of every kind are different queues; others are refused', async (w) => {
  const bus = w.open()
  const names = [
    'q',
    'Q',
    ' q',
    'q{',
    '}{q}',
    'ä',
    'ä'.normalize('NFD'),
    'x'.repeat(256),
    '*',
    'a\nb',
    '__proto__',
  ]
  const queues = names.map((name) => bus.queue<string>(name))
  for (const queue of queues) assert.equal(await queue.attach(), false)
  for (const queue of queues) await queue.push(queue.name)
  for (const queue of queues) {
    const [received] = await Promise.all([once(queue, 'message'), queue.consume()])
    assert.equal(received[0], queue.name)
  }
  for (const name of ['', 'x'.repeat(257), '\ud800', '\0q', 7, null, undefined])
    assert.throws(() => bus.queue(name as string), TypeError)
})

onBothStores('queues - 10,000 messages over 100 queues in one go', async (w) => {
  const [a, b] = [w.open(), w.open()]
  const received = new Map<string, number[]>()
  const queues = Array.from({ length: 100 }, (_, n) => `q${n}`)
  await Promise.all(
    queues.map(async (name) => {
      const [producer, consumer] = [a.queue<number>(name), b.queue<number>(name)]
      const values: number[] = []
      received.set(name, values)
      consumer.on('message', (value) => values.push(value))
      await Promise.all([producer.attach(), consumer.attach()])
      await consumer.consume()
      await Promise.all(Array.from({ length: 100 }, (_, n) => producer.push(n)))
    }),
  )
  const total = () => [...received.values()].reduce((sum, { length }) => sum + length, 0)
  await until(() => total() === 10_000, { what: 'all messages', timeout: 20_000 })
  for (const values of received.values())
    assert.deepEqual(
      values,
      Array.from({ length: 100 }, (_, n) => n),
    )
})

onBothStores('queues - after disconnect every call is refused, and what waits is rejected', async (w) => {
  const bus = w.open()
  const [queue, waiting] = [bus.queue('q'), bus.queue('w')]
  await queue.attach()
  await waiting.attach({ maxsize: 1 })
  await waiting.push(1)
  const push = rejectionOf(waiting.push(2, { wait: 60_000 }))
  await bus.disconnect()
  assert.ok((await push) instanceof ClosedError)
  for (const call of [() => queue.attach(), () => queue.push(1), () => queue.consume(), () => queue.count()])
    assert.ok((await rejectionOf(call())) instanceof ClosedError)
})
