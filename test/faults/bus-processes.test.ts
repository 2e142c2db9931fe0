import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Note } from '../support/bus-protocol.ts'
import { type BusChild, BusScene, upTo } from '../support/bus-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

const LEASE = 1500

/** What a dead process held goes on within this time, ms. */
const TAKEN_OVER = LEASE + 1000 + EPSILON

const valuesOf = (notes: readonly Note[]) => notes.map(({ value }) => value as number)

/** Attaches the processes, and a queue object of this one. */
async function attached(s: BusScene, children: readonly BusChild[] = s.children, ttl = 30_000) {
  const queue = s.bus.queue<number>('q')
  await queue.attach({ ttl })
  await Promise.all(children.map((child) => child.call('attach', 'q', { ttl })))
  return queue
}

function assertOnce(values: readonly number[], expected: readonly number[]): void {
  assert.deepEqual(
    [...values].sort((a, b) => a - b),
    expected,
  )
}

function assertAscends(values: readonly number[]): void {
  const late = values.findIndex((value, index) => index > 0 && value < (values[index - 1] ?? 0))
  assert.equal(late, -1, `${values[late]} after ${values[late - 1]}`)
}

// These tests mostly wait for leases to end, so two run at a time.
describe('processes of a bus that fail', { concurrency: 2 }, () => {
  test('B2 kill - of a reliable consumer: what it has not acknowledged goes to another, in order, once', async () => {
    await using s = await BusScene.start(3)
    const [a, b, c] = [s.at(0), s.at(1), s.at(2)]
    const queue = await attached(s)
    const terms = { reliable: true, prefetch: 10, lease: LEASE }
    await a.call('consume', 'q', terms)
    for (const value of upTo(10)) await queue.push(value)
    await s.received(10, a)
    await a.call('ack', 'q', 4)
    await b.call('consume', 'q', terms)
    await c.call('consume', 'q', terms)
    const since = performance.now()
    await a.kill()
    await until(async () => (await s.notes('message')).length >= 16, { what: 'the other six' })
    assert.ok(performance.now() - since < TAKEN_OVER, `after ${performance.now() - since} ms`)
    const again = (await s.notes('message')).slice(10)
    assert.deepEqual(
      again.map(({ value, id, redelivered }) => [value, id, redelivered]),
      upTo(6, 5).map((id) => [id, id, 1]),
    )
    for (const child of [b, c])
      if ((await s.notes('message', child)).length > 0) await child.call('ack', 'q', 10)
    await queue.push(11)
    await s.received(17)
    assert.equal(await queue.count(), 0)
  })

  test('B2 kill - again and again: a message that was not acknowledged comes back with a count', async () => {
    await using s = await BusScene.start(1)
    const queue = await attached(s)
    const terms = { reliable: true, prefetch: 3, lease: 1000 }
    for (const value of upTo(3)) await queue.push(value)
    for (let round = 0; round < 3; round++) {
      const child = s.at(round)
      await child.call('consume', 'q', terms)
      const notes = await s.received(3, child)
      assert.deepEqual(
        notes.map(({ value, redelivered }) => [value, redelivered]),
        upTo(3).map((value) => [value, round]),
      )
      await child.kill()
      await (await s.add()).call('attach', 'q', {})
    }
  })

  for (const prefetch of [50, 1]) {
    test(`B1 kill - of a default consumer in the middle of 5,000 messages: none twice, at most ${prefetch} lost, in order`, async () => {
      await using s = await BusScene.start(3)
      const queue = await attached(s)
      const [a] = s.children
      for (const child of s.children) await child.call('consume', 'q', { prefetch, lease: LEASE })
      for (let from = 1; from <= 5000; from += 100) {
        await Promise.all(upTo(100, from).map((value) => queue.push(value)))
        if (from === 2501) {
          await s.received(1, a)
          await a?.kill()
        }
      }
      const isOver = async () => {
        const { length } = await s.notes('message')
        return length >= 5000 - prefetch && (await queue.count()) === 0
      }
      await until(isOver, { what: 'the messages', timeout: 20_000, every: 50 })
      const values = valuesOf(await s.notes('message'))
      assert.equal(new Set(values).size, values.length, 'none is received twice')
      assert.ok(values.length >= 5000 - prefetch, `${5000 - values.length} are lost`)
      for (const child of s.children) assertAscends(valuesOf(await s.notes('message', child)))
      // After the lease of the dead one, nothing more comes.
      await sleep(LEASE)
      assert.equal((await s.notes('message')).length, values.length)
    })
  }

  test('B3 kill - of an exclusive consumer: the next one within the lease, with a higher fence, in order', async () => {
    await using s = await BusScene.start(3)
    const queue = await attached(s)
    const terms = { exclusive: true, reliable: true, prefetch: 5, lease: LEASE, acks: true }
    for (const child of s.children) await child.call('consume', 'q', terms)
    let next = 1
    const fences: number[] = []
    for (let round = 0; round < 3; round++) {
      const before = (await s.notes('message')).length
      const since = performance.now()
      for (const value of upTo(20, next)) await queue.push(value)
      next += 20
      const notes = await until(
        async () => {
          const all = (await s.notes('message')).slice(before)
          return valuesOf(all).includes(next - 1) && all
        },
        { what: 'the messages' },
      )
      if (round > 0) assert.ok(performance.now() - since < TAKEN_OVER, `${performance.now() - since} ms`)
      assert.equal(new Set(notes.map(({ pid }) => pid)).size, 1, 'one receives')
      const [fence = 0] = notes.map((note) => note.fence)
      assert.deepEqual([...new Set(notes.map((note) => note.fence))], [fence])
      fences.push(fence)
      // What was not acknowledged in time comes again, in order.
      assertAscends(valuesOf(notes))
      const holder = s.children.find(({ pid }) => pid === notes[0]?.pid)
      await holder?.kill()
    }
    assert.deepEqual(
      fences,
      [...new Set(fences)].sort((x, y) => x - y),
    )
  })

  for (const reliable of [true, false]) {
    for (const how of ['events', 'iteration'] as const) {
      test(`B3 SIGSTOP - of the exclusive consumer beyond its lease, ${how}, ${reliable ? 'reliable' : 'default'}: what it has fetched it does not hand over, and it goes on when it is its turn`, async () => {
        await using s = await BusScene.start(2)
        const [a, b] = [s.at(0), s.at(1)]
        const queue = await attached(s)
        const terms = { exclusive: true, reliable, prefetch: 5, lease: LEASE }
        for (const value of upTo(20)) await queue.push(value)
        const isIterated = how === 'iteration'
        const begun = a.call('consume', 'q', {
          ...terms,
          ...(isIterated ? { iterates: 2 } : { blocks: 250 }),
        })
        if (isIterated) await begun
        await s.received(2, a)
        await a.freeze()
        const before = await s.notes('message', a)
        await b.call('consume', 'q', { ...terms, acks: true })
        // A default consumer takes what it has fetched with it.
        const firstOfB = reliable ? 1 : 6
        const since = performance.now()
        await s.received(21 - firstOfB, b)
        assert.ok(performance.now() - since < TAKEN_OVER, `after ${performance.now() - since} ms`)
        a.thaw()
        if (isIterated) a.call('iterate', 'q', 100).catch(() => {})
        await queue.push(21)
        await s.received(22 - firstOfB, b)
        await sleep(LEASE)
        assert.deepEqual(valuesOf(await s.notes('message', b)), upTo(22 - firstOfB, firstOfB))
        const after = await s.notes('message', a)
        assert.deepEqual(after, before, 'it hands over nothing more')
        await b.kill()
        await queue.push(22)
        const notes = await until(
          async () => {
            const all = (await s.notes('message', a)).slice(before.length)
            return valuesOf(all).includes(22) && all
          },
          { what: 'its turn', timeout: TAKEN_OVER },
        )
        assert.deepEqual(valuesOf(notes).slice(-1), [22])
        const fenceOfB = (await s.notes('message', b))[0]?.fence ?? 0
        assert.ok((before[0]?.fence ?? 0) < fenceOfB)
        for (const { fence = 0 } of notes) assert.ok(fence > fenceOfB)
      })
    }
  }

  for (const how of ['SIGSTOP', 'event loop'] as const) {
    test(`${how} - beyond the ttl: it is detached, and says so; it can attach again; the messages are there`, async () => {
      await using s = await BusScene.start(1)
      const ttl = 1500
      const [a] = s.children as [BusChild]
      const queue = await attached(s, s.children, ttl)
      await a.call('consume', 'q', { reliable: true, prefetch: 2, lease: 1000 })
      for (const value of upTo(5)) await queue.push(value)
      await s.received(2, a)
      if (how === 'SIGSTOP') {
        await a.freeze()
        await sleep(2 * ttl)
        a.thaw()
      } else await a.call('block', 2 * ttl)
      await a.next('detached', undefined, 2000)
      assert.equal(await a.call('isAttached', 'q'), false)
      assert.equal(await a.call('isConsuming', 'q'), false)
      assert.deepEqual(await s.notes('closed'), [])
      assert.equal(await queue.count(), 5)
      assert.equal(await a.call('attach', 'q', { ttl }), true)
      await a.call('consume', 'q', { reliable: true, prefetch: 10, lease: 1000 })
      const notes = (await s.received(7, a)).slice(2)
      assert.deepEqual(
        notes.map(({ value, redelivered }) => [value, redelivered]),
        upTo(5).map((value) => [value, value <= 2 ? 1 : 0]),
      )
    })
  }

  test('SIGSTOP - of the only process beyond the ttl: the queue has expired, and it learns both', async () => {
    await using s = await BusScene.start(1)
    const a = s.at(0)
    assert.equal(await a.call('attach', 'q', { ttl: 1000 }), false)
    await a.call('consume', 'q', { lease: 1000 })
    await a.freeze()
    await sleep(2000)
    a.thaw()
    await a.next('detached', undefined, 2000)
    await a.next('closed', undefined, 2000)
    assert.equal(await a.call('attach', 'q', { ttl: 1000 }), false)
    await a.call('consume', 'q', { lease: 1000 })
    const queue = await attached(s, [])
    await queue.push(1)
    await s.received(1, a)
  })

  test('B4 kill - of a producer in the middle of a batch: each push that was acknowledged is there once', async () => {
    await using s = await BusScene.start(1)
    const queue = await attached(s)
    s.at(0)
      .call('produce', 'q', 1, 250)
      .catch(() => {})
    await until(async () => (await s.notes('pushed')).length > 1000, { what: 'pushes', every: 1 })
    await s.at(0).kill()
    const pushed = await s.notes('pushed')
    const count = await queue.count()
    const read: { value: number; id: number }[] = []
    queue.on('message', (value, id) => read.push({ value, id }))
    await queue.consume({ remove: false })
    await until(() => read.length >= count, { what: 'all messages' })
    assert.deepEqual(
      read,
      upTo(count).map((value) => ({ value, id: value })),
    )
    for (const { value, id } of pushed) assert.equal(value, id)
    assertOnce(valuesOf(pushed), upTo(pushed.length))
    assert.ok(pushed.length <= count && count <= pushed.length + 250, `${pushed.length} of ${count}`)
  })

  test('kill - of a peer of a channel: the other is told within the lease, and a newcomer takes the role', async () => {
    await using s = await BusScene.start(3)
    const [a, b, c] = [s.at(0), s.at(1), s.at(2)]
    await Promise.all([
      a.call('connect', 'chat', { as: 'local', lease: LEASE }),
      b.call('connect', 'chat', { as: 'remote', lease: LEASE }),
    ])
    await b.next('remote:connect')
    await b.call('send', 'chat', [1, 2])
    await s.received(2, a)
    const waiting = c.call('connect', 'chat', { as: 'local', lease: LEASE })
    const since = performance.now()
    await a.kill()
    await b.call('send', 'chat', [3, 4])
    await b.next('remote:disconnect', undefined, TAKEN_OVER)
    assert.ok(performance.now() - since < TAKEN_OVER, `after ${performance.now() - since} ms`)
    await waiting
    assert.ok(performance.now() - since < TAKEN_OVER, `after ${performance.now() - since} ms`)
    await b.next('remote:connect')
    // A default consumer may have taken what was sent to it after it had died.
    await b.call('send', 'chat', [5])
    await until(async () => valuesOf(await s.notes('message', c)).includes(5), { what: 'the message' })
    await c.call('send', 'chat', [6])
    await s.received(1, b)
    assert.equal((await s.notes('remote:connect', b)).length, 2)
    assert.equal((await s.notes('remote:disconnect', b)).length, 1)
  })

  test('kill - of a peer of a reliable channel: what it has not acknowledged comes to the next, in order', async () => {
    await using s = await BusScene.start(3)
    const [a, b, c] = [s.at(0), s.at(1), s.at(2)]
    const terms = { lease: LEASE, reliable: true, prefetch: 10 }
    await Promise.all([
      a.call('connect', 'chat', { as: 'local', ...terms }),
      b.call('connect', 'chat', { as: 'remote', ...terms }),
    ])
    await b.call('send', 'chat', upTo(5))
    await s.received(5, a)
    await a.kill()
    await b.call('send', 'chat', upTo(5, 6))
    await c.call('connect', 'chat', { as: 'local', ...terms })
    const notes = await s.received(10, c)
    assert.deepEqual(
      notes.map(({ value, redelivered }) => [value, redelivered]),
      upTo(10).map((value) => [value, value <= 5 ? 1 : 0]),
    )
  })

  for (const reliable of [false, true]) {
    test(`B1 SIGTERM - of a ${reliable ? 'reliable' : 'default'} consumer with a grace, under load: no message is lost, none comes twice`, async () => {
      await using s = await BusScene.start(3)
      const queue = await attached(s)
      const [a] = s.children
      const terms = { prefetch: 20, lease: 10_000, reliable, acks: reliable }
      for (const child of s.children) await child.call('consume', 'q', terms)
      let ending: Promise<void> | undefined
      for (let from = 1; from <= 5000; from += 100) {
        await Promise.all(upTo(100, from).map((value) => queue.push(value)))
        if (from === 2501) ending = a?.kill('SIGTERM')
      }
      await ending
      assert.deepEqual(await a?.exited, { code: 0, signal: null })
      await s.received(5000, undefined, 20_000)
      const notes = await s.notes('message')
      assertOnce(valuesOf(notes), upTo(5000))
      assert.ok(notes.every(({ redelivered }) => redelivered === 0))
      assert.equal(await queue.count(), 0)
    })
  }

  test('B2 kill - of one of three reliable consumers: the messages of each key are handled in order', async () => {
    await using s = await BusScene.start(3)
    const queue = await attached(s)
    const terms = { reliable: true, prefetch: 10, lease: LEASE, acks: true, blocks: 2 }
    for (const child of s.children) await child.call('consume', 'q', terms)
    const keys = ['a', 'b', '{c}', 'd d', 'é']
    const count = 500
    for (const value of upTo(count)) await queue.push(value, { key: keys[value % keys.length] as string })
    await s.received(50)
    const [a] = s.children
    await a?.kill()
    const isOver = async () => new Set(valuesOf(await s.notes('message'))).size === count
    await until(isOver, { what: 'all messages', timeout: 20_000, every: 20 })
    const notes = await s.notes('message')
    for (const key of keys) {
      const ofKey = notes.filter((note) => note.key === key)
      assertAscends(valuesOf(ofKey))
      for (const { value, redelivered } of ofKey) {
        const times = ofKey.filter((note) => note.value === value)
        assert.ok(times.length === 1 || redelivered === times.findIndex((n) => n.redelivered === redelivered))
      }
    }
    assert.ok(notes.length <= count + 10)
  })

  test('U4 kill - of the only process: the queue expires after its ttl, and no key of it is left', async () => {
    await using s = await BusScene.start(1)
    const ttl = 1500
    const queue = await attached(s, s.children, ttl)
    await s.at(0).call('consume', 'q', { reliable: true, lease: 1000 })
    for (const value of upTo(5)) await queue.push(value, { key: 'k' })
    await queue.metadata('name', 'value')
    await s.received(1)
    await queue.detach()
    await s.at(0).kill()
    const since = performance.now()
    assert.equal(await queue.exists(), true)
    const keys = async () => ((await s.t.server.call('KEYS', '*b{q}*')) as unknown[]).map(String)
    for (const key of await keys())
      assert.ok(Number(await s.t.server.call('PTTL', key)) <= ttl + 60_000, `${key} is kept for long`)
    await until(async () => !(await queue.exists()), { what: 'the expiry' })
    assert.ok(performance.now() - since > ttl - 1000, 'not before')
    assert.ok(performance.now() - since < ttl + 1000 + EPSILON, `after ${performance.now() - since} ms`)
    assert.deepEqual(await keys(), [])
  })
})
