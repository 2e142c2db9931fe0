import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Locker, MemoryStore } from '../../src/index.ts'
import { LOG_GRACE } from '../../src/locker/stream/log/log-store.ts'
import { LogViews, TailBuffer } from '../../src/locker/stream/log/log-view.ts'
import { MemoryLogHub } from '../../src/locker/stream/log/memory-log-store.ts'
import { RetentionWindow } from '../../src/locker/stream/producing/log-writer.ts'
import { ChunkSource } from '../../src/locker/stream/producing/producer.ts'
import { streamRecordCodec } from '../../src/locker/stream/stream-record.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { all, reached, reading, some, Tap } from '../support/stream-scene.ts'

const bytes = (...numbers: number[]) => numbers.map((number) => Buffer.from([number]))

describe('stream - expiry', () => {
  test('a stream without a chunk for an hour is retained, and its readers stay', async () => {
    const clock = new ManualClock()
    const store = new MemoryStore({ clock })
    const options = { store, maxHold: Number.POSITIVE_INFINITY, timeout: Number.POSITIVE_INFINITY }
    const [here, there] = [new Locker(options), new Locker(options)]
    const tap = new Tap<number>().push(1)
    const first = reading(here.stream('k', tap.work))
    await settled()
    await clock.pass(60 * 60_000)
    const late = reading(there.stream('k', tap.work))
    await settled()
    assert.deepEqual([first.chunks, late.chunks], [[1], [1]])
    tap.push(2).end()
    await settled()
    for (const { done } of [first, late]) assert.deepEqual(await done, { chunks: [1, 2], error: undefined })
    assert.equal(tap.runs.length, 1)
    await Promise.all([here.close({ grace: 0 }), there.close({ grace: 0 })])
  })

  test('a complete stream is kept for its ttl, although no reader takes it', async () => {
    const clock = new ManualClock()
    const options = { store: new MemoryStore({ clock }), timeout: Number.POSITIVE_INFINITY }
    const [here, there] = [new Locker(options), new Locker(options)]
    await all(here.stream('k', () => [1, 2], { ttl: 3_600_000 }))
    await clock.pass(3_590_000)
    assert.deepEqual(await all(there.stream('k', () => assert.fail('the stream is kept'))), [1, 2])
    await clock.pass(11_000)
    assert.deepEqual(await all(there.stream('k', () => [3])), [3])
    await Promise.all([here.close({ grace: 0 }), there.close({ grace: 0 })])
  })

  test('a slow reader of a complete stream reads on after its ttl; a reader that stopped is interrupted', async () => {
    const clock = new ManualClock()
    const options = { store: new MemoryStore({ clock }), timeout: Number.POSITIVE_INFINITY }
    const locker = new Locker(options)
    const other = new Locker(options)
    const numbers = Array.from({ length: 1_000 }, (_, number) => number)
    await all(locker.stream('k', () => numbers, { ttl: 1_000 }))
    const steady = other.stream('k', () => [])
    const stopped = other.stream('k', () => [])
    assert.deepEqual([await some(steady, 1), await some(stopped, 1)], [[0], [0]])
    for (let number = 1; number < 500; number += 10) {
      await clock.pass(LOG_GRACE / 10)
      assert.deepEqual(await some(steady, 10), numbers.slice(number, number + 10))
    }
    // Both readers retain the same log, so it expires only when neither reads.
    await clock.pass(LOG_GRACE + 1_000)
    const { chunks, error } = await reading(stopped).done
    assert.ok(chunks.length < 999, 'it was read to its end')
    assert.equal((error as { code?: string }).code, 'E_STREAM_INTERRUPTED')
    await Promise.all([locker.close({ grace: 0 }), other.close({ grace: 0 })])
  })

  test('logs that are not used expire', async () => {
    const clock = new ManualClock()
    const logs = new MemoryLogHub(clock)
    const user = logs.connect()
    await user.append('a', { from: 0, chunks: bytes(1), trimBefore: 0, retainFor: 5_000 }, 0)
    await user.append('b', { from: 0, chunks: bytes(1), trimBefore: 0, retainFor: 9_000 }, 0)
    await clock.pass(7_000)
    assert.equal(logs.size, 1)
    await clock.pass(7_000)
    assert.equal(logs.size, 0)
  })

  test('beyond maxBytes the complete log that was used longest ago is evicted', async () => {
    const clock = new ManualClock()
    const logs = new MemoryLogHub(clock, 10_000)
    const user = logs.connect()
    const append = { from: 0, chunks: [Buffer.alloc(4_000)], trimBefore: 0, retainFor: 5_000 }
    const write = async (name: string) => {
      await user.append(name, append, 0)
      await user.retain(name, 2 * LOG_GRACE, 0)
    }
    await write('a')
    await write('b')
    await user.read('a', { from: 0, followerNonce: undefined }, 0)
    await write('c')
    assert.deepEqual(
      ['a', 'b', 'c'].map((name) => logs.find(name) !== undefined),
      [true, false, true],
    )
    // Logs that are being written are not evicted: further appends are refused.
    await user.append('d', append, 0)
    await user.append('e', append, 0)
    assert.equal(logs.size, 2)
    await assert.rejects(user.append('f', append, 0), { code: 'E_OVERLOADED' })
    assert.deepEqual(
      ['d', 'e'].map((name) => logs.find(name)?.chunks.length),
      [1, 1],
    )
    // Unless they have not been used for a while.
    await clock.pass(11_000)
    await user.append('f', append, 0)
  })
})

describe('stream - parts', () => {
  test('the tail buffer holds the newest chunks without a gap, and is bounded', () => {
    const tail = new TailBuffer()
    tail.add(0, bytes(0, 1, 2))
    tail.add(1, bytes(1, 2, 3))
    tail.add(0, bytes(0))
    assert.deepEqual(
      [0, 1, 2, 3].map((number) => tail.chunkAt(number)?.[0]),
      [0, 1, 2, 3],
    )
    assert.equal(tail.chunkAt(4), undefined)
    tail.add(9, bytes(9))
    assert.deepEqual([tail.chunkAt(3), tail.chunkAt(8), tail.chunkAt(9)?.[0]], [undefined, undefined, 9])
    for (let number = 10; number < 50_000; number++) tail.add(number, bytes(1))
    let kept = 0
    for (let number = 0; number < 50_000; number++) if (tail.chunkAt(number)) kept++
    assert.ok(kept >= 1_024 && kept <= 2_048, `${kept} chunks are buffered`)
    assert.ok(tail.chunkAt(49_999), 'the newest is buffered')
    for (let number = 50_000; number < 50_100; number++) tail.add(number, [Buffer.alloc(100_000)])
    kept = 0
    for (let number = 0; number < 50_100; number++) if (tail.chunkAt(number)) kept++
    assert.ok(kept <= 6, `${kept} large chunks are buffered`)
  })

  test('the retention window holds the newest chunks that fit, and always the last', () => {
    const window = new RetentionWindow(64_000)
    for (let number = 0; number < 100; number++) window.add(484)
    assert.equal(window.first, 0)
    for (let number = 100; number < 1_000; number++) window.add(484)
    const { first } = window
    assert.ok(first >= 1_000 - 128 && first <= 1_000 - 120, `it begins at ${first}`)
    window.add(1_000_000)
    assert.equal(window.first, 1_000)
    window.add(1)
    assert.ok(window.first >= 1_000, `it begins at ${window.first}`)
  })

  test('a source that never yields can be stopped, and is asked to return', async () => {
    const source = new ChunkSource()
    let returned = false
    const stuck = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<never>(() => {}),
        return: async () => {
          returned = true
          return { done: true as const, value: undefined }
        },
      }),
    }
    const draining = source.drain(
      () => stuck,
      () => undefined,
    )
    await settled()
    source.stop(new Error('enough'))
    await assert.rejects(draining, { message: 'enough' })
    assert.ok(returned, 'it was asked to return')
  })

  test('a source that was stopped before it started is not drained', async () => {
    const source = new ChunkSource()
    source.stop(new Error('enough'))
    await assert.rejects(
      source.drain(
        () => [1],
        () => assert.fail('a chunk was taken'),
      ),
      { message: 'enough' },
    )
  })

  test('a view follows, is interrupted, and finishes; a producer cannot take over a complete log', async () => {
    const clock = new ManualClock()
    const logs = new MemoryLogHub(clock).connect()
    const deps = { logs, clock, prefix: 'p', unavailableAfter: 1_000 }
    const view = new LogViews(deps, logs).open('k', '1', 5_000)
    const kinds: string[] = []
    const reader = { position: 0, onLogChanged: () => kinds.push(view.state.kind) }
    view.join(reader)
    assert.ok(view.mustRead(0), 'the first read registers the follower')
    await view.read(0)
    assert.equal(view.state.kind, 'following')
    await clock.pass(5_000)
    view.interrupt({ canRestart: true, error: () => new Error('lost') })
    view.interrupt({ canRestart: false, error: () => new Error('ignored') })
    view.finish({ count: 0 })
    view.interrupt({ canRestart: true, error: () => new Error('ignored') })
    assert.deepEqual(kinds, ['unfollowed', 'interrupted', 'finished'])
    const producer = { waitNodeFor: () => ({ waitsFor: undefined }), onReadersChanged() {} }
    assert.throws(() => view.attachProducer(producer), /finished to owned/)
    view.leave(reader)
  })

  test('a record is validated, whatever wrote it', () => {
    const id = 'A'.repeat(22)
    for (const record of [
      { log: '1', open: true },
      { log: id, open: false, end: { count: 0 } },
      { log: '9007199254740991', open: true, end: { count: 3, failure: Buffer.from('x') } },
    ])
      assert.deepEqual(streamRecordCodec.decode(streamRecordCodec.encode(record)), record)
    for (const record of [
      undefined,
      null,
      'x',
      {},
      { log: 1, open: true },
      { log: '../x', open: true },
      { log: '', open: true },
      { log: '1'.repeat(17), open: true },
      { log: `${id}A`, open: true },
      { log: '1', open: 'yes' },
      { log: '1', open: true, end: null },
      { log: '1', open: true, end: { count: -1 } },
      { log: '1', open: true, end: { count: 1.5 } },
      { log: '1', open: true, end: { count: 1, failure: 'x' } },
    ])
      assert.throws(
        () => streamRecordCodec.decode(streamRecordCodec.encode(record)),
        { code: 'E_CODEC' },
        JSON.stringify(record),
      )
  })

  test('readers and producers that have ended hold nothing', async () => {
    const locker = new Locker()
    for (let number = 0; number < 50; number++) {
      const tap = new Tap<number>().push(1, 2)
      const readings = [1, 2].map(() => reading(locker.stream(`k${number}`, tap.work)))
      await Promise.all(readings.map((reader) => reached(reader, 2)))
      tap.end()
      await Promise.all(readings.map(({ done }) => done))
    }
    await settled()
    const { flights, waiters, held, running } = locker.stats()
    assert.deepEqual({ flights, waiters, held, running }, { flights: 0, waiters: 0, held: 0, running: 0 })
    await locker.close()
  })
})
