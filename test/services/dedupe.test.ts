// Identical calls share one run.

import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import {
  BusyError,
  isRemote,
  NoServiceError,
  RemoteError,
  TimeoutError,
  UnknownEventError,
} from '../../src/errors.ts'
import type { Call } from '../../src/services/index.ts'
import { onBothStores } from '../support/services.ts'
import { timed, until } from '../support/wait.ts'

onBothStores('dedupe - one run for 100 callers in three processes', async (w) => {
  const { service } = await w.serve('reports')
  const runs: unknown[] = []
  const gate = pDefer()
  service.on('render', async (name: string) => {
    runs.push(name)
    await gate.promise
    return { name, run: runs.length }
  })
  const callers = [w.open(), w.open(), w.open()]
  const calls = Array.from({ length: 100 }, (_, n) =>
    callers[n % 3]?.require('reports').with({ dedupe: true }).emit('render', 'a'),
  )
  await until(() => runs.length > 0, { what: 'a run' })
  await sleep(100)
  const other = callers[0]?.require('reports').with({ dedupe: true }).emit('render', 'b')
  await until(() => runs.length > 1, { what: 'the run of other arguments' })
  gate.resolve()
  const results = await Promise.all(calls)
  for (const result of results) assert.deepEqual(result, { name: 'a', run: 2 })
  await other
  assert.deepEqual(runs, ['a', 'b'])
  const again = await callers[1]?.require('reports').with({ dedupe: true }).emit('render', 'a')
  assert.deepEqual(again, { name: 'a', run: 3 })
  await w.idle('reports')
})

onBothStores('dedupe - by a key: whatever the arguments, apart by event and service', async (w) => {
  const runs: unknown[] = []
  for (const name of ['one', 'two']) {
    const { service } = await w.serve(name)
    for (const event of ['a', 'b'])
      service.on(event, async (value) => {
        runs.push([name, event, value])
        await sleep(100)
        return runs.length
      })
  }
  const caller = w.open()
  const [one, two] = [caller.require('one'), caller.require('two')]
  const byKey = { dedupe: true, key: 'k' } as const
  await Promise.all([
    one.with(byKey).emit('a', 1),
    one.with(byKey).emit('a', 2),
    one.with({ dedupe: 'k' }).emit('a', 3),
    one.with(byKey).emit('b', 4),
    two.with(byKey).emit('a', 5),
    one.with({ dedupe: 'other' }).emit('a', 6),
    one.emit('a', 7),
  ])
  assert.deepEqual(runs.map((run) => (run as unknown[])[2]).sort(), [1, 4, 5, 6, 7])
})

onBothStores('dedupe - arguments that only look alike are apart; hostile keys', async (w) => {
  const { service } = await w.serve('echo')
  let runs = 0
  service.on('back', async (value) => {
    runs++
    await sleep(50)
    return value
  })
  const echo = w.open().require('echo').with({ dedupe: true })
  const values = ['1', 1, [1], null, undefined, '', Buffer.from('1'), '\u00e9', 'e\u0301', '\ud800', '\ud801']
  assert.deepEqual(await Promise.all(values.map((value) => echo.emit('back', value))), values)
  assert.equal(runs, values.length)
  const keys = ['a\nb', 'a b', '{a}', '\0', '*', '__proto__', 'x'.repeat(1024)]
  assert.deepEqual(await Promise.all(keys.map((key) => echo.with({ key }).emit('back', key))), keys)
})

onBothStores('dedupe - `ttl` keeps the result', async (w) => {
  const { service } = await w.serve('echo')
  let runs = 0
  service.on('count', () => ++runs)
  const caller = w.open()
  const count = (options: object) =>
    caller
      .require('echo')
      .with({ dedupe: true, ...options })
      .emit('count')
  assert.equal(await count({ ttl: 60_000 }), 1)
  assert.equal(await count({ ttl: 60_000 }), 1)
  assert.equal(await w.open().require('echo').with({ dedupe: true, ttl: 60_000 }).emit('count'), 1)
  assert.equal(await count({ key: 'short', ttl: 100 }), 2)
  await sleep(150)
  assert.equal(await count({ key: 'short', ttl: 100 }), 3)
})

onBothStores('dedupe - V1 all share an error, as `emit` without it would give it', async (w) => {
  const { service } = await w.serve('failing')
  let runs = 0
  service.on('fail', async () => {
    runs++
    await sleep(100)
    throw Object.assign(new RangeError('out'), { code: 'E_MINE', field: 1 })
  })
  const callers = [w.open(), w.open(), w.open()]
  const remotes = callers.map((caller) => caller.require('failing').with({ dedupe: true, ttl: 1_000 }))
  const errors = await Promise.all(remotes.map(async (remote) => (await timed(remote.emit('fail'))).error))
  assert.equal(runs, 1)
  for (const error of errors) {
    assert.ok(error instanceof RemoteError && isRemote(error, 'RangeError'), `${error}`)
    assert.deepEqual(
      [error.remote.code, error.remote.fields, error.ran, error.key],
      ['E_MINE', { field: 1 }, 'yes', 'fail'],
    )
  }
  await assert.rejects(remotes[0]?.emit('fail') as Promise<unknown>, RemoteError)
  assert.equal(runs, 2, 'an error is not kept')
  const of = (name: string) => callers.map((caller) => caller.require(name).with({ dedupe: true }))
  for (const remote of of('none'))
    await assert.rejects(
      remote.emit('x'),
      (error) => error instanceof NoServiceError && error.ran === 'maybe',
    )
  const unknown = await Promise.all(
    of('failing').map(async (remote) => (await timed(remote.emit('none'))).error),
  )
  for (const error of unknown)
    assert.ok(error instanceof UnknownEventError && error.ran === 'maybe', `${error}`)
})

onBothStores('dedupe - V1 full, timeout, abort, close', async (w) => {
  const { service } = await w.serve('slow', { capacity: 1 })
  let aborted = 0
  service.on('hang', async (call: Call) => {
    await new Promise((resolve) => call.signal.addEventListener('abort', resolve))
    aborted++
  })
  const caller = w.open()
  const hang = (options: object, key = 'k') =>
    caller
      .require('slow')
      .with({ dedupe: key, ...options })
      .emit('hang')
  const late = await timed(hang({ timeout: 150 }))
  assert.deepEqual(
    [(late.error as { code: string }).code, (late.error as { ran?: string }).ran],
    ['E_TIMEOUT', 'maybe'],
  )
  await until(() => aborted === 1, { what: 'the first signal' })
  const [one, two] = [new AbortController(), new AbortController()]
  const first = timed(hang({ signal: one.signal }))
  const second = timed(hang({ signal: two.signal }))
  await until(async () => Object.values(await w.loads('slow'))[0] === 1, { what: 'the run' })
  const busy = await timed(hang({}, 'other'))
  assert.ok(busy.error instanceof BusyError && busy.error.ran === 'maybe', `${busy.error}`)
  one.abort()
  const abortion = (await first).error as { code: string; ran?: string }
  assert.deepEqual([abortion.code, abortion.ran], ['E_ABORTED', 'maybe'])
  await sleep(50)
  assert.equal(aborted, 1, 'the other caller still waits')
  two.abort()
  await second
  await until(() => aborted === 2, { what: 'the second signal' })
  await w.idle('slow')
  const closed = timed(hang({}))
  await sleep(50)
  await caller.close({ grace: 0 })
  assert.equal(((await closed).error as { code: string }).code, 'E_CLOSED')
  await until(() => aborted === 3, { what: 'the third signal' })
})

onBothStores('dedupe - tries, progress and `wait` as without it', async (w) => {
  const caller = w.open()
  const waiting = caller.require('late', { wait: 5_000, timeout: 200 }).with({ dedupe: true }).emit('do')
  await sleep(400)
  const { service } = await w.serve('late')
  service.on('do', async (call: Call) => {
    call.progress('half')
    await sleep(50)
    return call.attempt
  })
  assert.equal(await waiting, 1)
  const seen: unknown[] = []
  const shown = caller.require('late').with({ dedupe: true, onProgress: (value) => seen.push(value) })
  assert.equal(await shown.pemit(2, 'do'), 1)
  assert.deepEqual(seen, ['half'])
})

onBothStores(
  'dedupe - a caller with more patience gets the result of a run that another began',
  async (w) => {
    const { service } = await w.serve('reports')
    service.on('render', async () => {
      await sleep(300)
      return 'done'
    })
    const hasty = w.open().require('reports').with({ dedupe: true, timeout: 50 }).emit('render')
    const refused = assert.rejects(hasty, { code: 'E_TIMEOUT' })
    await sleep(20)
    assert.equal(
      await w.open().require('reports').with({ dedupe: true, timeout: 5_000 }).emit('render'),
      'done',
    )
    await refused
  },
)

onBothStores('dedupe - V1 the process that began the run has gone: it may have run', async (w) => {
  const { service } = await w.serve('work')
  let runs = 0
  service.on('do', () => {
    runs++
    service.off('do')
    return new Promise(() => {})
  })
  // The grace for handlers that are added after the registration.
  await sleep(1_050)
  const [first, second] = [w.open(), w.open()]
  const call = (caller: typeof first) => timed(caller.require('work').with({ dedupe: true }).emit('do'))
  const begun = call(first)
  await until(() => runs === 1, { what: 'the run' })
  const waiting = call(second)
  await sleep(50)
  await first.close({ grace: 0 })
  const { error } = await waiting
  assert.ok(error instanceof UnknownEventError && error.ran === 'maybe', `${error}`)
  await begun
})

onBothStores('dedupe - V2 the timeout of a try has passed: another process is called', async (w) => {
  let runs = 0
  for (let n = 0; n < 2; n++)
    (await w.serve('work')).service.on('do', () => (++runs === 1 ? new Promise(() => {}) : 'second'))
  const remote = w.open().require('work', { timeout: 500 }).with({ dedupe: true })
  assert.equal(await remote.pemit(3, 'do'), 'second')
  assert.equal(runs, 2)
})

onBothStores('dedupe - V1 tries without an end that take no time, and waits of all lengths', async (w) => {
  const { service } = await w.serve('work')
  service.on('hang', () => new Promise(() => {})).on('do', () => 'done')
  const caller = w.open()
  const remote = caller.require('work', { wait: 1_000 }).with({ dedupe: true })
  const { error, ms } = await timed(remote.with({ timeout: 0, within: 300 }).pemit(-1, 'hang'))
  assert.ok(error instanceof TimeoutError && ms >= 299 && ms < 2_000, `${ms}: ${error}`)
  const ends = AbortSignal.timeout(300)
  await assert.rejects(remote.with({ timeout: 0, signal: ends }).pemit(-1, 'hang'), { code: 'E_ABORTED' })
  for (const timeout of [0, 1, Number.POSITIVE_INFINITY])
    for (const tries of [1, 3])
      await timed(remote.with({ timeout, within: 100 }).pemit(tries, 'hang')).then(({ error }) =>
        assert.ok(error instanceof TimeoutError, `${timeout} ${tries}: ${error}`),
      )
  const endless = caller.require('work', { wait: Number.POSITIVE_INFINITY }).with({ dedupe: true })
  assert.equal(
    await endless.with({ timeout: Number.POSITIVE_INFINITY, within: 5_000 }).pemit(-1, 'do'),
    'done',
  )
})
