// Closing, and unregistering: what runs, what waits, what comes.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { ClosedError, ProcessLostError } from '../../src/errors.ts'
import type { Call } from '../../src/services/index.ts'
import { Services } from '../../src/services/index.ts'
import { all, onBothStores } from '../support/services.ts'
import { soon, timed, took, until } from '../support/wait.ts'

onBothStores('close - what runs has its grace: the reply arrives, others get no more calls', async (w) => {
  const first = await w.serve('work')
  const gate = pDefer()
  let running = 0
  first.service.on('do', async () => {
    running++
    await gate.promise
    return 'first'
  })
  const remote = w.open().require('work')
  const call = remote.emit('do')
  await until(() => running === 1, { what: 'the call' })
  const closing = first.services.close({ grace: 5_000 })
  await until(async () => Object.keys(await w.loads('work')).length === 0, { what: 'it to be struck off' })
  await assert.rejects(remote.emit('do'), { code: 'E_NO_SERVICE' })
  const second = await w.serve('work')
  second.service.on('do', () => 'second')
  assert.equal(await remote.emit('do'), 'second')
  assert.equal(await soon(closing, 50), 'pending')
  gate.resolve()
  assert.equal(await call, 'first')
  assert.ok((await took(() => closing)) < 1_000)
})

onBothStores('close - the reply of a call that ends in the last moment is not lost', async (w) => {
  const caller = w.open()
  for (let round = 0; round < 20; round++) {
    const { services, service } = await w.serve('work')
    let started = false
    service.on('do', async () => {
      started = true
      await sleep(5)
      return round
    })
    const call = caller.require('work', { timeout: 2_000 }).emit('do')
    await until(() => started, { what: 'the call', every: 1 })
    await services.close()
    assert.equal(await soon(call, 1_000), round)
  }
})

onBothStores(
  'close - V1 what runs beyond its grace: signal, ProcessLostError; its late result is dropped',
  async (w) => {
    const { services, service } = await w.serve('work')
    const gate = pDefer()
    const reasons: unknown[] = []
    service.on('do', async (call: Call) => {
      call.signal.addEventListener('abort', () => reasons.push(call.signal.reason))
      await gate.promise
      return 'late'
    })
    const caller = w.open()
    const call = timed(caller.require('work').emit('do'))
    await until(() => services.stats().serving === 1, { what: 'the call' })
    const closing = await took(() => services.close({ grace: 200 }))
    assert.ok(closing >= 199 && closing < 1_500, `${closing}`)
    const { error, ms } = await call
    assert.ok(error instanceof ProcessLostError && error.ran === 'maybe' && ms < 2_000, `${error}`)
    assert.ok(reasons[0] instanceof ProcessLostError)
    gate.resolve()
    await sleep(50)
    assert.equal(caller.stats().late, 0)
  },
)

onBothStores('close - V1 the backlog is handed back: the same `emit` runs elsewhere', async (w) => {
  const first = await w.serve('work', { capacity: 1, backlog: 10 })
  const gate = pDefer()
  const runs: string[] = []
  const handler = (id: string) => async (name: string, call: Call) => {
    runs.push(`${id} ${name}`)
    assert.equal(call.attempt, 1)
    if (name === 'stick') await gate.promise
    return id
  }
  first.service.on('do', handler('first'))
  const remote = w.open().require('work')
  const stuck = remote.emit('do', 'stick')
  await until(() => runs.length === 1, { what: 'the first' })
  const waiting = [1, 2, 3, 4].map((n) => remote.emit('do', `${n}`))
  await until(() => first.services.stats().serving === 5, { what: 'the backlog' })
  const second = await w.serve('work')
  second.service.on('do', handler('second'))
  const closing = first.services.close()
  assert.deepEqual(await soon(Promise.all(waiting), 2_000), ['second', 'second', 'second', 'second'])
  gate.resolve()
  assert.equal(await stuck, 'first')
  await closing
  assert.deepEqual(runs.slice(1).sort(), ['second 1', 'second 2', 'second 3', 'second 4'])
  await w.idle('work')
})

onBothStores('close - V1 the last process: what it handed back finds no service', async (w) => {
  const { services, service } = await w.serve('work', { capacity: 1, backlog: 10 })
  const gate = pDefer()
  service.on('do', () => gate.promise)
  const remote = w.open().require('work')
  const [stuck, waiting] = [remote.emit('do'), timed(remote.emit('do'))]
  await until(() => services.stats().serving === 2, { what: 'both' })
  const closing = services.close()
  const { error } = await waiting
  assert.deepEqual([(error as { code: string }).code, (error as { ran: string }).ran], ['E_NO_SERVICE', 'no'])
  gate.resolve('done')
  assert.equal(await stuck, 'done')
  await closing
})

onBothStores('close - V1 a closed object: its calls get ClosedError, the handlers are told', async (w) => {
  const { service } = await w.serve('work')
  let aborted = 0
  service.on('do', async (call: Call) => {
    await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
    aborted++
  })
  const caller = w.open()
  const remote = caller.require('work')
  const calls = [timed(remote.emit('do')), timed(remote.pemit(5, 'do'))]
  await until(async () => Object.values(await w.loads('work'))[0] === 2, { what: 'the calls' })
  await caller.close()
  for (const { error } of await Promise.all(calls)) {
    assert.ok(error instanceof ClosedError && error.ran === 'maybe', `${error}`)
  }
  await until(() => aborted === 2, { what: 'the signals' })
  await w.idle('work')
  for (const call of [
    remote.emit('do'),
    remote.notify('do'),
    remote.ready(),
    remote.get('x'),
    caller.clean(),
  ])
    await assert.rejects(call, { code: 'E_CLOSED' })
  await assert.rejects(remote.emit('do'), { ran: 'no' })
  for (const other of [remote.get('x'), caller.list(), caller.ping(caller.id)])
    await assert.rejects(other, (error) => error instanceof ClosedError && error.ran === undefined)
  await assert.rejects(caller.register('x'), ClosedError)
  assert.throws(() => caller.require('x'), ClosedError)
  assert.throws(() => remote.broadcast('do'), ClosedError)
  await assert.rejects(remote.stream('do').next(), ClosedError)
  await caller.close()
  await caller.unregister('x')
})

onBothStores(
  'close - V1 a closed object does not know yet who has its calls: the handlers are told',
  async (w) => {
    const { service } = await w.serve('work')
    let [started, aborted] = [0, 0]
    service.on('do', async (call: Call) => {
      started++
      await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
      aborted++
    })
    for (let round = 0; round < 5; round++) {
      const caller = w.open()
      await caller.ping(caller.id)
      const remote = caller.require('work')
      const calls = [
        timed(remote.emit('do')),
        timed(all(remote.broadcast('do'))),
        timed(remote.stream('do').next()),
      ]
      await caller.close({ grace: 0 })
      for (const { error } of await Promise.all(calls)) assert.ok(error instanceof ClosedError, `${error}`)
    }
    await until(() => started > 0 && aborted === started, { what: 'the signals' })
    await w.idle('work')
  },
)

onBothStores('close - V1 a handler that runs can call until the grace is over', async (w) => {
  const other = await w.serve('other')
  other.service
    .on('add', (a: number, b: number) => a + b)
    .on('words', async function* () {
      yield* ['a', 'b']
    })
    .on('hang', () => new Promise(() => {}))
  const { services, service } = await w.serve('work')
  const remote = services.require('other')
  const [gate, hung] = [pDefer(), pDefer<unknown>()]
  service.on('do', async () => {
    await gate.promise
    await remote.set('rate', 5)
    await services.require('other').notify('add', 0, 0)
    return [
      await remote.emit('add', 1, 2),
      await remote.with({ dedupe: true }).emit('add', 3, 4),
      await remote.pemit(2, 'add', 5, 6),
      await all(remote.stream('words')),
      (await all(remote.broadcast('add', 7, 8))).length,
      await service.get('none'),
      await remote.get('rate'),
    ]
  })
  service.on('hang', () => remote.emit('hang').catch((error) => hung.resolve(error)))
  const caller = w.open()
  const calls = [caller.require('work').emit('do'), timed(caller.require('work').emit('hang'))] as const
  await until(() => services.stats().serving === 2, { what: 'the calls' })
  const closing = services.close({ grace: 1_500 })
  await assert.rejects(services.register('more'), ClosedError)
  await until(async () => Object.keys(await w.loads('work')).length === 0, { what: 'it to be struck off' })
  gate.resolve()
  assert.deepEqual(await calls[0], [3, 7, 11, ['a', 'b'], 1, undefined, 5])
  assert.ok((await calls[1]).error instanceof ProcessLostError)
  await closing
  assert.ok((await hung.promise) instanceof ClosedError)
  await assert.rejects(remote.emit('add', 1, 2), { code: 'E_CLOSED', ran: 'no' })
  await assert.rejects(services.send(caller.id, 1), ClosedError)
})

onBothStores('close - V1 without a handler that runs, calls fail at once', async (w) => {
  await w.serve('other')
  const { services } = await w.serve('work')
  const remote = services.require('other')
  const closing = services.close()
  await assert.rejects(remote.emit('add', 1, 2), { code: 'E_CLOSED', ran: 'no' })
  assert.throws(() => services.require('other'), ClosedError)
  await closing
})

onBothStores('unregister - one service of several; it can be registered again', async (w) => {
  const { services, service } = await w.serve('one')
  service.on('name', () => 'one')
  ;(await services.register('two')).on('name', () => 'two')
  const caller = w.open()
  await services.unregister('one')
  await services.unregister('never')
  await assert.rejects(caller.require('one').emit('name'), { code: 'E_NO_SERVICE' })
  assert.equal(await caller.require('two').emit('name'), 'two')
  ;(await services.register('one')).on('name', () => 'again')
  assert.equal(await caller.require('one').emit('name'), 'again')
  await w.idle('one')
})

onBothStores(
  'unregister - V1 close during its grace: the shorter grace counts, the callers are told',
  async (w) => {
    const { services, service } = await w.serve('work')
    service.on('do', () => new Promise(() => {}))
    const call = timed(w.open().require('work').emit('do'))
    await until(() => services.stats().serving === 1, { what: 'the call' })
    const unregistered = services.unregister('work', { grace: 60_000 })
    await sleep(20)
    assert.ok((await took(() => services.close({ grace: 100 }))) < 1_500)
    const { error, ms } = await call
    assert.ok(error instanceof ProcessLostError && ms < 2_000, `${ms}: ${error}`)
    await soon(unregistered)
  },
)

test('close - options are checked', async () => {
  const services = new Services()
  for (const grace of [-1, Number.NaN, '5', null]) {
    assert.throws(() => services.close({ grace } as never), /^TypeError: Expected `grace` to be/, `${grace}`)
    await assert.rejects(services.unregister('x', { grace } as never), /^TypeError: Expected `grace`/)
  }
  await services.close({ grace: Number.POSITIVE_INFINITY })
})
