import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { AlreadyAttachedError, QueueFullError } from '../../src/errors.ts'
import { upTo } from '../support/bus-scene.ts'
import { BusWire, type Received } from '../support/bus-wire.ts'
import { onCommands } from '../support/locker-scene.ts'
import { took, until } from '../support/wait.ts'

/** Number of bytes of the reply that arrive before the connection ends. */
const OFFSETS = [0, 1, 3, 30]

async function start(): Promise<BusWire> {
  const s = await BusWire.start()
  await s.isOld()
  return s
}

const valuesOf = (received: readonly Received[]) => received.map(({ value }) => value)
const idsOf = (received: readonly Received[]) => received.map(({ id }) => id)

describe('a reply is lost with the connection', { concurrency: 4 }, () => {
  test('B4 push - the message is there once, and the id is right', async () => {
    await using s = await start()
    const a = await s.open()
    const { queue } = await a.queue()
    for (const [n, bytes] of OFFSETS.entries()) {
      const isLost = a.lose('push', bytes)
      assert.equal(await queue.push(n), n + 1)
      await isLost()
      assert.equal(await queue.count(), n + 1)
    }
    assert.equal(queue.pushed(), OFFSETS.length)
  })

  test('B4 push - of several batches at once: each message is there once, in order', async () => {
    await using s = await start()
    const a = await s.open()
    const { queue, received } = await a.queue()
    let from = 1
    for (const bytes of OFFSETS) {
      const isLost = a.lose('push', bytes)
      const ids = await Promise.all(upTo(350, from).map((value) => queue.push(value)))
      await isLost()
      assert.deepEqual(ids, upTo(350, from))
      from += 350
    }
    await queue.consume()
    await until(() => received.length >= from - 1, { what: 'the messages' })
    assert.deepEqual(valuesOf(received), upTo(from - 1))
  })

  test('B4 push - into a queue with room for a part: the part is there once, the rest is refused', async () => {
    await using s = await start()
    const a = await s.open()
    for (const bytes of OFFSETS) {
      const { queue } = await a.queue(`q${bytes}`, { maxsize: 5 })
      const isLost = a.lose('push', bytes)
      const settled = await Promise.allSettled(upTo(8).map((value) => queue.push(value)))
      await isLost()
      const ids = settled.map((each) => (each.status === 'fulfilled' ? each.value : each.reason))
      assert.deepEqual(ids.slice(0, 5), upTo(5))
      for (const error of ids.slice(5)) assert.ok(error instanceof QueueFullError, String(error))
      assert.equal(await queue.count(), 5)
    }
  })

  test('B4 push - it is sent again when the server can be reached: with the same id', async () => {
    await using s = await start()
    const [a, b] = [await s.open(), await s.open()]
    const { queue } = await a.queue()
    const { queue: other } = await b.queue()
    const isLost = a.lose('push')
    const pushed = queue.push('a')
    await isLost()
    await a.proxy.refuse(true)
    await until(async () => (await other.count()) === 1, { what: 'the message' })
    assert.equal(await other.push('b'), 2)
    await a.mend()
    assert.equal(await pushed, 1)
    assert.equal(await other.count(), 2)
  })

  for (const options of [{}, { reliable: true, prefetch: 20 }, { exclusive: true }, { remove: false }]) {
    test(`B1 B2 take, read - ${JSON.stringify(options)}: each message is received once, in order`, async () => {
      await using s = await start()
      const [a, b] = [await s.open(), await s.open()]
      const { queue: producer } = await b.queue()
      const { received, queue } = await a.consumer(options)
      const script = 'remove' in options ? 'read' : 'take'
      let from = 1
      for (const bytes of [...OFFSETS, 200, 1000]) {
        const isLost = a.lose(script, bytes)
        await Promise.all(upTo(200, from).map((value) => producer.push(value)))
        from += 200
        await until(() => received.length >= from - 1, { what: 'the messages' })
        await isLost()
      }
      assert.deepEqual(valuesOf(received), upTo(from - 1))
      assert.ok(received.every(({ redelivered }) => redelivered === 0))
      assert.ok(received.every(({ fence }) => fence === ('exclusive' in options ? 1 : undefined)))
      await queue.stop()
      assert.equal(await producer.count(), 'remove' in options ? from - 1 : 0)
    })
  }

  for (const reliable of [false, true]) {
    test(`B1 B2 take - of messages that do not fit into one reply, ${reliable ? 'reliable' : 'default'}: none is lost or comes twice`, async () => {
      await using s = await start()
      const [a, b] = [await s.open(), await s.open()]
      const { queue: producer } = await b.queue()
      const pad = 'x'.repeat(60_000)
      const { received } = await a.consumer({ reliable, prefetch: 20 })
      let from = 1
      for (const bytes of [0, 30, 70_000, 190_000]) {
        const isLost = a.lose('take', bytes)
        for (const value of upTo(20, from)) void producer.push({ value, pad }).catch(() => {})
        from += 20
        await until(() => received.length >= from - 1, { what: 'the messages' })
        a.proxy.cut(onCommands)
        if (bytes < 1000) await isLost()
      }
      assert.deepEqual(idsOf(received), upTo(from - 1))
      assert.ok(received.every(({ redelivered }) => redelivered === 0))
    })

    test(`B1 B2 take - Redis is away for longer than unavailableAfter, ${reliable ? 'reliable' : 'default'}: none is lost or comes twice`, async () => {
      await using s = await start()
      const [a, b] = [await s.open({ unavailableAfter: 800 }), await s.open()]
      const { queue: producer } = await b.queue()
      const { received } = await a.consumer({ reliable, prefetch: 20 })
      let from = 1
      for (const bytes of OFFSETS) {
        const isLost = a.lose('take', bytes)
        await Promise.all(upTo(50, from).map((value) => producer.push(value)))
        await isLost()
        await a.cut()
        const away = await took(() => new Promise((resolve) => setTimeout(resolve, 1500)))
        assert.ok(away > 1400)
        await a.mend()
        from += 50
        await until(() => received.length >= from - 1, { what: 'the messages' })
      }
      assert.deepEqual(valuesOf(received), upTo(from - 1))
      assert.ok(received.every(({ redelivered }) => redelivered === 0))
    })
  }

  test('B2 ack - it holds: no other consumer gets the messages', async () => {
    await using s = await start()
    const [a, b] = [await s.open(), await s.open()]
    const { queue: other, received: second } = await b.queue()
    for (const bytes of OFFSETS) {
      const { queue, received } = await a.queue()
      const ids = await Promise.all(upTo(6).map((value) => other.push(value)))
      await queue.consume({ reliable: true, prefetch: 10 })
      await until(() => received.length === 6, { what: 'the messages' })
      const isLost = a.lose('take', bytes)
      await queue.ack(ids[3] as number)
      await isLost()
      await queue.detach()
      second.length = 0
      await other.consume({ reliable: true, prefetch: 10 })
      await until(() => second.length === 2, { what: 'the rest' })
      await other.ack(ids[5] as number)
      await other.stop()
      assert.deepEqual(idsOf(second), ids.slice(4))
      assert.equal(await other.count(), 0)
    }
  })

  test('B1 B2 stop - what was held is returned once, in order, with the right count', async () => {
    await using s = await start()
    const [a, b] = [await s.open(), await s.open()]
    const { queue: other, received } = await b.queue()
    for (const reliable of [false, true]) {
      for (const bytes of [0, 1]) {
        const { queue } = await a.queue()
        const ids = await Promise.all(upTo(10).map((value) => other.push(value)))
        const iteration = queue.messages({ reliable, prefetch: 8 })
        for (let n = 0; n < 3; n++) await iteration.next()
        if (reliable) await queue.ack(ids[0] as number)
        const isLost = a.lose('leave', bytes)
        await iteration.return?.()
        await isLost()
        await queue.detach()
        received.length = 0
        await other.consume({ reliable: true, prefetch: 10 })
        const rest = reliable ? 9 : 7
        await until(() => received.length === rest, { what: 'the rest' })
        await other.ack(ids[9] as number)
        await other.stop()
        assert.deepEqual(idsOf(received), ids.slice(10 - rest))
        assert.deepEqual(
          received.map(({ redelivered }) => redelivered),
          reliable ? [1, 1, 0, 0, 0, 0, 0, 0, 0] : upTo(7).map(() => 0),
        )
      }
    }
  })

  test('attach, detach - `existed` is right, and one attachment is made', async () => {
    await using s = await start()
    const [a, b] = [await s.open(), await s.open()]
    for (const bytes of OFFSETS) {
      const name = `q${bytes}`
      const [first, second] = [a.bus.queue(name), b.bus.queue(name)]
      const isLost = a.lose('attach', bytes)
      assert.equal(await first.attach(), false)
      await isLost()
      const isLostToo = b.lose('attach', bytes)
      assert.equal(await second.attach(), true)
      await isLostToo()
      assert.equal(await first.push(1), 1)
      await assert.rejects(first.attach(), AlreadyAttachedError)
      const isLeft = a.lose('detach')
      await first.detach()
      await isLeft()
      assert.equal(await s.t.server.call('ZCARD', `soloflight:1:b{${name}}L`), 1)
    }
  })

  test('consume, renew - the consumer goes on as one', async () => {
    await using s = await start()
    const [a, b] = [await s.open(), await s.open()]
    const { queue: producer } = await b.queue()
    for (const bytes of [0, 1]) {
      const isLost = a.lose('consume', bytes)
      const { queue, received } = await a.consumer({ reliable: true, lease: 1500, prefetch: 5 })
      await isLost()
      const isRenewed = a.lose('renew', bytes)
      await isRenewed()
      await Promise.all(upTo(20).map((value) => producer.push(value)))
      await until(() => received.length === 20, { what: 'the messages' })
      assert.ok(received.every(({ redelivered }) => redelivered === 0))
      await queue.detach()
    }
  })

  test('close - it succeeds, and the others are told once', async () => {
    await using s = await start()
    const [a, b] = [await s.open(), await s.open()]
    for (const bytes of [0, 1, 3]) {
      const [{ queue }, { queue: other }] = [await a.queue(`q${bytes}`), await b.queue(`q${bytes}`)]
      const closed: string[] = []
      queue.on('closed', () => closed.push('a'))
      other.on('closed', () => closed.push('b'))
      await queue.push(1)
      const isLost = a.lose('remove', bytes)
      await queue.close()
      await isLost()
      await until(() => closed.length === 2, { what: 'closed' })
      assert.equal(await queue.exists(), false)
      assert.equal(await queue.attach(), false)
      assert.equal(await queue.count(), 0)
      assert.deepEqual(closed.sort(), ['a', 'b'])
    }
  })

  test('channel - send, sendTo and end: each message arrives once, in order, and then the end', async () => {
    await using s = await start()
    const [a, b, c] = [await s.open(), await s.open(), await s.open()]
    const [local, remote] = [a.bus.channel('chat'), b.bus.channel('chat')]
    const log: unknown[] = []
    local.on('message', (value) => log.push(value))
    local.on('end', () => log.push('end'))
    await Promise.all([local.connect(), remote.listen()])
    for (const bytes of OFFSETS) {
      const isLost = b.lose('push', bytes)
      await Promise.all(upTo(150).map((value) => remote.send(`${bytes}/${value}`)))
      await isLost()
    }
    await until(() => log.length >= 600, { what: 'the messages' })
    assert.deepEqual(
      log,
      OFFSETS.flatMap((bytes) => upTo(150).map((value) => `${bytes}/${value}`)),
    )
    log.length = 0
    const third = c.bus.channel('chat')
    for (const [n, bytes] of OFFSETS.entries()) {
      const isLost = c.lose(n === 0 ? 'attach' : 'push', bytes)
      await third.sendTo('local', n)
      await isLost()
    }
    await until(() => log.length === 4, { what: 'the messages' })
    await third.sendTo('local', 4)
    const isLost = b.lose('push')
    const isRemoved = b.lose('remove')
    await remote.end()
    await Promise.all([isLost(), isRemoved()])
    await until(() => log.includes('end'), { what: 'the end' })
    assert.deepEqual(log, [0, 1, 2, 3, 4, 'end'])
    await until(() => !local.isAttached(), { what: 'both to leave' })
  })
})

describe('connections end', { concurrency: 2 }, () => {
  for (const who of ['producer', 'consumer'] as const) {
    for (const reliable of [false, true]) {
      test(`B1 B2 B4 the connection of a ${who} ends at any byte, ${reliable ? 'reliable' : 'default'}: each message arrives once, in order`, async () => {
        await using s = await start()
        const [a, b] = [await s.open(), await s.open()]
        const { queue } = await a.queue()
        const { received } = await b.consumer({ reliable, prefetch: 10 })
        const { proxy } = who === 'producer' ? a : b
        let from = 1
        for (const direction of ['up', 'down'] as const) {
          for (const bytes of [1, 20, 100, 400, 900, 2000, 5000]) {
            const fault = proxy.cutAfter(bytes, direction, { only: onCommands })
            const ids = await Promise.all(upTo(60, from).map((value) => queue.push(value)))
            assert.deepEqual(ids, upTo(60, from))
            from += 60
            await until(() => received.length >= from - 1, { what: 'the messages' })
            fault.clear()
          }
        }
        assert.deepEqual(valuesOf(received), upTo(from - 1))
        assert.ok(received.every(({ redelivered }) => redelivered === 0))
      })
    }
  }

  for (const options of [{}, { reliable: true, prefetch: 5 }, { exclusive: true, reliable: true }]) {
    test(`B1 B2 CLIENT KILL - of all subscribers while 1,000 messages are consumed, ${JSON.stringify(options)}: all arrive in order`, async () => {
      await using s = await start()
      const [a, b] = [await s.open(), await s.open()]
      const { queue } = await a.queue()
      const { received } = await b.consumer(options)
      for (let from = 1; from <= 1000; from += 20) {
        await Promise.all(upTo(20, from).map((value) => queue.push(value)))
        if (from % 100 === 1) await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      }
      await until(() => received.length >= 1000, { what: 'the messages' })
      assert.deepEqual(valuesOf(received), upTo(1000))
    })
  }

  test('B1 black hole - of the subscription of a consumer: what is pushed meanwhile arrives when that is noticed', async () => {
    await using s = await start()
    const [a, b] = [await s.open(), await s.open()]
    const { queue } = await a.queue()
    const { received } = await b.consumer()
    await queue.push(1)
    await until(() => received.length === 1, { what: 'the first' })
    b.holeSubscription()
    for (const value of upTo(10, 2)) await queue.push(value)
    const ms = await took(() => until(() => received.length >= 11, { what: 'the messages' }))
    assert.ok(ms < 3500, `after ${ms} ms`)
    assert.deepEqual(valuesOf(received), upTo(11))
  })
})
