import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { AbortedError, type Locker } from '../../src/index.ts'
import { LockerProcesses } from '../support/locker-process.ts'
import { expired, lockersIn, withAndWithoutCache } from '../support/lockers.ts'
import { soon, until } from '../support/wait.ts'

/** A work that runs until the test ends it, and exposes its signal. */
function endless() {
  const gate = pDefer<string>()
  let signal: AbortSignal | undefined
  return {
    end: gate.resolve,
    get signal() {
      return signal
    },
    work: (context: { signal: AbortSignal }) => {
      signal = context.signal
      return gate.promise
    },
  }
}

/** A caller that can abort. */
function caller(
  locker: Locker,
  work: (context: { signal: AbortSignal }) => Promise<string>,
  abortUnwanted = true,
) {
  const abort = new AbortController()
  const result = locker.run('k', work, { signal: abort.signal, abortUnwanted })
  result.catch(() => {})
  return { result, leave: () => abort.abort() }
}

withAndWithoutCache(
  'abortUnwanted - the signal aborts when no waiter is left in any process',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const w = endless()
    const callers = [caller(one, w.work), caller(one, w.work)]
    await until(() => w.signal !== undefined, { what: 'the work' })
    callers.push(caller(other, w.work), caller(other, w.work))
    await until(() => other.stats().parks === 1, { what: 'the other to wait' })
    for (const { leave } of callers.slice(0, 3)) leave()
    await assert.rejects(callers[0]?.result as Promise<string>, AbortedError)
    await one.peek('k')
    await one.peek('k')
    assert.equal(w.signal?.aborted, false)
    callers[3]?.leave()
    await until(() => w.signal?.aborted === true, { what: 'the signal' })
    assert.ok(w.signal?.reason instanceof AbortedError, 'the reason')
    await until(async () => (await other.peek('k')).status === 'free', { what: 'the lock to be free' })
    // A later caller starts a new work. The aborted work cannot publish.
    assert.equal(await other.run('k', () => 'new'), 'new')
    w.end('old')
    assert.equal(await one.run('k', () => 'unused'), 'new')
  },
)

withAndWithoutCache(
  'abortUnwanted - a waiter that returns in time keeps the work running',
  async (world, options) => {
    const [one, other] = [await world.open(options), await world.open(options)]
    const w = endless()
    const first = caller(one, w.work)
    await until(() => w.signal !== undefined, { what: 'the work' })
    const second = caller(other, w.work)
    await until(() => other.stats().parks === 1, { what: 'the other to wait' })
    first.leave()
    const third = caller(one, w.work)
    second.leave()
    await one.peek('k')
    assert.equal(await soon(third.result, 50), 'pending')
    assert.equal(w.signal?.aborted, false)
    w.end('value')
    assert.equal(await third.result, 'value')
  },
)

withAndWithoutCache(
  'abortUnwanted - without the option the work goes on, and its result is kept',
  async (world, options) => {
    const one = await world.open(options)
    const w = endless()
    const { leave, result } = caller(one, w.work, false)
    await until(() => w.signal !== undefined, { what: 'the work' })
    leave()
    await assert.rejects(result, AbortedError)
    assert.equal(w.signal?.aborted, false)
    w.end('value')
    await until(async () => (await one.peek('k')).status === 'done', { what: 'the result' })
  },
)

withAndWithoutCache('abortUnwanted - a background refresh is not aborted', async (world, options) => {
  const one = await world.open(options)
  const swr = { ttl: 30, staleWhileRevalidate: 60_000, abortUnwanted: true }
  await one.run('k', () => 'old', swr)
  await expired(one, 'k')
  const w = endless()
  assert.equal(await one.run('k', w.work, swr), 'old')
  await until(() => w.signal !== undefined, { what: 'the renewal' })
  await one.peek('k')
  assert.equal(w.signal?.aborted, false)
  w.end('new')
  await until(async () => (await one.run('k', () => 'none', swr)) === 'new', { what: 'the new result' })
})

test('abortUnwanted - a waiter whose process died does not count', async () => {
  await using world = await lockersIn('redis')
  const one = await world.open({ lease: 600 })
  const redis = world.t?.redis
  assert.ok(redis, 'a server')
  await using processes = await LockerProcesses.start({ redis, cache: false })
  const w = endless()
  const first = caller(one, w.work)
  await until(() => w.signal !== undefined, { what: 'the work' })
  processes
    .at(0)
    .call('run', 'k')
    .catch(() => {})
  await until(async () => (await one.peek('k')).lock?.parked === 1, { what: 'the other to wait' })
  first.leave()
  await one.peek('k')
  assert.equal(w.signal?.aborted, false)
  await processes.at(0).kill()
  // The next renewal of the lease finds that no waiter is left.
  await until(() => w.signal?.aborted === true, { what: 'the signal' })
})
