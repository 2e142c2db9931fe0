// Streamed replies: order, backpressure, ends of every kind.

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { AbortedError, ClosedError, ProcessLostError, RemoteError, TimeoutError } from '../../src/errors.ts'
import type { Call } from '../../src/services/index.ts'
import { WINDOW } from '../../src/services/messages.ts'
import { all, onBothStores } from '../support/services.ts'
import { rejectionOf, soon, timed, until } from '../support/wait.ts'

onBothStores('stream - chunks of every kind, in order', async (w) => {
  const { service } = await w.serve('files')
  service
    .on('numbers', async function* (count: number) {
      for (let n = 0; n < count; n++) yield n
    })
    .on('kinds', async function* () {
      yield* [undefined, null, '', 0, { a: [Buffer.from('x')] }]
    })
    .on('empty', async function* () {})
    .on('readable', () => Readable.from(['a', 'b']))
    .on('promised', async () => Readable.from(['c']))
    .on('called', (call: Call) => call(null, Readable.from(['d'])))
    .on('one', () => 'no stream')
  const files = w.open().require('files')
  const numbers = Array.from({ length: 1_000 }, (_, n) => n)
  const both = await Promise.all([all(files.stream('numbers', 1_000)), all(files.stream('numbers', 1_000))])
  assert.deepEqual(both, [numbers, numbers])
  assert.deepEqual(await all(files.stream('kinds')), [undefined, null, '', 0, { a: [Buffer.from('x')] }])
  assert.deepEqual(await all(files.stream('empty')), [])
  assert.deepEqual(await all(files.stream('readable')), ['a', 'b'])
  assert.deepEqual(await all(files.stream('promised')), ['c'])
  assert.deepEqual(await all(files.stream('called')), ['d'])
  assert.deepEqual(await all(files.stream('one')), ['no stream'])
  const error = await rejectionOf(files.emit('empty'))
  assert.ok(error instanceof RemoteError && /call it by `stream`/.test(error.message), `${error}`)
  await w.idle('files')
})

onBothStores('stream - the source is not pulled beyond the window', async (w) => {
  const { service } = await w.serve('files')
  let pulled = 0
  let ended = 0
  service.on('numbers', async function* () {
    try {
      for (;;) yield pulled++
    } finally {
      ended++
    }
  })
  const reader = w.open().require('files').stream('numbers')
  await sleep(50)
  assert.equal(pulled, 0, 'it begins with the first read')
  let taken = 0
  const take = async (count: number) => {
    for (let n = 0; n < count; n++) assert.equal((await reader.next()).value, taken++)
  }
  await take(1)
  await until(() => pulled >= WINDOW, { what: 'the window to be filled' })
  await sleep(100)
  assert.ok(pulled <= taken + WINDOW, `${pulled} were pulled for ${taken}`)
  await take(WINDOW * 3)
  await sleep(100)
  assert.ok(pulled > WINDOW * 3 && pulled <= taken + WINDOW, `${pulled} were pulled for ${taken}`)
  await reader.return()
  await until(() => ended === 1, { what: 'the generator to be ended' })
  await w.idle('files')
})

onBothStores('stream - leaving the loop aborts the handler, and ends the call', async (w) => {
  const { service } = await w.serve('files')
  let aborted = 0
  service
    .on('events', async function* (call: Call) {
      yield 'first'
      await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
      assert.ok(call.signal.reason instanceof AbortedError)
      aborted++
    })
    .on('endless', async function* () {
      for (let n = 0; ; n++) yield n
    })
  const caller = w.open()
  for (const event of ['events', 'endless']) {
    for await (const chunk of caller.require('files').stream(event)) {
      assert.ok(chunk === 'first' || chunk === 0)
      break
    }
    assert.equal(caller.stats().calling, 0, event)
  }
  await until(() => aborted === 1, { what: 'the signal' })
  await w.idle('files')
})

onBothStores('stream - V4 a source that hangs ends with its reader', async (w) => {
  const { service } = await w.serve('files')
  let returned = 0
  service.on('hangs', () => ({
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise<never>(() => {}),
      return: async () => {
        returned++
        return { done: true, value: undefined }
      },
    }),
  }))
  const abort = new AbortController()
  const read = w.open().require('files').with({ signal: abort.signal }).stream('hangs').next()
  await until(async () => Object.values(await w.loads('files'))[0] === 1, { what: 'the call' })
  abort.abort()
  await assert.rejects(read, AbortedError)
  await w.idle('files')
  assert.equal(returned, 1)
})

onBothStores('stream - V4 a source that hangs ends with its reader, whenever that aborts', async (w) => {
  const { service } = await w.serve('files')
  let [begun, returned] = [0, 0]
  service.on('hangs', () => {
    begun++
    return {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise<never>(() => {}),
        return: async () => {
          returned++
          return { done: true, value: undefined }
        },
      }),
    }
  })
  const caller = w.open()
  for (let round = 0; round < 300; round++) {
    const abort = new AbortController()
    const read = caller.require('files').with({ signal: abort.signal }).stream('hangs').next()
    const aborted = assert.rejects(read, AbortedError)
    // Up to about as long as a call takes to begin.
    for (let turn = round % 15; turn > 0; turn--) await new Promise((resolve) => setImmediate(resolve))
    abort.abort()
    await aborted
  }
  await until(() => returned === begun, { what: 'the end of all sources' })
  await w.idle('files')
  assert.ok(begun > 0)
})

onBothStores('stream - V1 an error after some chunks: the chunks first', async (w) => {
  const { service } = await w.serve('files')
  service
    .on('breaks', async function* (count: number) {
      for (let n = 0; n < count; n++) yield n
      throw new RangeError('midway')
    })
    .on('unsendable', async function* () {
      yield 1
      yield new Map()
    })
    .on('throws', () => {
      throw new Error('at once')
    })
  const files = w.open().require('files')
  for (const count of [0, 1, WINDOW, 3 * WINDOW + 1]) {
    const chunks: unknown[] = []
    const error = await rejectionOf(
      (async () => {
        for await (const chunk of files.stream('breaks', count)) chunks.push(chunk)
      })(),
    )
    assert.ok(
      error instanceof RemoteError && error.remote.name === 'RangeError' && error.ran === 'yes',
      `${error}`,
    )
    assert.equal(chunks.length, count)
  }
  const unsendable = files.stream('unsendable')
  assert.equal((await unsendable.next()).value, 1)
  await assert.rejects(unsendable.next(), { code: 'E_REMOTE' })
  await assert.rejects(files.stream('throws').next(), { message: 'at once', ran: 'yes' })
  await assert.rejects(files.stream('unknown').next(), { code: 'E_UNKNOWN_EVENT', ran: 'no' })
  await w.idle('files')
})

onBothStores(
  'stream - V1 `timeout` bounds the wait for each chunk, `within` all; the handler is told',
  async (w) => {
    const { service } = await w.serve('files')
    const reasons: unknown[] = []
    service.on('slow', async function* (pause: number, call: Call) {
      call.signal.addEventListener('abort', () => reasons.push(call.signal.reason))
      assert.equal(call.left(), Number.POSITIVE_INFINITY)
      for (let n = 0; n < 5 && !call.signal.aborted; n++) {
        await sleep(pause)
        yield n
      }
      await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
    })
    const files = w.open().require('files', { timeout: 600 })
    const chunks: unknown[] = []
    const read = async (remote = files, pause = 150) => {
      for await (const chunk of remote.stream('slow', pause)) chunks.push(chunk)
    }
    const slow = await timed(read())
    assert.ok(slow.error instanceof TimeoutError && slow.error.ran === 'maybe', `${slow.error}`)
    assert.deepEqual(chunks, [0, 1, 2, 3, 4])
    assert.ok(slow.ms > 1_300 && slow.ms < 2_800, `${slow.ms}`)
    await until(() => reasons.length === 1, { what: 'the first signal' })
    const bounded = await timed(read(files.with({ within: 250, timeout: 5_000 })))
    assert.ok(
      bounded.error instanceof TimeoutError && bounded.ms > 249 && bounded.ms < 1_200,
      `${bounded.error}`,
    )
    await until(() => reasons.length === 2, { what: 'the second signal' })
    await w.idle('files')
  },
)

onBothStores('stream - a slow reader is no slow handler', async (w) => {
  const { service } = await w.serve('files')
  service.on('numbers', async function* () {
    for (let n = 0; n < 200; n++) yield n
  })
  let count = 0
  for await (const n of w.open().require('files', { timeout: 500 }).stream('numbers')) {
    assert.equal(n, count++)
    if (n % 100 === 0) await sleep(700)
  }
  assert.equal(count, 200)
})

onBothStores(
  'stream - V1 the process closes midway: ProcessLostError; the caller closes: ClosedError',
  async (w) => {
    const first = await w.serve('files')
    let aborted = 0
    const events = async function* (call: Call) {
      yield 'first'
      await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
      aborted++
    }
    first.service.on('events', events)
    const caller = w.open()
    const reader = caller.require('files').stream('events')
    assert.equal((await reader.next()).value, 'first')
    const lost = timed(reader.next())
    await first.services.close({ grace: 0 })
    const { error } = await lost
    assert.ok(error instanceof ProcessLostError && error.ran === 'maybe', `${error}`)
    assert.equal(aborted, 1)
    const second = await w.serve('files')
    second.service.on('events', events)
    const other = caller.require('files').stream('events')
    assert.equal((await other.next()).value, 'first')
    const closed = timed(other.next())
    await caller.close({ grace: 0 })
    assert.ok((await closed).error instanceof ClosedError)
    await until(() => aborted === 2, { what: 'the handler to be told' })
    await w.idle('files')
  },
)

onBothStores('stream - V4 `return` ends a read that waits, at once, and the handler is told', async (w) => {
  const { service } = await w.serve('files')
  let aborted = 0
  service.on('events', async function* (first: number, call: Call) {
    for (let n = 0; n < first; n++) yield n
    await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
    aborted++
  })
  const caller = w.open()
  for (const ends of ['return', 'throw', 'dispose'] as const) {
    const reader = caller.require('files').stream('events', 1)
    const reads = [reader.next(), reader.next(), reader.next()]
    assert.deepEqual(await reads[0], { done: false, value: 0 })
    const left =
      ends === 'return'
        ? reader.return()
        : ends === 'throw'
          ? reader.throw(new RangeError('mine')).catch(({ message }) => message)
          : Promise.resolve(reader[Symbol.asyncDispose]())
    const end = { done: true, value: undefined }
    assert.deepEqual(await soon(left), { return: end, throw: 'mine', dispose: undefined }[ends])
    assert.deepEqual(await soon(Promise.all(reads.slice(1))), [end, end])
    assert.deepEqual(await reader.next(), end)
  }
  await until(() => aborted === 3, { what: 'the handlers to be told' })
  assert.equal(caller.stats().calling, 0)
  await w.idle('files')
})

onBothStores('stream - `return` before the first read: nothing is called', async (w) => {
  const { service } = await w.serve('files')
  let calls = 0
  service.on('events', () => calls++)
  const reader = w.open().require('files').stream('events')
  await reader.return()
  assert.deepEqual(await reader.next(), { done: true, value: undefined })
  await w.idle('files')
  assert.equal(calls, 0)
})
