// Several tries: when there is another, what a handler sees of them, which answer counts.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { BusyError, ProcessLostError, RemoteError, TimeoutError } from '../../src/errors.ts'
import { type Call, MemoryServices, Services } from '../../src/services/index.ts'
import { onBothStores, type ServicesWorld } from '../support/services.ts'
import { rejectionOf, soon, timed, until } from '../support/wait.ts'

/** Two processes whose handlers do as they are told. `seen`: the process and the attempt of each run. */
async function two(
  w: ServicesWorld,
  handler: (call: Call, run: number) => unknown,
): Promise<{ caller: Services; seen: [string, number][] }> {
  const seen: [string, number][] = []
  for (let n = 0; n < 2; n++) {
    const { services, service } = await w.serve('work')
    service.on('do', (call: Call) => {
      seen.push([services.id, call.attempt])
      return handler(call, seen.length)
    })
  }
  return { caller: w.open(), seen }
}

onBothStores(
  'pemit - V2 after the timeout of a try, another process is called; it sees the attempt',
  async (w) => {
    const ids: string[] = []
    const { caller, seen } = await two(w, (call, run) => {
      ids.push(call.id)
      return run === 1 ? new Promise(() => {}) : 'second'
    })
    const { value, ms } = await timed(() => caller.require('work', { timeout: 400 }).pemit(2, 'do'))
    assert.equal(value, 'second')
    assert.ok(ms >= 399 && ms < 900, `${ms}`)
    assert.deepEqual(
      seen.map(([, attempt]) => attempt),
      [1, 2],
    )
    assert.notEqual(seen[0]?.[0], seen[1]?.[0])
    assert.equal(ids[0], ids[1])
  },
)

onBothStores('pemit - V1 the last try has timed out: TimeoutError, after all of them', async (w) => {
  const { caller, seen } = await two(w, () => new Promise(() => {}))
  const { error, ms } = await timed(() => caller.require('work', { timeout: 100 }).pemit(2, 'do'))
  assert.ok(error instanceof TimeoutError && error.ran === 'maybe', `${error}`)
  assert.ok(ms >= 199 && ms < 900, `${ms}`)
  assert.equal(seen.length, 2)
})

onBothStores('pemit - V2 a process runs a call once, however often it is tried there', async (w) => {
  const { service } = await w.serve('work')
  let runs = 0
  const gate = pDefer()
  service.on('do', async () => {
    runs++
    await gate.promise
    return 'once'
  })
  const call = w.open().require('work', { timeout: 100 }).pemit(100, 'do')
  await sleep(350)
  gate.resolve()
  assert.equal(await call, 'once')
  assert.equal(runs, 1)
  await w.idle('work')
})

onBothStores('pemit - V2 nor while it waits for its handler, just after the registration', async (w) => {
  const { service } = await w.serve('work')
  const call = w.open().require('work', { timeout: 100 }).pemit(100, 'do')
  await sleep(350)
  let runs = 0
  service.on('do', async () => {
    runs++
    await sleep(50)
    return 'once'
  })
  assert.equal(await call, 'once')
  await w.idle('work')
  assert.equal(runs, 1)
})

onBothStores('pemit - a late answer of an earlier try wins', async (w) => {
  const gate = pDefer()
  const { caller, seen } = await two(w, async (_, run) => {
    await (run === 1 ? gate.promise : new Promise(() => {}))
    return 'the first'
  })
  const call = caller.require('work', { timeout: 150 }).pemit(100, 'do')
  await until(() => seen.length >= 2, { what: 'the second try' })
  gate.resolve()
  assert.equal(await soon(call), 'the first')
})

onBothStores('pemit - a handler that fails because its signal fired does not end the call', async (w) => {
  const { caller, seen } = await two(w, (call, run) => {
    if (run > 1) return sleep(50).then(() => 'second')
    return new Promise((_, reject) => call.signal.addEventListener('abort', () => reject(call.signal.reason)))
  })
  assert.equal(await caller.require('work', { timeout: 400 }).pemit(2, 'do'), 'second')
  assert.equal(seen.length, 2)
  await w.idle('work')
})

onBothStores('pemit - a handler that fails is not tried again', async (w) => {
  const { caller, seen } = await two(w, () => {
    throw new Error('no')
  })
  assert.ok((await rejectionOf(caller.require('work').pemit(5, 'do'))) instanceof RemoteError)
  assert.equal(seen.length, 1)
})

onBothStores('pemit - all processes are full: it pauses, then tries again', async (w) => {
  const { service } = await w.serve('work', { capacity: 1 })
  const gate = pDefer()
  let runs = 0
  service.on('do', async () => {
    runs++
    await gate.promise
    return runs
  })
  const remote = w.open().require('work')
  const first = remote.emit('do')
  await until(() => runs === 1, { what: 'the first' })
  const { error, ms } = await timed(() => remote.pemit(3, 'do'))
  assert.ok(error instanceof BusyError && error.ran === 'no', `${error}`)
  // 50 and 100 ms.
  assert.ok(ms >= 149 && ms < 700, `${ms}`)
  const patient = remote.with({ within: 10_000 }).pemit(-1, 'do')
  await sleep(300)
  assert.equal(runs, 1)
  gate.resolve()
  assert.equal(await first, 1)
  assert.equal(await patient, 2)
  await w.idle('work')
})

onBothStores('pemit - `within` bounds all tries together, a signal ends them', async (w) => {
  const { caller, seen } = await two(w, () => new Promise(() => {}))
  const remote = caller.require('work', { timeout: 100 })
  const { error, ms } = await timed(() => remote.with({ within: 250 }).pemit(-1, 'do'))
  assert.ok(error instanceof TimeoutError && error.ran === 'maybe', `${error}`)
  assert.ok(ms >= 249 && ms < 800, `${ms}`)
  assert.equal(seen.length, 2, 'a third try is one at a process that has run it')
  const abort = new AbortController()
  const endless = remote.with({ signal: abort.signal }).pemit(-1, 'do')
  await sleep(250)
  abort.abort()
  await assert.rejects(endless, { code: 'E_ABORTED', ran: 'maybe' })
})

onBothStores('pemit - the number of tries is checked', async (w) => {
  const remote = w.open().require('work')
  for (const tries of [0, -2, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '3', null, undefined])
    await assert.rejects(
      remote.pemit(tries as number, 'do'),
      /^TypeError: Expected `tries` to be a whole/,
      `${tries}`,
    )
  await assert.rejects(remote.pemit(-1, 'do'), /^TypeError: Expected `within` or `signal`/)
  // It is connected then.
  await assert.rejects(remote.emit('do'), { code: 'E_NO_SERVICE' })
  await assert.rejects(remote.with({ within: 50 }).pemit(-1, 'do'), { code: 'E_NO_SERVICE' })
})

onBothStores('pemit - V1 V3 a process that closes: the next one takes over, once', async (w) => {
  const { caller, seen } = await two(w, (_, run) => (run === 1 ? new Promise(() => {}) : 'second'))
  const call = caller.require('work').pemit(2, 'do')
  await until(() => seen.length === 1, { what: 'the first try' })
  const [[first = ''] = []] = seen
  await w.find(first).close({ grace: 0 })
  assert.equal(await soon(call, 1_000), 'second')
  assert.deepEqual(
    seen.map(([, attempt]) => attempt),
    [1, 2],
  )
  await w.idle('work')
})

onBothStores('pemit - V1 emit does not try again: ProcessLostError when the process closes', async (w) => {
  const { caller, seen } = await two(w, () => new Promise(() => {}))
  const call = timed(caller.require('work').emit('do'))
  await until(() => seen.length === 1, { what: 'the call' })
  await w.find(seen[0]?.[0] ?? '').close({ grace: 0 })
  const { error } = await call
  assert.ok(error instanceof ProcessLostError && error.ran === 'maybe', `${error}`)
  assert.equal(seen.length, 1)
})

onBothStores('pemit - `local-first`: a process that was tried is not preferred', async (w) => {
  const { seen } = await two(w, () => 'second')
  const { services, service } = await w.serve('work')
  service.on('do', () => {
    seen.push([services.id, 0])
    return new Promise(() => {})
  })
  const remote = services.require('work', { choose: 'local-first', timeout: 400 })
  assert.equal(await remote.pemit(3, 'do'), 'second')
  assert.equal(seen[0]?.[0], services.id)
  assert.equal(seen.length, 2)
})

test('pemit - the only process has lost the call: it is asked again with pauses', async () => {
  let delivered = 0
  // Without a pause, timers would never fire.
  const deliver = (message: () => void) => {
    if (++delivered < 1_000) queueMicrotask(message)
  }
  const store = new MemoryServices({ deliver })
  await using server = new Services({ store })
  await using caller = new Services({ store })
  const service = await server.register('work')
  service.on('do', async (call: Call) => {
    await new Promise((_, reject) =>
      call.signal.addEventListener('abort', () => reject(call.signal.reason as Error)),
    )
  })
  const remote = caller.require('work', { timeout: 50 }).with({ within: 1_000 })
  await assert.rejects(remote.pemit(-1, 'do'), { code: 'E_TIMEOUT', ran: 'maybe' })
  // Tries with pauses of 50, 100, 200 and 400 ms.
  assert.ok(delivered > 8 && delivered < 60, `${delivered}`)
})
