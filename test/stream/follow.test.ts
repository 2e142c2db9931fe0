// locker.follow: reads a stream that others produce, from any chunk on, and never produces it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  AbortedError,
  ClosedError,
  type FollowedChunk,
  Locker,
  RemoteError,
  StreamInterruptedError,
  TimeoutError,
  UnavailableError,
} from '../../src/index.ts'
import { Child } from '../support/process.ts'
import { setup } from '../support/setup.ts'
import type { StreamHandlers } from '../support/stream-child.ts'
import { all, inBothStores, onRedis, reached, reading, some, Tap } from '../support/stream-scene.ts'
import { rejectionOf, soon, until } from '../support/wait.ts'

const FILE = new URL('../support/stream-child.ts', import.meta.url)

function values<T>(chunks: readonly FollowedChunk<T>[]): T[] {
  return chunks.map(({ value }) => value)
}

function numbersFrom(from: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => from + index)
}

inBothStores(
  'follow - it receives all chunks with their numbers, live and replayed',
  async ({ here, there }) => {
    const tap = new Tap<string>().push('a', 'b')
    const producing = reading(here.stream('k', tap.work))
    await reached(producing, 2)
    const live = reading(there.follow<string>('k'))
    await reached(live, 2)
    const local = reading(here.follow<string>('k'))
    await reached(local, 2)
    tap.push('c').end()
    for (const { done } of [live, local]) {
      const { chunks, error } = await done
      assert.equal(error, undefined)
      assert.deepEqual(values(chunks), ['a', 'b', 'c'])
      assert.deepEqual(
        chunks.map(({ number }) => number),
        [0, 1, 2],
      )
      assert.deepEqual([...new Set(chunks.map(({ fence }) => fence))], [tap.runs[0]?.fence])
    }
    await producing.done
    assert.deepEqual(values(await all(there.follow('k'))), ['a', 'b', 'c'], 'a replay')
    assert.equal(tap.runs.length, 1)
  },
)

inBothStores('follow - it waits for a producer, and never becomes one', async ({ here, there }) => {
  const early = reading(there.follow<number>('k'))
  const other = reading(here.follow<number>('k'))
  assert.equal(await soon(early.done, 50), 'pending')
  assert.equal((await here.peek('k')).status, 'free')
  assert.deepEqual(await all(here.stream('k', () => [1, 2])), [1, 2])
  for (const { done } of [early, other]) assert.deepEqual(values((await done).chunks), [1, 2])
})

inBothStores('follow - without a producer it ends after `wait`, at once with 0', async ({ here, there }) => {
  for (const wait of [0, 100]) {
    const error = await rejectionOf(there.follow('k', { wait }).next())
    assert.ok(error instanceof TimeoutError, String(error))
    assert.match(error.message, /Nobody has produced/)
    assert.ok((await rejectionOf(there.follow('k', { wait }).located())) instanceof TimeoutError)
  }
  const tap = new Tap<number>()
  const producing = reading(here.stream('k', tap.work))
  await until(() => tap.runs.length === 1, { what: 'the work' })
  // It is produced, so it is found, although it has no chunk.
  const found = there.follow<number>('k', { wait: 0 })
  await found.located()
  const first = found.next()
  tap.push(1).end()
  assert.deepEqual((await first).value?.value, 1)
  assert.deepEqual(await all(found), [])
  await producing.done
})

inBothStores('follow - it resumes at any chunk, exactly once and in order', async ({ here, there, open }) => {
  const tap = new Tap<number>().push(...numbersFrom(0, 1_000))
  const producing = reading(here.stream('k', tap.work))
  await reached(producing, 1_000)
  const fence = tap.runs[0]?.fence
  const readers = [0, 1, 500, 999, 1_000].flatMap((from) =>
    [here, there, open()].map((locker) => ({
      from,
      ...reading(locker.follow<number>('k', { from, fence })),
    })),
  )
  for (const reader of readers) await reached(reader, 1_000 - reader.from)
  tap.push(...numbersFrom(1_000, 10)).end()
  for (const { from, done } of readers) {
    const { chunks, error } = await done
    assert.equal(error, undefined)
    assert.deepEqual(values(chunks), numbersFrom(from, 1_010 - from))
    assert.deepEqual(
      chunks.map(({ number }) => number),
      numbersFrom(from, 1_010 - from),
    )
  }
  await producing.done
  assert.deepEqual(values(await all(there.follow<number>('k', { from: 1_008 }))), [1_008, 1_009])
  assert.deepEqual(await all(there.follow('k', { from: 1_010 })), [])
  await assert.rejects(there.follow('k', { from: 1_011 }).next(), StreamInterruptedError)
})

inBothStores(
  'follow - a reader far behind the end of the log keeps no other from its chunks',
  async ({ here, there }) => {
    const tap = new Tap<number>().push(0)
    const producing = reading(here.stream('k', tap.work))
    await reached(producing, 1)
    const far = reading(there.follow<number>('k', { from: 1_000_000 }))
    const near = reading(there.follow<number>('k'))
    await reached(near, 1)
    const since = performance.now()
    for (let number = 1; number <= 20; number++) {
      tap.push(number)
      await reached(near, number + 1)
    }
    // One poll would take 5 s.
    assert.ok(performance.now() - since < 4_000)
    tap.end()
    assert.deepEqual(values((await near.done).chunks), numbersFrom(0, 21))
    assert.ok((await far.done).error instanceof StreamInterruptedError)
  },
)

inBothStores('follow - the failure of the work comes after its chunks', async ({ here, there }) => {
  const tap = new Tap<number>().push(1)
  const producing = reading(here.stream('k', tap.work, { errorTtl: 60_000 }))
  const follower = reading(there.follow<number>('k'))
  await reached(follower, 1)
  tap.push(2).end(new Error('broken'))
  for (const { chunks, error } of [await follower.done, await reading(there.follow<number>('k')).done]) {
    assert.deepEqual(values(chunks), [1, 2])
    assert.ok(error instanceof RemoteError)
    assert.equal(error.remote.message, 'broken')
  }
  await producing.done
})

inBothStores('follow - another production than the one to resume interrupts it', async ({ here, there }) => {
  await all(here.stream('k', () => [1, 2, 3]))
  const [{ fence } = { fence: 0 }] = await some(there.follow('k'), 1)
  await here.invalidateStreams('k')
  await all(here.stream('k', () => [4, 5, 6]))
  const resumed = there.follow('k', { from: 1, fence })
  await assert.rejects(resumed.located(), StreamInterruptedError)
  await assert.rejects(there.follow('k', { from: 1, fence }).next(), StreamInterruptedError)
  assert.deepEqual(values(await all(there.follow('k', { from: 1 }))), [5, 6])
})

inBothStores(
  'follow - a producer that stops: a reader that received nothing starts over',
  async ({ here, there, open }) => {
    const gone = open({ lease: 500 })
    const tap = new Tap<number>()
    reading(gone.stream('k', tap.work))
    await until(() => tap.runs.length === 1, { what: 'the work' })
    const fresh = reading(there.follow<number>('k'))
    const started = there.follow<number>('k')
    tap.push(1)
    const [{ fence } = { fence: 0 }] = await some(started, 1)
    // It may have received the first chunk, too: then it is interrupted.
    await gone.close({ grace: 0 })
    await assert.rejects(started.next(), StreamInterruptedError)
    assert.deepEqual(await all(here.stream('k', () => [7, 8])), [7, 8])
    const { chunks, error } = await fresh.done
    if (error) assert.ok(error instanceof StreamInterruptedError)
    else assert.deepEqual(values(chunks), [7, 8])
    await assert.rejects(there.follow('k', { from: 1, fence }).located(), StreamInterruptedError)
  },
)

inBothStores(
  'follow - it ends by its signal, its timeout, `return` and `close`',
  async ({ here, there, open }) => {
    const tap = new Tap<number>().push(1)
    reading(here.stream('k', tap.work))
    const aborting = new AbortController()
    const aborted = there.follow('k', { signal: aborting.signal })
    await some(aborted, 1)
    const next = aborted.next()
    aborting.abort()
    await assert.rejects(next, AbortedError)
    await assert.rejects(there.follow('k', { signal: aborting.signal }).next(), AbortedError)
    const late = there.follow('k', { timeout: 50 })
    await some(late, 1)
    await assert.rejects(late.next(), TimeoutError)
    const returned = there.follow('k')
    await some(returned, 1)
    await returned.return?.()
    assert.deepEqual(await returned.next(), { done: true, value: undefined })
    const closing = open()
    const follower = closing.follow('k')
    await some(follower, 1)
    const waiting = assert.rejects(follower.next(), ClosedError)
    await closing.close({ grace: 0 })
    await waiting
    assert.throws(() => closing.follow('k'), ClosedError)
    assert.equal(there.stats().waiters, 0, 'nobody waits on')
    tap.end()
  },
)

test('follow - options that are wrong are refused', async () => {
  await using locker = new Locker()
  for (const options of [
    { from: -1 },
    { from: 0.5 },
    { from: Number.NaN },
    { fence: -1 },
    { wait: -1 },
    { form: 1 },
  ])
    assert.throws(() => locker.follow('k', options as object), TypeError)
  assert.throws(() => locker.follow(''), TypeError)
})

test('follow - trimmed: from a chunk that is still there, not from one that is gone', async () => {
  await using world = await onRedis()
  const { here, there } = world
  const tap = new Tap<string>().push(...numbersFrom(0, 50).map((n) => `${n}`.padStart(100, '0')))
  const producing = reading(here.stream('k', tap.work, { maxBytes: 1_024 }))
  await reached(producing, 50)
  await assert.rejects(there.follow('k').next(), StreamInterruptedError)
  await assert.rejects(there.follow('k', { from: 1 }).located(), StreamInterruptedError)
  const late = reading(there.follow<string>('k', { from: 48 }))
  await reached(late, 2)
  tap.push('end').end()
  assert.deepEqual(
    (await late.done).chunks.map(({ number }) => number),
    [48, 49, 50],
  )
})

test('follow - kill -9 of the producer: interrupted within a lease; who resumes is told before the first chunk', async () => {
  await using t = await setup()
  const options = { redis: t.redis, lease: 1_000, cache: false, timeout: 20_000 } as const
  await using producer = await Child.fork<StreamHandlers>(FILE)
  await producer.call('open', options)
  await using locker = new Locker(options)
  await producer.call('read', 'k', { id: 'p' })
  await producer.next('run')
  const empty = reading(locker.follow<string>('k'))
  await producer.call('push', 'k', 'a', 'b')
  await reached(empty, 2)
  const idle = new Locker(options)
  const parked = reading(idle.follow<string>('k', { from: 2 }))
  await until(() => idle.stats().parks === 1, { what: 'it to be parked' })
  const since = performance.now()
  await producer.kill()
  for (const { done } of [empty, parked]) {
    const { error } = await done
    assert.ok(error instanceof StreamInterruptedError, String(error))
  }
  assert.ok(performance.now() - since < 10_000)
  const [{ fence } = { fence: 0 }] = empty.chunks
  await assert.rejects(locker.follow('k', { from: 2, fence }).located(), StreamInterruptedError)
  // One that received nothing goes on with the next producer.
  const next = reading(locker.follow<number>('k'))
  assert.equal(await soon(next.done, 100), 'pending')
  assert.deepEqual(await all(locker.stream('k', () => [1, 2])), [1, 2])
  assert.deepEqual(values((await next.done).chunks), [1, 2])
  await idle.close()
})

test('follow - connections are killed again and again: no chunk is lost or repeated', async () => {
  await using t = await setup()
  const options = {
    redis: t.redis,
    cache: false,
    unavailableAfter: 20_000,
    lease: 30_000,
    timeout: 30_000,
  } as const
  await using here = new Locker(options)
  await using there = new Locker({ ...options })
  const tap = new Tap<number>().push(0)
  const producing = reading(here.stream('k', tap.work))
  const follower = reading(there.follow<number>('k'))
  await reached(follower, 1)
  for (let number = 1; number <= 30; number++) {
    if (number % 10 === 0)
      await t.server.call('CLIENT', 'KILL', 'TYPE', number % 20 === 0 ? 'normal' : 'pubsub').catch(() => {})
    tap.push(number)
  }
  await until(() => follower.chunks.length === 31, { what: 'all chunks', timeout: 15_000 })
  tap.end()
  assert.deepEqual(values((await follower.done).chunks), numbersFrom(0, 31))
  await producing.done
})

test('follow - Redis is killed: it ends with a defined error, and follows the next production', async () => {
  await using t = await setup()
  const options = { redis: t.redis, cache: false, unavailableAfter: 300, lease: 1_000 } as const
  await using here = new Locker(options)
  await using there = new Locker(options)
  const tap = new Tap<number>().push(0)
  const producing = reading(here.stream('k', tap.work))
  const follower = reading(there.follow<number>('k'))
  await reached(follower, 1)
  await t.server.kill()
  tap.push(1)
  const { chunks, error } = await follower.done
  assert.deepEqual(values(chunks), [0])
  assert.ok(error instanceof UnavailableError || error instanceof StreamInterruptedError, String(error))
  await producing.done
  await t.server.restart()
  await there.ready()
  const next = reading(there.follow<number>('k'))
  await until(async () => (await all(here.stream('k', () => [5, 6]))).length === 2, { what: 'the next one' })
  assert.deepEqual(values((await next.done).chunks), [5, 6])
})
