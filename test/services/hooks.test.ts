// User code: its async context, what it throws, progress, signals, codecs, traces.

import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import { AbortedError, CodecError, RemoteError } from '../../src/errors.ts'
import { channelName, type TelemetryEvents } from '../../src/index.ts'
import type { Codec } from '../../src/kernel/codec/codec.ts'
import type { Call } from '../../src/services/index.ts'
import { all, onBothStores } from '../support/services.ts'
import { rejectionOf, timed, until } from '../support/wait.ts'

const context = new AsyncLocalStorage<string>()
const here = (): string | undefined => context.getStore()

/** The names of the hooks that have failed while `body` ran. */
async function failedHooks(body: () => Promise<void>): Promise<string[]> {
  const names: string[] = []
  const hear = (message: unknown) => names.push((message as TelemetryEvents['hook']).hook)
  subscribe(channelName('hook'), hear)
  try {
    await body()
  } finally {
    unsubscribe(channelName('hook'), hear)
  }
  return names
}

onBothStores('U1 - handlers, hooks and listeners run in the context in which they were added', async (w) => {
  const seen: Record<string, unknown> = {}
  const note = (name: string) => {
    seen[name] = here()
  }
  const server = w.open({
    exposeError: (failure) => {
      note('exposeError')
      return failure
    },
  })
  const service = await context.run('registering', () => server.register('work'))
  context.run('on', () => {
    service
      .on('sync', (call: Call) => {
        note('sync')
        call.signal.addEventListener('abort', () => note('signal'))
        call.progress(1)
        return new Promise((resolve) => call.signal.addEventListener('abort', resolve))
      })
      .on('fails', async () => {
        await sleep(1)
        note('fails')
        throw new Error('x')
      })
      .on('stream', async function* () {
        for (let n = 0; n < 100; n++) {
          note('stream')
          yield n
        }
      })
  })
  const caller = w.open()
  context.run('listening', () => caller.on('message', () => note('message')))
  context.run('up', () => caller.on('up', () => note('up')))
  const remote = caller.require('work')
  await context.run('watching', () => remote.watch('setting', () => note('watch')))
  const abort = new AbortController()
  const call = context.run('emit', async () => {
    const { error } = await timed(
      remote.with({ signal: abort.signal, onProgress: () => note('onProgress') }).emit('sync'),
    )
    note('after emit')
    return error
  })
  await until(() => 'onProgress' in seen, { what: 'progress' })
  abort.abort()
  assert.ok((await call) instanceof AbortedError)
  await context.run('failing', async () => {
    await remote.emit('fails').catch(() => note('after failure'))
    for await (const n of remote.stream('stream')) if (n === 50) note('in the loop')
    for await (const { id } of remote.broadcast('fails')) if (id) note('in the broadcast')
    await remote.set('setting', 1)
    await caller.send(caller.id, 'x')
    await server.register('another')
    await remote
      .with({ dedupe: true })
      .emit('fails')
      .catch(() => note('after dedupe'))
  })
  await until(() => ['signal', 'watch', 'message', 'up'].every((name) => name in seen), { what: 'all hooks' })
  assert.deepEqual(seen, {
    ...{ sync: 'on', signal: 'on', fails: 'on', stream: 'on', exposeError: 'on' },
    ...{ onProgress: 'emit', 'after emit': 'emit', 'after failure': 'failing', 'in the loop': 'failing' },
    ...{ 'in the broadcast': 'failing', 'after dedupe': 'failing' },
    ...{ message: 'listening', up: 'up', watch: 'watching' },
  })
})

onBothStores('U3 - hooks that throw or reject cost nothing but a report', async (w) => {
  const failing = (name: string) => () => {
    throw new Error(name)
  }
  const names = await failedHooks(async () => {
    const server = w.open({ exposeError: failing('exposeError') })
    const service = await server.register('work')
    service.on('do', (value: number, call: Call) => {
      call.progress('half')
      if (value < 0) throw new Error('with a secret')
      return value
    })
    const caller = w.open({ trace: failing('trace') })
    caller.on('up', failing('up'))
    caller.on('down', (async () => failing('down')()) as never)
    caller.on('message', failing('message'))
    const remote = caller.require('work').with({ onProgress: failing('onProgress') })
    assert.equal(await remote.emit('do', 1), 1)
    const error = await rejectionOf(remote.emit('do', -1))
    assert.ok(error instanceof RemoteError && !/secret/.test(error.message), `${error}`)
    await caller.send(caller.id, 'x')
    await (await w.serve('other')).services.close()
    assert.equal(await remote.emit('do', 2), 2)
    await w.idle('work')
    await sleep(100)
  })
  const expected = ['exposeError', "on('down')", "on('message')", "on('up')", 'onProgress', 'trace']
  assert.deepEqual([...new Set(names)].sort(), expected)
})

onBothStores('hooks - exposeError decides what leaves the process', async (w) => {
  const { service } = await w.serve('work', {
    of: {
      exposeError: (failure, error) => ({
        name: failure.name,
        message: 'hidden',
        code: (error as Error).message.length,
      }),
    },
  })
  service.on('do', () => {
    throw new RangeError('secret')
  })
  const error = await rejectionOf(w.open().require('work').emit('do'))
  assert.ok(error instanceof RemoteError)
  assert.deepEqual(error.remote, { name: 'RangeError', message: 'hidden', code: 6 })
})

onBothStores('hooks - the trace of the caller, if it is one', async (w) => {
  const { service } = await w.serve('work')
  service.on('trace', async (call: Call) => call.trace)
  for (const [given, seen] of [
    ['00-4bf9-00f0-01', '00-4bf9-00f0-01'],
    [undefined, undefined],
    [5, undefined],
    ['a b\nc', 'a b\nc'],
    ['x'.repeat(600), 'x'.repeat(512)],
    [`${'x'.repeat(511)}💥`, `${'x'.repeat(511)}\ufffd`],
    ['\ud800', '\ufffd'],
  ] as [string, string | undefined][]) {
    const caller = w.open({ trace: () => given })
    assert.equal(await caller.require('work').emit('trace'), seen, `${given}`)
  }
})

onBothStores('progress - in order, the latest of a burst, none when it is over', async (w) => {
  const { service } = await w.serve('work')
  let last: Call | undefined
  service.on('do', async (call: Call) => {
    last = call
    for (let n = 0; n < 30; n++) {
      call.progress({ n })
      await sleep(10)
    }
    assert.throws(() => call.progress(new Map()), { code: 'E_CODEC' })
    assert.throws(() => call.progress('x'.repeat(1e6)), { code: 'E_CODEC' })
    return 'done'
  })
  const seen: number[] = []
  const remote = w.open().require('work')
  const onProgress = (value: unknown) => seen.push((value as { n: number }).n)
  assert.equal(await remote.with({ onProgress }).emit('do'), 'done')
  assert.ok(seen.length >= 3 && seen.length <= 12, `${seen}`)
  assert.deepEqual(
    seen,
    [...seen].sort((a, b) => a - b),
  )
  assert.equal(seen[0], 0)
  const count = seen.length
  last?.progress('late')
  await sleep(100)
  assert.equal(seen.length, count)
  assert.equal(await remote.emit('do'), 'done', 'nobody listens')
})

onBothStores('abort - V1 before the call, while it waits, while it runs, after it', async (w) => {
  const caller = w.open()
  const reason = new Error('enough')
  const aborted = async (call: Promise<unknown>, ran: string) => {
    const error = await rejectionOf(call)
    assert.ok(error instanceof AbortedError && error.cause === reason && error.ran === ran, `${error}`)
  }
  const before = caller.require('work').with({ signal: AbortSignal.abort(reason) })
  for (const call of [
    before.emit('do'),
    before.pemit(2, 'do'),
    before.notify('do'),
    before.stream('do').next(),
  ])
    await aborted(call, 'no')
  await aborted(before.with({ dedupe: true }).emit('do'), 'no')
  const waiting = new AbortController()
  const call = caller.require('work', { wait: 60_000 }).with({ signal: waiting.signal }).emit('do')
  // Redis has said by then that nobody serves it.
  setTimeout(() => waiting.abort(reason), 400)
  await aborted(call, 'no')
  const { service } = await w.serve('work')
  const signals: AbortSignal[] = []
  service
    .on(
      'do',
      (call: Call) =>
        new Promise((resolve) => {
          signals.push(call.signal)
          call.signal.addEventListener('abort', resolve)
        }),
    )
    .on('quick', () => 'quick')
    .on('ignores', () => sleep(300, 'ignored'))
  const running = new AbortController()
  const many = Array.from({ length: 20 }, () =>
    caller.require('work').with({ signal: running.signal }).emit('do'),
  )
  await until(() => signals.length === 20, { what: 'all to run' })
  running.abort(reason)
  await Promise.all(many.map((each) => aborted(each, 'maybe')))
  await until(() => signals.every(({ aborted }) => aborted), { what: 'all signals' })
  assert.ok(signals.every(({ reason }) => reason instanceof AbortedError))
  const after = new AbortController()
  assert.equal(await caller.require('work').with({ signal: after.signal }).emit('quick'), 'quick')
  after.abort(reason)
  const late = new AbortController()
  const ignored = caller.require('work').with({ signal: late.signal }).emit('ignores')
  await until(async () => Object.values(await w.loads('work'))[0] === 1, { what: 'the call' })
  late.abort(reason)
  await aborted(ignored, 'maybe')
  await until(() => caller.stats().late === 21, { what: 'the replies of handlers that went on' })
  await w.idle('work')
})

/** Reversed JSON. */
const reversing: Codec = {
  encode: (value) => Buffer.from(JSON.stringify([value]).split('').reverse().join('')),
  decode: (bytes) => JSON.parse(bytes.toString().split('').reverse().join(''))[0],
}

onBothStores(
  "codec - a codec of one's own for arguments, results, chunks, progress, settings, messages",
  async (w) => {
    const { services, service } = await w.serve('work', { of: { codec: reversing } })
    service
      .on('do', (a: number, b: string, call: Call) => {
        call.progress({ a })
        return { a, b }
      })
      .on('stream', async function* () {
        yield* [1, { two: 2 }]
      })
      .on('date', () => new Date(0))
    const caller = w.open({ codec: reversing })
    const seen: unknown[] = []
    const remote = caller.require('work').with({ onProgress: (value) => seen.push(value) })
    assert.deepEqual(await remote.emit('do', 1, 'b'), { a: 1, b: 'b' })
    await until(() => seen.length === 1, { what: 'progress' })
    assert.deepEqual(seen, [{ a: 1 }])
    assert.deepEqual(await all(remote.stream('stream')), [1, { two: 2 }])
    assert.equal(await remote.emit('date'), '1970-01-01T00:00:00.000Z')
    await remote.set('x', { y: 1 })
    assert.deepEqual(await service.get('x'), { y: 1 })
    const heard: unknown[] = []
    services.on('message', (_, message) => heard.push(message))
    await caller.send(services.id, [1])
    await until(() => heard.length === 1, { what: 'the message' })
    assert.deepEqual(heard, [[1]])
    assert.deepEqual(await remote.with({ dedupe: true }).emit('do', 2, 'c'), { a: 2, b: 'c' })
  },
)

onBothStores('codec - V1 U3 what another codec has written, or throws', async (w) => {
  const { service } = await w.serve('work')
  let runs = 0
  service.on('do', () => ++runs)
  const foreign = w.open({ codec: reversing }).require('work')
  const error = await rejectionOf(foreign.emit('do', 'x'))
  assert.ok(error instanceof CodecError && error.ran === 'no', `${error}`)
  const [answer] = await all(foreign.broadcast('do', 'x'))
  assert.ok(answer && 'error' in answer && answer.error instanceof CodecError && answer.error.ran === 'no')
  assert.equal(runs, 0)
  const broken = (part: Partial<Codec>) => w.open({ codec: { ...reversing, ...part } }).require('work')
  const failing = () => {
    throw new Error('broken')
  }
  await assert.rejects(broken({ encode: failing }).emit('do'), { code: 'E_CODEC', ran: 'no' })
  await assert.rejects(broken({ encode: () => 'text' as never }).emit('do'), { code: 'E_CODEC', ran: 'no' })
  const half = w.open({
    codec: { encode: (value) => Buffer.from(`j${JSON.stringify(value)}`), decode: failing },
  })
  await assert.rejects(half.require('work').emit('do'), { code: 'E_CODEC', ran: 'yes' })
  assert.equal(runs, 1)
  await assert.rejects(half.require('work').stream('do').next(), { code: 'E_CODEC' })
  await w.idle('work')
  assert.equal(half.stats().calling, 0)
})
