import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import {
  AbortedError,
  ClosedError,
  DeadlockError,
  Locker,
  MemoryStore,
  RemoteError,
  TimeoutError,
  UnavailableError,
} from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { LockerProcesses, told } from '../support/locker-process.ts'
import { LONG, onCommands, onSubscription, type Scene, scene } from '../support/locker-scene.ts'
import { inBothStores, type LockerWorld, leaseOf, parked, withAndWithoutCache } from '../support/lockers.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** Resolves when `count` flights are parked on a key, whether or not anybody works on it. */
async function waiting(w: Pick<LockerWorld, 'parks'>, key: string, count = 1): Promise<void> {
  await until(async () => (await w.parks(key)) === count, { what: `${count} flights to be parked on ${key}` })
}

/** Resolves when one flight is parked, as the server of a scene has it. */
function parkedAt({ t }: Scene, key: string): Promise<void> {
  return waiting(
    { parks: async (name) => Number(await t.server.call('HGET', recordKey('soloflight', name), 'n')) },
    key,
  )
}

withAndWithoutCache('wait - a kept result is returned at once', async (w, options) => {
  const [one, other] = [w.create(options), w.create(options)]
  await one.run('key', () => 'kept')
  assert.equal(await one.wait('key'), 'kept')
  assert.equal(await other.wait('key', { timeout: 1000 }), 'kept')
})

withAndWithoutCache('wait - the outcome of whoever works reaches all that wait', async (w, options) => {
  const [one, other] = [await w.open(options), await w.open({ ...options, lease: LONG })]
  const lease = await leaseOf(other, 'key')
  const waits = [one.wait('key'), one.wait('key'), other.wait('key')]
  await parked(one, 'key', 2)
  await lease.publish('published', { ttl: 0 })
  assert.deepEqual(await Promise.all(waits), ['published', 'published', 'published'])
})

withAndWithoutCache('wait - with nobody at work it waits until somebody publishes', async (w, options) => {
  const [one, other] = [await w.open(options), await w.open(options)]
  const waits = [one.wait('key'), other.wait('key')]
  await waiting(w, 'key', 2)
  assert.equal((await one.peek('key')).status, 'free')
  const works = ['a', 'b'].map((value) => other.run('key', () => value, { ttl: 0 }))
  const [first] = await Promise.all(works)
  assert.deepEqual(await Promise.all(waits), [first, first])
})

inBothStores('wait - it is never granted the lease, and keeps nobody from it', async (w) => {
  const [one, other] = [await w.open(), await w.open({ lease: LONG })]
  const lease = await leaseOf(other, 'key')
  // It is parked first: the message that the key is free is for the caller behind it.
  const wait = one.wait('key')
  await parked(one, 'key', 1)
  const next = leaseOf(one, 'key')
  await parked(one, 'key', 2)
  await lease.release()
  await (await next).publish('of the next')
  assert.equal(await wait, 'of the next')
})

inBothStores('wait - the error of the processor reaches it', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const wait = one.wait('key')
  await waiting(w, 'key')
  const isBroken = (error: unknown) => error instanceof RemoteError && /broken/.test(error.message)
  // The notice may arrive before the reply.
  const failed = assert.rejects(wait, isBroken)
  await other.run('key', () => Promise.reject(new Error('broken'))).catch(() => {})
  await failed
})

inBothStores('wait - a processor that dies is not replaced, and the next one is waited for', async (w) => {
  for (const takeover of [true, false]) {
    const [one, other] = [await w.open({ takeover }), await w.open()]
    const key = `key ${takeover}`
    await w.dieHolding(key, 150)
    const wait = one.wait(key)
    await parked(one, key, 1)
    await until(async () => (await one.peek(key)).status === 'free', { what: 'the lease to run out' })
    // It has asked again since, and was parked again.
    await until(() => one.stats().parks >= 2, { what: 'another question' })
    assert.equal(await other.run(key, () => 'of the next', { ttl: 0 }), 'of the next')
    assert.equal(await wait, 'of the next')
    assert.equal(one.stats().grants, 0)
  }
})

inBothStores('wait - it ends by its timeout, its signal and the end of its locker', async (w) => {
  const locker = await w.open()
  await assert.rejects(locker.wait('key', { timeout: 30 }), TimeoutError)
  await assert.rejects(locker.wait('key', { timeout: 0 }), TimeoutError)
  const ending = new AbortController()
  const wait = locker.wait('key', { signal: ending.signal, timeout: Number.POSITIVE_INFINITY })
  await waiting(w, 'key')
  ending.abort()
  await assert.rejects(wait, AbortedError)
  await waiting(w, 'key', 0)
  const last = locker.wait('key')
  await waiting(w, 'key')
  await Promise.all([locker.close({ grace: 0 }), assert.rejects(last, ClosedError)])
  await assert.rejects(locker.wait('key'), ClosedError)
})

inBothStores('wait - what is invalidated before it asks does not reach it', async (w) => {
  const [one, other] = [await w.open({ cache: false }), await w.open({ cache: false })]
  const lease = await leaseOf(other, 'key')
  const before = one.wait('key')
  await parked(one, 'key', 1)
  await one.invalidate('key')
  const after = one.wait('key')
  await until(() => one.stats().waiters >= 2, { what: 'both to wait' })
  await lease.publish('old')
  assert.equal(await before, 'old')
  assert.equal(await other.run('key', () => 'new'), 'new')
  assert.equal(await after, 'new')
})

inBothStores('wait - a work that waits for itself is told', async (w) => {
  const locker = w.create()
  await assert.rejects(
    locker.run('key', () => locker.wait('key')),
    (error) => error instanceof RemoteError && error.cause instanceof DeadlockError,
  )
  const outer = locker.run('outer', () => locker.wait('inner'))
  await until(() => locker.stats().running === 1 || locker.stats().waiters >= 2, { what: 'the work' })
  await locker.run('inner', () => 'inner')
  assert.equal(await outer, 'inner')
})

inBothStores('wait - a work that is awaited by it alone is wanted', async (w) => {
  const [one, other] = [await w.open(), await w.open({ lease: 200 })]
  const ending = new AbortController()
  let aborted = false
  const done = pDefer<string>()
  const work = ({ signal }: { signal: AbortSignal }) => {
    signal.addEventListener('abort', () => {
      aborted = true
    })
    return done.promise
  }
  const run = other.run('key', work, { abortUnwanted: true, signal: ending.signal })
  await until(() => other.stats().running === 1, { what: 'the work' })
  const wait = one.wait('key')
  await parked(one, 'key', 1)
  ending.abort()
  await assert.rejects(run, AbortedError)
  done.resolve('done')
  assert.equal(await wait, 'done')
  assert.equal(aborted, false)
})

test('wait - while nobody works it asks every 20 s, and is still there for the outcome', async () => {
  const clock = new ManualClock()
  const store = new MemoryStore({ clock })
  await using locker = new Locker({ store, ttl: 0, cache: false })
  const wait = locker.wait('key', { timeout: Number.POSITIVE_INFINITY })
  await settled()
  assert.equal(locker.stats().parks, 1)
  await clock.pass(5 * 60_000)
  assert.ok(Math.abs(locker.stats().parks - 15) <= 1, `asked ${locker.stats().parks} times in 5 min`)
  const run = locker.run('key', () => 'at last')
  await settled()
  assert.deepEqual(await Promise.all([wait, run]), ['at last', 'at last'])
})

inBothStores('wait - wrong keys and options are refused', async (w) => {
  const locker = w.create()
  await assert.rejects(locker.wait(''), TypeError)
  // @ts-expect-error: a number is no key
  await assert.rejects(locker.wait(1), TypeError)
  await assert.rejects(locker.wait('key', { timeout: -1 }), TypeError)
  // @ts-expect-error: it takes no lease
  await assert.rejects(locker.wait('key', { lease: 1000 }), TypeError)
})

test('wait - an outcome that was published while its subscription was lost is read', async () => {
  await using s = await scene()
  const wait = s.locker.wait('key')
  await parkedAt(s, 'key')
  await s.t.proxy.refuse(true)
  s.t.proxy.cut(onSubscription)
  await until(() => !s.locker.stats().subscribed, { what: 'the loss to be noticed' })
  await s.other.run('key', () => 'missed', { ttl: 0 })
  await s.t.proxy.refuse(false)
  assert.equal(await wait, 'missed')
})

test('wait - it outlives a lost connection, and fails when Redis stays away', async () => {
  await using s = await scene({ unavailableAfter: 500, onUnavailable: 'local' })
  const wait = s.locker.wait('key')
  await parkedAt(s, 'key')
  s.t.proxy.cut(onCommands)
  s.t.proxy.cut(onSubscription)
  await s.other.run('key', () => 'there', { ttl: 0 })
  assert.equal(await wait, 'there')
  await s.t.proxy.refuse(true)
  s.t.proxy.cut()
  await assert.rejects(s.locker.wait('other'), UnavailableError)
})

test('wait - in another process, it sees a killed processor replaced by others alone', async () => {
  await using t = await setup()
  const options = { redis: t.server.options, lease: 300 }
  await using processes = await LockerProcesses.start(options, options, options)
  const [victim, waiter, next] = [processes.at(0), processes.at(1), processes.at(2)]
  victim.call('run', 'key').catch(() => {})
  await told(victim, 'grant', 'key')
  const wait = waiter.call('wait', 'key')
  await told(waiter, 'asked', 'key')
  await until(async () => (await waiter.call('stats')).parks === 1, { what: 'it to be parked' })
  await victim.kill()
  await until(async () => (await waiter.call('stats')).parks >= 2, { what: 'it to be parked again' })
  const value = await next.call('run', 'key', { ms: 0 })
  assert.equal(await wait, value)
  assert.equal((await waiter.call('stats')).grants, 0)
})
