// Calls: arguments, results of every kind, the forms of a handler, errors.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { BusyError, NoServiceError, RemoteError, TimeoutError, UnknownEventError } from '../../src/errors.ts'
import type { Call } from '../../src/services/index.ts'
import { onBothStores } from '../support/services.ts'
import { rejectionOf, soon, timed, until } from '../support/wait.ts'

onBothStores('calls - a process calls another, and itself', async (w) => {
  const { services, service } = await w.serve<{ add(a: number, b: number): number }>('sums')
  service.on('add', (a, b) => a + b)
  assert.equal(await w.open().require('sums').emit('add', 2, 3), 5)
  assert.equal(await services.require<{ add(a: number, b: number): number }>('sums').emit('add', 4, 5), 9)
  await w.idle('sums')
})

onBothStores('calls - a process can be called as soon as it is registered', async (w) => {
  const caller = w.open()
  for (let round = 0; round < 10; round++) {
    const { service } = await w.serve(`sums ${round}`)
    service.on('add', (a, b) => a + b)
    assert.equal(await caller.require(`sums ${round}`).emit('add', 1, round), 1 + round)
  }
})

onBothStores('calls - arguments and results of every kind arrive as they were', async (w) => {
  const { service } = await w.serve('echo')
  service.on('back', (value) => value)
  service.on('count', (...args) => args.length - 1)
  const echo = w.open().require('echo')
  const deep = { list: [1, [2, { three: null }]], '': '\0\r\n', __proto__x: [], $: { $: 1 } }
  const values = [
    ...[
      null,
      true,
      false,
      0,
      -0,
      1.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      '',
      'text',
      '\ud800',
      'x'.repeat(1e5),
    ],
    ...[
      [],
      {},
      deep,
      [undefined],
      { a: undefined },
      Buffer.from([0, 10, 13, 255]),
      new Float64Array([1, -0]),
    ],
    JSON.parse('{"__proto__":{"polluted":1},"constructor":2}'),
  ]
  for (const value of values) assert.deepEqual(await echo.emit('back', value), value)
  assert.deepEqual(await Promise.all(values.map((value) => echo.emit('back', value))), values)
  assert.equal(await echo.emit('back', undefined), undefined)
  assert.equal(await echo.emit('count'), 0)
  assert.equal(await echo.emit('count', undefined, null), 2)
  assert.equal(({} as { polluted?: number }).polluted, undefined)
})

onBothStores('calls - the four forms of a handler, and promises', async (w) => {
  const { service } = await w.serve('forms')
  const seen: unknown[] = []
  service
    .on('both', (payload: number, callback: Call) => {
      setTimeout(callback, 1, null, payload * 2)
    })
    .on('payload', (payload: number) => void seen.push(payload))
    .on('callback', (callback: Call) => callback(null, 'called'))
    .on('none', () => void seen.push('none'))
    .on('async', async (payload: number) => {
      await sleep(1)
      return payload + 1
    })
    .on('thenable', (payload: number) => ({
      // biome-ignore lint/suspicious/noThenProperty: that is what is tested
      then: (resolve: (value: number) => void) => resolve(payload + 2),
    }))
    .on('nothing', async () => {})
    .on('null', () => null)
  const forms = w.open().require('forms')
  assert.equal(await forms.emit('both', 21), 42)
  assert.equal(await forms.emit('payload', 7), undefined)
  assert.equal(await forms.emit('callback'), 'called')
  assert.equal(await forms.emit('none'), undefined)
  assert.equal(await forms.emit('none', 'surplus'), undefined)
  assert.equal(await forms.emit('async', 1), 2)
  assert.equal(await forms.emit('thenable', 1), 3)
  assert.equal(await forms.emit('nothing'), undefined)
  assert.equal(await forms.emit('null'), null)
  assert.deepEqual(seen, [7, 'none', 'none'])
  await w.idle('forms')
})

onBothStores('calls - arguments that are left out do not move the callback', async (w) => {
  const { service } = await w.serve<{ pad(text: string, width?: number, fill?: string): string }>('text')
  service.on('pad', (text, width, fill, call) => {
    call(null, text.padStart(width ?? 3, fill ?? '-'))
  })
  const { pad } = { pad: w.open().require<{ pad(text: string, width?: number): string }>('text').bind('pad') }
  assert.equal(await pad('a'), '--a')
  assert.equal(await pad('a', 2), '-a')
})

onBothStores('calls - several results by the callback are an array; the first call counts', async (w) => {
  const { service } = await w.serve('forms')
  service
    .on('several', (call: Call) => call(null, 1, undefined, 'c'))
    .on('one', (call: Call) => call(undefined, [1, 2]))
    .on('no', (call: Call) => call(null))
    .on('twice', (call: Call) => {
      call(null, 'first')
      call(null, 'second')
      call(new Error('third'))
    })
    .on('late', (call: Call) => {
      call(null, 'first')
      throw new Error('after it')
    })
    .on('returned', (call: Call) => {
      setTimeout(call, 5, null, 'called')
      return 'returned'
    })
    .on('calledFirst', (call: Call) => {
      call(null, 'called')
      return 'returned'
    })
  const forms = w.open().require('forms')
  assert.deepEqual(await forms.emit('several'), [1, undefined, 'c'])
  assert.deepEqual(await forms.emit('one'), [1, 2])
  assert.equal(await forms.emit('no'), undefined)
  assert.equal(await forms.emit('twice'), 'first')
  assert.equal(await forms.emit('late'), 'first')
  assert.equal(await forms.emit('returned'), 'returned')
  assert.equal(await forms.emit('calledFirst'), 'called')
  await w.idle('forms')
})

onBothStores('calls - V1 a handler that fails: sync, async, by the callback', async (w) => {
  const { service } = await w.serve('failing')
  const failure = (message: string) =>
    Object.assign(new TypeError(message, { cause: new Error('deeper') }), {
      code: 'E_MINE',
      field: [1],
      password: 'x',
    })
  service
    .on('sync', () => {
      throw failure('sync')
    })
    .on('async', async () => {
      await sleep(1)
      throw failure('async')
    })
    .on('callback', (call: Call) => call(failure('callback')))
    .on('later', (call: Call) => void setTimeout(() => call(failure('later')), 1))
    .on('text', () => Promise.reject('text'))
    .on('undefined', () => Promise.reject(undefined))
    .on('unsendable', () => () => 1)
  const failing = w.open().require('failing')
  for (const event of ['sync', 'async', 'callback', 'later']) {
    const error = await rejectionOf(failing.pemit(3, event))
    assert.ok(error instanceof RemoteError, `${error}`)
    const { name, message, code, fields, cause } = error.remote
    assert.deepEqual([name, message, code, fields], ['TypeError', event, 'E_MINE', { field: [1] }])
    assert.deepEqual([error.ran, error.key, cause?.message], ['yes', event, 'deeper'])
  }
  await assert.rejects(failing.emit('text'), { message: 'text', ran: 'yes' })
  await assert.rejects(failing.emit('undefined'), { code: 'E_REMOTE', ran: 'yes' })
  const unsendable = await rejectionOf(failing.emit('unsendable'))
  assert.ok(unsendable instanceof RemoteError && unsendable.remote.code === 'E_CODEC', `${unsendable}`)
  await w.idle('failing')
})

onBothStores('calls - V1 nobody serves the service, at once; `wait` waits for a first process', async (w) => {
  const caller = w.open()
  await caller
    .require('x')
    .emit('y')
    .catch(() => {})
  for (const call of [
    () => caller.require('sums').emit('add'),
    () => caller.require('sums').pemit(5, 'add'),
    () => caller.require('sums').notify('add'),
    async () => caller.require('sums').stream('add').next(),
  ]) {
    const { error, ms } = await timed(call())
    assert.ok(
      error instanceof NoServiceError && error.ran === 'no' && error.code === 'E_NO_SERVICE',
      `${error}`,
    )
    assert.ok(ms < 500, `${ms}`)
  }
  const tooLate = await timed(() => caller.require('sums', { wait: 200 }).emit('add'))
  assert.ok(tooLate.error instanceof NoServiceError && tooLate.ms >= 199 && tooLate.ms < 700, `${tooLate.ms}`)
  const waiting = caller.require('sums', { wait: 5_000, timeout: 300 }).emit('add', 1, 2)
  await sleep(400)
  const { service } = await w.serve('sums')
  service.on('add', (a, b) => a + b)
  assert.equal(await soon(waiting), 3)
  const closed = caller.require('none', { wait: 60_000 }).emit('add')
  const rejected = assert.rejects(closed, { code: 'E_CLOSED', ran: 'no' })
  await sleep(20)
  await caller.close()
  await rejected
})

onBothStores('calls - V1 an event without a handler, and one whose handler comes soon after', async (w) => {
  const { service } = await w.serve('sums')
  const sums = w.open().require('sums')
  const early = sums.emit('add', 1, 2)
  await sleep(100)
  service.on('add', (a, b) => a + b)
  assert.equal(await early, 3)
  for (const call of [sums.emit('subtract'), sums.pemit(3, 'toString'), sums.emit('__proto__')]) {
    const { error, ms } = await timed(call)
    assert.ok(error instanceof UnknownEventError && error.ran === 'no', `${error}`)
    assert.ok(ms < 2_000, `${ms}`)
  }
  service.off('add')
  await assert.rejects(sums.emit('add'), UnknownEventError)
  service.on('add', () => 'again')
  assert.equal(await sums.emit('add'), 'again')
  assert.throws(() => service.on('add', () => 1), { code: 'E_DUPLICATE_HANDLER', key: 'add' })
  await w.idle('sums')
})

onBothStores(
  'calls - V1 the deadline passes: the signal of the handler fires, a late reply is counted',
  async (w) => {
    const { service } = await w.serve('slow')
    const gate = pDefer()
    const reasons: unknown[] = []
    service.on('wait', async (call: Call) => {
      call.signal.addEventListener('abort', () => reasons.push(call.signal.reason))
      assert.ok(call.left() <= 100 && call.left() > 0)
      await gate.promise
      return call.left()
    })
    const caller = w.open()
    const { error, ms } = await timed(() => caller.require('slow', { timeout: 100 }).emit('wait'))
    assert.ok(error instanceof TimeoutError && error.ran === 'maybe' && error.key === 'wait', `${error}`)
    assert.ok(ms >= 99 && ms < 600, `${ms}`)
    await until(() => reasons[0] instanceof TimeoutError, { what: 'the signal' })
    assert.equal(caller.stats().late, 0)
    gate.resolve()
    await until(() => caller.stats().late === 1, { what: 'the late reply' })
    await w.idle('slow')
  },
)

onBothStores(
  'calls - `timeout` of the object, of `require`, of `with`; Infinity and huge ones',
  async (w) => {
    const { service } = await w.serve('time')
    service.on('left', (call: Call) => call.left())
    const caller = w.open({ timeout: 4_000 })
    const left = (remote: { emit(event: string): Promise<unknown> }) => remote.emit('left') as Promise<number>
    const near = (value: number, expected: number) =>
      assert.ok(value <= expected && value > expected - 1_000, `${value} instead of ${expected}`)
    near(await left(w.open().require('time')), 60_000)
    near(await left(caller.require('time')), 4_000)
    near(await left(caller.require('time', { timeout: 3_000 })), 3_000)
    near(await left(caller.require('time', { timeout: 3_000 }).with({ timeout: 2_000 })), 2_000)
    near(await left(caller.require('time').with({ within: 1_500 })), 1_500)
    near(await left(caller.require('time').with({ timeout: 5_000 }).with({ within: 6_000 })), 5_000)
    assert.equal(
      await left(caller.require('time', { timeout: Number.POSITIVE_INFINITY })),
      Number.POSITIVE_INFINITY,
    )
    for (const timeout of [1e12, 1e16, 1e21, Number.MAX_VALUE])
      assert.ok(Number(await soon(left(caller.require('time').with({ timeout })))) > 1e11, `${timeout}`)
    const atOnce = await timed(left(caller.require('time').with({ timeout: 0 })))
    assert.ok(
      atOnce.error instanceof TimeoutError || (atOnce.value as number) <= 0,
      `${atOnce.error ?? atOnce.value}`,
    )
    await w.idle('time')
  },
)

onBothStores('calls - `bind`, `with`, and one remote for many events', async (w) => {
  const { service } = await w.serve('sums')
  service.on('add', (a, b) => a + b).on('id', (call: Call) => [call.id, call.attempt, call.from, call.trace])
  const caller = w.open({ trace: () => '00-trace-01' })
  const remote = caller.require('sums')
  const { add } = { add: remote.bind('add') }
  assert.deepEqual(await Promise.all([add(1, 2), add(3, 4)]), [3, 7])
  const calls = (await Promise.all([remote.emit('id'), remote.emit('id')])) as unknown[][]
  assert.notEqual(calls[0]?.[0], calls[1]?.[0])
  for (const call of calls) assert.deepEqual(call.slice(1), [1, caller.id, '00-trace-01'])
  assert.equal(remote.service, 'sums')
  assert.equal(service.name, 'sums')
})

onBothStores('calls - capacity and backlog: the oldest first, then BusyError', async (w) => {
  const { service } = await w.serve('slow', { capacity: 2, backlog: 2 })
  const gates = new Map<number, ReturnType<typeof pDefer>>()
  const started: number[] = []
  service.on('wait', async (n: number) => {
    started.push(n)
    const gate = pDefer()
    gates.set(n, gate)
    await gate.promise
    return n
  })
  const remote = w.open().require('slow')
  const calls: Promise<unknown>[] = []
  for (let n = 0; n < 4; n++) {
    calls.push(remote.emit('wait', n))
    await until(async () => Object.values(await w.loads('slow'))[0] === n + 1, { what: 'the load' })
  }
  await until(() => started.length === 2, { what: 'two calls' })
  const { error, ms } = await timed(remote.emit('wait', 4))
  assert.ok(error instanceof BusyError && error.ran === 'no' && ms < 500, `${error}`)
  gates.get(1)?.resolve()
  await until(() => started.length === 3, { what: 'the third' })
  gates.get(0)?.resolve()
  await until(() => started.length === 4, { what: 'the fourth' })
  for (const gate of gates.values()) gate.resolve()
  assert.deepEqual(await Promise.all(calls), [0, 1, 2, 3])
  assert.deepEqual(started, [0, 1, 2, 3])
  await w.idle('slow')
})

onBothStores(
  'calls - V1 a call whose deadline passes, or whose caller aborts, in the backlog is not run',
  async (w) => {
    const { service } = await w.serve('slow', { capacity: 1, backlog: 10 })
    const gate = pDefer()
    const started: string[] = []
    service.on('wait', async (name: string) => {
      started.push(name)
      if (name === 'first') await gate.promise
      return name
    })
    const remote = w.open().require('slow')
    const first = remote.emit('wait', 'first')
    await until(() => started.length === 1, { what: 'the first' })
    const abort = new AbortController()
    const late = timed(remote.with({ timeout: 100 }).emit('wait', 'late'))
    const aborted = timed(remote.with({ signal: abort.signal }).emit('wait', 'aborted'))
    const last = remote.emit('wait', 'last')
    await until(async () => Object.values(await w.loads('slow'))[0] === 4, { what: 'the load' })
    abort.abort(new Error('enough'))
    const [{ error: timeout }, { error: abortion }] = await Promise.all([late, aborted])
    assert.ok(timeout instanceof TimeoutError, `${timeout}`)
    assert.equal((abortion as { code?: string }).code, 'E_ABORTED')
    assert.equal((abortion as Error & { cause: Error }).cause.message, 'enough')
    await until(async () => Object.values(await w.loads('slow'))[0] === 2, {
      what: 'both to be off the load',
    })
    gate.resolve()
    assert.deepEqual(await Promise.all([first, last]), ['first', 'last'])
    assert.deepEqual(started, ['first', 'last'])
    await w.idle('slow')
  },
)
