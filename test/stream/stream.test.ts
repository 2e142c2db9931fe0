import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  AbortedError,
  ClosedError,
  DeadlockError,
  Locker,
  RemoteError,
  StreamInterruptedError,
  TimeoutError,
} from '../../src/index.ts'
import { all, inBothStores, reached, reading, some, Tap } from '../support/stream-scene.ts'
import { until } from '../support/wait.ts'

describe('stream - one producer, every reader', () => {
  inBothStores('callers of all processes receive all chunks, live, of one work', async ({ here, there }) => {
    const tap = new Tap<number>()
    const readers = [here, there, here, there].map((locker) => reading(locker.stream('k', tap.work)))
    tap.push(1)
    await Promise.all(readers.map((reader) => reached(reader, 1)))
    tap.push(2, 3)
    await Promise.all(readers.map((reader) => reached(reader, 3)))
    tap.end()
    for (const { done } of readers) assert.deepEqual(await done, { chunks: [1, 2, 3], error: undefined })
    assert.equal(tap.runs.length, 1)
  })

  inBothStores('a late reader receives the earlier chunks, then follows', async ({ here, there }) => {
    const tap = new Tap<string>()
    const first = reading(here.stream('k', tap.work))
    tap.push('a', 'b')
    await reached(first, 2)
    const late = reading(there.stream('k', tap.work))
    await reached(late, 2)
    tap.push('c').end()
    assert.deepEqual((await late.done).chunks, ['a', 'b', 'c'])
    assert.deepEqual((await first.done).chunks, ['a', 'b', 'c'])
    assert.equal(tap.runs.length, 1)
  })

  inBothStores(
    'a complete stream is replayed until its ttl has passed, then produced again',
    async ({ here, there }) => {
      const tap = new Tap<number>().push(1, 2).end()
      assert.deepEqual(await all(here.stream('k', tap.work, { ttl: 400 })), [1, 2])
      const since = performance.now()
      assert.deepEqual(await all(there.stream('k', tap.work)), [1, 2])
      assert.deepEqual(await all(here.stream('k', tap.work)), [1, 2])
      assert.equal(tap.runs.length, 1)
      await sleep(450 - (performance.now() - since))
      assert.deepEqual(await all(there.stream('k', tap.work)), [1, 2])
      assert.equal(tap.runs.length, 2)
    },
  )

  inBothStores('a stream may have no chunks', async ({ here, there }) => {
    const tap = new Tap<number>().end()
    assert.deepEqual(await all(here.stream('k', tap.work)), [])
    assert.deepEqual(await all(there.stream('k', tap.work)), [])
    assert.equal(tap.runs.length, 1)
  })

  inBothStores('thousands of chunks arrive in order, once each', async ({ here, there }) => {
    const numbers = Array.from({ length: 5_000 }, (_, number) => number)
    const work = async function* () {
      yield* numbers
    }
    const [mine, theirs] = await Promise.all([all(here.stream('k', work)), all(there.stream('k', work))])
    assert.deepEqual(mine, numbers)
    assert.deepEqual(theirs, numbers)
    assert.deepEqual(await all(there.stream('k', work)), numbers)
  })

  inBothStores('a chunk is any value that the codec encodes', async ({ here, there }) => {
    const chunks = [
      undefined,
      null,
      '',
      0,
      -0,
      Number.NaN,
      Buffer.from([1, 2]),
      new Uint8Array(3),
      { a: [1] },
    ]
    const work = async function* () {
      yield* chunks
    }
    assert.deepEqual(await all(here.stream('k', work)), chunks)
    assert.deepEqual(await all(there.stream('k', work)), chunks)
  })

  inBothStores('keys that look alike do not collide', async ({ here, there }) => {
    const keys = [
      'a',
      'A',
      '\ud800',
      '\ud801',
      'é',
      'e\u0301',
      '{x}',
      'a b',
      '\r\n',
      'x'.repeat(200_000),
      '__proto__',
    ]
    for (const key of keys) {
      await all(
        here.stream(key, async function* () {
          yield key
        }),
      )
    }
    const never = () => assert.fail('the stream is kept')
    for (const key of keys) assert.deepEqual(await all(there.stream(key, never)), [key])
  })

  inBothStores('run and stream have separate keys', async ({ here }) => {
    assert.equal(await here.run('k', () => 'result'), 'result')
    const tap = new Tap<number>().push(1).end()
    assert.deepEqual(await all(here.stream('k', tap.work)), [1])
    assert.equal(await here.run('k', () => 'another'), 'result')
  })
})

describe('stream - what a work may return', () => {
  inBothStores('an array, a promise of an iterable, a web stream', async ({ here }) => {
    assert.deepEqual(await all(here.stream('array', () => [1, 2])), [1, 2])
    assert.deepEqual(await all(here.stream('promise', async () => new Set(['a']))), ['a'])
    assert.deepEqual(await all(here.stream('promises', () => [Promise.resolve(1), 2])), [1, 2])
    const web = () =>
      new ReadableStream<string>({
        start(controller) {
          controller.enqueue('x')
          controller.close()
        },
      })
    assert.deepEqual(await all(here.stream('web', web)), ['x'])
  })

  for (const [what, source] of [
    ['a text', 'text'],
    ['bytes', Buffer.from('bytes')],
    ['nothing', undefined],
    ['a number', 7],
    ['an object', {}],
  ] as const) {
    test(`${what} is refused as a source: every reader fails`, async () => {
      await using locker = new Locker()
      const { chunks, error } = await reading(locker.stream('k', () => source as never)).done
      assert.deepEqual(chunks, [])
      assert.ok(error instanceof RemoteError, String(error))
      assert.match(error.message, /iterable of chunks/)
    })
  }

  test('invalid arguments are refused by the call', async () => {
    await using locker = new Locker()
    const work = () => []
    assert.throws(() => locker.stream('', work), TypeError)
    assert.throws(() => locker.stream('k', 'work' as never), TypeError)
    for (const options of [
      { ttl: -1 },
      { errorTtl: Number.NaN },
      { maxBytes: 0 },
      { maxBytes: 1.5 },
      { abortUnwanted: 1 },
      { lease: 1 },
      { timeout: '1' },
      { signal: {} },
      { refresh: true },
    ])
      assert.throws(() => locker.stream('k', work, options as never), TypeError, JSON.stringify(options))
  })
})

describe('stream - failures', () => {
  inBothStores('a failing work fails every reader at the same place', async ({ here, there }) => {
    const tap = new Tap<number>()
    const readers = [here, there].map((locker) => reading(locker.stream('k', tap.work, { errorTtl: 10_000 })))
    tap.push(1, 2).end(Object.assign(new RangeError('no more'), { code: 'E_MINE', left: 3 }))
    readers.push(reading(there.stream('k', tap.work)))
    for (const { done } of readers) {
      const { chunks, error } = await done
      assert.deepEqual(chunks, [1, 2])
      assert.ok(error instanceof RemoteError, String(error))
      assert.equal(error.message, 'no more')
      assert.deepEqual(error.remote, {
        name: 'RangeError',
        message: 'no more',
        code: 'E_MINE',
        fields: { left: 3 },
      })
    }
    // The chunks and the failure are kept for errorTtl.
    const late = await reading(there.stream('k', tap.work)).done
    assert.deepEqual(late.chunks, [1, 2])
    assert.ok(late.error instanceof RemoteError, String(late.error))
    assert.equal(tap.runs.length, 1)
  })

  inBothStores('without errorTtl the next caller produces again', async ({ here, there }) => {
    const tap = new Tap<number>().push(1).end(new Error('once'))
    const { error } = await reading(here.stream('k', tap.work)).done
    assert.ok(error instanceof RemoteError && error.cause instanceof Error, String(error))
    const again = new Tap<number>().push(1, 2).end()
    assert.deepEqual(await all(there.stream('k', again.work)), [1, 2])
  })

  inBothStores('a chunk that the codec refuses fails the stream and ends the generator', async ({ here }) => {
    const tap = new Tap<unknown>().push(1, { when: new Date(0) }, 3)
    const { chunks, error } = await reading(here.stream('k', tap.work)).done
    assert.deepEqual(chunks, [1])
    assert.ok(error instanceof RemoteError, String(error))
    assert.equal(error.remote.code, 'E_CODEC')
    assert.match(error.message, /\$\.when/)
    await until(() => tap.returned === 1, { what: 'the generator to return' })
  })

  test('a work that throws before its first chunk fails the stream', async () => {
    await using locker = new Locker()
    const { error } = await reading(
      locker.stream('k', () => {
        throw new Error('at once')
      }),
    ).done
    assert.ok(error instanceof RemoteError, String(error))
    assert.equal(error.message, 'at once')
  })

  test('exposeError decides what readers receive of an error', async () => {
    await using locker = new Locker({ exposeError: ({ name }) => ({ name, message: 'hidden' }) })
    const { error } = await reading(locker.stream('k', () => Promise.reject(new Error('secret')))).done
    assert.ok(error instanceof RemoteError, String(error))
    assert.equal(error.remote.message, 'hidden')
  })

  inBothStores('a work that reads its own stream fails with DeadlockError', async ({ here }) => {
    const work = async function* (): AsyncGenerator<number> {
      yield* here.stream('k', work)
    }
    const { error } = await reading(here.stream('k', work)).done
    assert.ok(error instanceof RemoteError, String(error))
    assert.ok(error.cause instanceof DeadlockError, String(error.cause))
  })
})

describe('stream - readers that leave', () => {
  inBothStores('break ends only that reader', async ({ here, there }) => {
    const tap = new Tap<number>().push(1)
    const stays = reading(there.stream('k', tap.work))
    await reached(stays, 1)
    for await (const chunk of here.stream('k', tap.work)) {
      assert.equal(chunk, 1)
      break
    }
    tap.push(2).end()
    assert.deepEqual((await stays.done).chunks, [1, 2])
    assert.equal(tap.runs.length, 1)
  })

  inBothStores('the producing caller leaves, and the work goes on', async ({ here, there }) => {
    const tap = new Tap<number>().push(1)
    const producing = here.stream('k', tap.work)
    assert.deepEqual(await some(producing, 1), [1])
    const other = reading(there.stream('k', tap.work))
    await reached(other, 1)
    await producing.return?.()
    tap.push(2).end()
    assert.deepEqual((await other.done).chunks, [1, 2])
    assert.equal(tap.runs.length, 1)
  })

  inBothStores('without any reader the stream is produced to its end and kept', async ({ here, there }) => {
    const tap = new Tap<number>().push(1)
    const only = here.stream('k', tap.work)
    await some(only, 1)
    await only.return?.()
    tap.push(2).end()
    await until(() => tap.returned === 1, { what: 'the work to end' })
    assert.deepEqual(await all(there.stream('k', tap.work)), [1, 2])
    assert.equal(tap.runs.length, 1)
  })

  inBothStores('a signal ends one reader, while it waits or before it starts', async ({ here, there }) => {
    const tap = new Tap<number>().push(1)
    const stays = reading(here.stream('k', tap.work))
    const abort = new AbortController()
    const leaves = reading(there.stream('k', tap.work, { signal: abort.signal }))
    await reached(leaves, 1)
    abort.abort('enough')
    const { error } = await leaves.done
    assert.ok(error instanceof AbortedError, String(error))
    assert.equal(error.cause, 'enough')
    const before = await reading(there.stream('k', tap.work, { signal: abort.signal })).done
    assert.ok(before.error instanceof AbortedError, String(before.error))
    tap.end()
    assert.deepEqual(await stays.done, { chunks: [1], error: undefined })
  })

  inBothStores('timeout limits the wait for one chunk', async ({ here, there }) => {
    const tap = new Tap<number>().push(1)
    const unlimited = reading(here.stream('k', tap.work))
    const limited = reading(there.stream('k', tap.work, { timeout: 150 }))
    await reached(limited, 1)
    const since = performance.now()
    const { chunks, error } = await limited.done
    assert.deepEqual(chunks, [1])
    assert.ok(error instanceof TimeoutError, String(error))
    assert.ok(performance.now() - since > 100, 'it waited')
    tap.push(2).end()
    assert.deepEqual((await unlimited.done).chunks, [1, 2])
  })

  inBothStores('a reader that has ended stays ended', async ({ here }) => {
    const stream = here.stream('k', () => [1])
    assert.deepEqual(await all(stream), [1])
    assert.deepEqual(await stream.next(), { done: true, value: undefined })
    const left = here.stream('k', () => [1])
    await left.return?.()
    assert.deepEqual(await left.next(), { done: true, value: undefined })
  })

  inBothStores('return ends a `next` that waits', async ({ here }) => {
    const tap = new Tap<number>()
    const stream = here.stream('k', tap.work)
    const waiting = stream.next()
    await until(() => tap.runs.length === 1, { what: 'the work to begin' })
    await stream.return?.()
    assert.deepEqual(await waiting, { done: true, value: undefined })
    tap.end()
  })

  inBothStores('several calls of `next` at once are answered in order', async ({ here }) => {
    const stream = here.stream('k', () => [1, 2])
    const results = await Promise.all([stream.next(), stream.next(), stream.next(), stream.next()])
    assert.deepEqual(
      results.map(({ value }) => value),
      [1, 2, undefined, undefined],
    )
  })

  inBothStores(
    'abortUnwanted: the work is aborted when no reader is left anywhere',
    async ({ here, there }) => {
      const tap = new Tap<number>().push(1)
      const options = { abortUnwanted: true, lease: 600 }
      const mine = here.stream('k', tap.work, options)
      await some(mine, 1)
      const theirs = there.stream('k', tap.work, options)
      await some(theirs, 1)
      await mine.return?.()
      await sleep(700)
      assert.equal(tap.runs[0]?.signal.aborted, false, 'another process still reads')
      tap.push(2)
      assert.deepEqual(await some(theirs, 1), [2])
      await theirs.return?.()
      await until(() => tap.returned === 1, { what: 'the work to be aborted' })
      assert.ok(tap.runs[0]?.signal.reason instanceof AbortedError, String(tap.runs[0]?.signal.reason))
      const again = new Tap<number>().push(7).end()
      assert.deepEqual(await all(here.stream('k', again.work)), [7])
    },
  )
})

describe('stream - invalidation', () => {
  inBothStores('removes a complete stream', async ({ here, there }) => {
    const tap = new Tap<number>().push(1).end()
    await all(here.stream('k', tap.work))
    await here.invalidateStreams('k')
    await all(here.stream('k', tap.work))
    await all(there.stream('k', tap.work))
    assert.equal(tap.runs.length, 2)
  })

  inBothStores(
    'earlier readers read on, later readers receive a stream that starts later',
    async ({ here, there }) => {
      const old = new Tap<string>().push('old')
      const before = [here, there].map((locker) => reading(locker.stream('k', old.work)))
      await Promise.all(before.map((reader) => reached(reader, 1)))
      await there.invalidateStreams('k')
      // The invalidation reaches other processes a moment later.
      await sleep(50)
      const fresh = new Tap<string>().push('new').end()
      const after = [here, there].map((locker) => reading(locker.stream('k', fresh.work)))
      await sleep(100)
      old.end()
      for (const { done } of before) assert.deepEqual(await done, { chunks: ['old'], error: undefined })
      for (const { done } of after) assert.deepEqual(await done, { chunks: ['new'], error: undefined })
      assert.deepEqual([old.runs.length, fresh.runs.length], [1, 1])
    },
  )
})

describe('stream - maxBytes', () => {
  const chunk = (number: number) => `${number}`.padEnd(1_000)
  const CAP = { maxBytes: 20_000 }

  inBothStores('the producing caller reads to the end, however slow it is', async ({ here }) => {
    const work = async function* () {
      for (let number = 0; number < 200; number++) yield chunk(number)
    }
    const stream = here.stream('k', work, CAP)
    let number = 0
    for await (const got of stream) {
      assert.equal(got, chunk(number++))
      if (number % 20 === 0) await sleep(5)
    }
    assert.equal(number, 200)
  })

  inBothStores(
    'a reader that is too far behind is interrupted, one that keeps up is not',
    async ({ here, there }) => {
      const tap = new Tap<string>()
      const keepsUp = reading(here.stream('k', tap.work, CAP))
      const alsoKeepsUp = reading(there.stream('k', tap.work, CAP))
      const behind = there.stream('k', tap.work, CAP)
      tap.push(chunk(0))
      assert.deepEqual(await some(behind, 1), [chunk(0)])
      await Promise.all([reached(keepsUp, 1), reached(alsoKeepsUp, 1)])
      // More chunks than the tail buffer of a process holds.
      for (let number = 1; number < 3_000; number++) {
        tap.push(chunk(number))
        if (number % 10 === 0) await Promise.all([reached(keepsUp, number), reached(alsoKeepsUp, number)])
      }
      tap.end()
      assert.equal((await keepsUp.done).chunks.length, 3_000)
      const also = await alsoKeepsUp.done
      assert.deepEqual([also.chunks.length, also.error], [3_000, undefined])
      const { error } = await reading(behind).done
      assert.ok(error instanceof StreamInterruptedError, String(error))
      assert.match(error.message, /maxBytes/)
      assert.equal(error.code, 'E_STREAM_INTERRUPTED')
      assert.equal(error.key, 'k')
    },
  )

  inBothStores(
    'beyond it no reader may join: later callers run an unshared work',
    async ({ here, there }) => {
      const tap = new Tap<string>()
      const first = reading(here.stream('k', tap.work, CAP))
      for (let number = 0; number < 60; number++) tap.push(chunk(number))
      await reached(first, 60)
      const small = new Tap<string>().push('small')
      const own = [reading(there.stream('k', small.work))]
      // By now the record tells that the log cannot be joined.
      await sleep(100)
      own.push(reading(there.stream('k', small.work)))
      await Promise.all(own.map((reader) => reached(reader, 1)))
      assert.equal(small.runs.length, 1)
      assert.equal(small.runs[0]?.shared, false)
      small.push('end').end()
      for (const { done } of own) assert.deepEqual(await done, { chunks: ['small', 'end'], error: undefined })
      tap.end()
      assert.equal((await first.done).chunks.length, 60)
      // Nor is the complete stream kept.
      const next = new Tap<string>().push('next').end()
      assert.deepEqual(await all(there.stream('k', next.work)), ['next'])
      assert.equal(next.runs[0]?.shared, true)
    },
  )

  inBothStores('a single chunk may be larger', async ({ here, there }) => {
    const tap = new Tap<string>().push('a')
    const readers = [here, there].map((locker) => reading(locker.stream('k', tap.work, { maxBytes: 100 })))
    await Promise.all(readers.map((reader) => reached(reader, 1)))
    tap.push('b'.repeat(300_000))
    await Promise.all(readers.map((reader) => reached(reader, 2)))
    tap.push('c').end()
    for (const { done } of readers) {
      const { chunks, error } = await done
      assert.deepEqual([chunks.map(({ length }) => length), error], [[1, 300_000, 1], undefined])
    }
  })
})

describe('stream - backpressure', () => {
  inBothStores('an idle reader delays no other reader, and misses nothing', async ({ here, there }) => {
    const tap = new Tap<number>()
    const fast = reading(here.stream('k', tap.work))
    const slow = there.stream('k', tap.work)
    tap.push(0)
    assert.deepEqual(await some(slow, 1), [0])
    for (let number = 1; number < 5_000; number++) tap.push(number)
    tap.end()
    assert.equal((await fast.done).chunks.length, 5_000)
    assert.deepEqual(
      await all(slow),
      Array.from({ length: 4_999 }, (_, number) => number + 1),
    )
  })

  inBothStores('the work is pulled little faster than the store accepts chunks', async ({ here }) => {
    let made = 0
    const work = function* () {
      for (; made < 10_000; made++) yield Buffer.alloc(10_000)
    }
    const stream = here.stream('k', work, { maxBytes: 100_000 })
    assert.equal((await some(stream, 1)).length, 1)
    await sleep(200)
    // No other process follows, so the producer waits for its own caller.
    assert.ok(made < 150, `made ${made}`)
    await stream.return?.()
    await until(() => made === 10_000, { what: 'the rest', timeout: 20_000 })
  })
})

describe('stream - lockers', () => {
  inBothStores('concurrency limits the works of streams', async ({ open }) => {
    const locker = open({ concurrency: 1 })
    const tap = new Tap<number>().push(1)
    const first = reading(locker.stream('a', tap.work))
    await reached(first, 1)
    const second = reading(locker.stream('b', () => [2]))
    await sleep(50)
    assert.deepEqual(second.chunks, [])
    tap.end()
    await first.done
    assert.deepEqual((await second.done).chunks, [2])
  })

  inBothStores('close waits for running producers for its grace', async ({ open, there }) => {
    const locker = open()
    const tap = new Tap<number>().push(1)
    const mine = reading(locker.stream('k', tap.work))
    await reached(mine, 1)
    const theirs = reading(there.stream('k', tap.work))
    await reached(theirs, 1)
    const closing = locker.close({ grace: 5_000 })
    tap.push(2).end()
    await closing
    for (const { done } of [mine, theirs]) assert.deepEqual(await done, { chunks: [1, 2], error: undefined })
    assert.throws(() => locker.stream('k', tap.work), ClosedError)
  })

  inBothStores(
    'close without grace: its own readers fail with ClosedError, readers elsewhere are interrupted',
    async ({ open, there }) => {
      const locker = open()
      const tap = new Tap<number>().push(1)
      const mine = reading(locker.stream('k', tap.work))
      await reached(mine, 1)
      const under = reading(there.stream('k', tap.work))
      await reached(under, 1)
      await locker.close({ grace: 0 })
      const { error } = await mine.done
      assert.ok(error instanceof ClosedError, String(error))
      const interrupted = await under.done
      assert.ok(interrupted.error instanceof StreamInterruptedError, String(interrupted.error))
      assert.equal(tap.returned, 1)
    },
  )

  for (const [how, end] of Object.entries({
    'aborts the signal': (_: AsyncIterator<number>, abort: AbortController) => abort.abort(),
    'ends the iteration': (stream: AsyncIterator<number>) => void stream.return?.(),
  }))
    test(`a work that ${how} of its own reader while it begins harms nothing`, async () => {
      await using locker = new Locker()
      const abort = new AbortController()
      const stream: AsyncIterator<number> = locker.stream<number>(
        'k',
        () => {
          end(stream, abort)
          return [1]
        },
        { signal: abort.signal },
      )
      const ended = await stream.next().catch((error: unknown) => error)
      assert.ok(ended instanceof AbortedError || (ended as IteratorResult<number>).done, String(ended))
      await until(() => locker.stats().flights === 0, { what: 'the end of the producer' })
      assert.deepEqual(await all(locker.stream('other', () => [2])), [2])
    })

  test('a reader does nothing before the first `next`', async () => {
    await using locker = new Locker()
    const tap = new Tap<number>()
    locker.stream('k', tap.work)
    await sleep(20)
    assert.deepEqual([tap.runs.length, locker.stats().flights], [0, 0])
  })
})

describe('stream - takeover off', () => {
  test('no reader replaces a producer whose lease ended at maxHold', async () => {
    await using locker = new Locker({ takeover: false, maxHold: 300 })
    const tap = new Tap<number>().push(1)
    const begun = reading(locker.stream('begun', tap.work))
    await reached(begun, 1)
    const still = new Tap<number>()
    const readers = [1, 2].map(() => reading(locker.stream('at 0', still.work)))
    const codes = await Promise.all([begun, ...readers].map(async ({ done }) => (await done).error))
    assert.deepEqual(
      codes.map((error) => (error as { code?: string }).code),
      ['E_STREAM_INTERRUPTED', 'E_LOCK_TIMEOUT', 'E_LOCK_TIMEOUT'],
    )
    assert.equal(still.runs.length, 1)
  })
})
