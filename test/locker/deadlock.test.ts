import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Connection, DeadlockError, Locker, MemoryStore } from '../../src/index.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const timeout = 3000

/** The error that a work failed with: the cause of the RemoteError that its caller receives. */
async function originOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    let origin = error as Error
    while (origin.cause instanceof Error) origin = origin.cause
    return origin
  }
  return assert.fail('it did not reject')
}

test('deadlock - a work that requests its own key fails at once', async () => {
  await using locker = new Locker({ timeout })
  const asks: Record<string, () => Promise<unknown>> = {
    run: () => locker.run('run', () => 1),
    request: () => locker.request('request'),
    refresh: () => locker.run('refresh', () => 1, { refresh: true }),
    memoized: () => locker.memoize(() => 1, { key: () => 'memoized' })(),
  }
  for (const [name, ask] of Object.entries(asks)) {
    const error = await originOf(locker.run(name, ask))
    assert.ok(error instanceof DeadlockError, name)
    assert.deepEqual([error.code, error.key], ['E_DEADLOCK', name])
  }
})

test('deadlock - a cycle through other works, timers and promises is found', async () => {
  await using locker = new Locker({ timeout })
  const ask = () => locker.run('a', () => 1)
  const later = () => new Promise((resolve, reject) => setTimeout(() => ask().then(resolve, reject), 5))
  const error = await originOf(locker.run('a', () => locker.run('b', () => locker.run('c', later))))
  assert.ok(error instanceof DeadlockError, 'error instanceof DeadlockError')
})

test('deadlock - of two works that wait for each other, one fails', async () => {
  await using locker = new Locker({ timeout })
  const bothRun = [pDefer(), pDefer()]
  const meet = (mine: number, other: string) => async () => {
    bothRun[mine]?.resolve()
    await Promise.all(bothRun.map(({ promise }) => promise))
    return locker.run(other, () => 'unused').catch((error) => error.code)
  }
  const results = await Promise.all([locker.run('a', meet(0, 'b')), locker.run('b', meet(1, 'a'))])
  assert.deepEqual(results, ['E_DEADLOCK', 'E_DEADLOCK'], 'one failed, the other received its result')
})

test('deadlock - works may request other keys, in parallel and nested, and the same key twice', async () => {
  await using locker = new Locker({ timeout })
  const leaf = (name: string) => locker.run(name, () => name)
  const result = await locker.run('top', async () => {
    const both = await Promise.all([leaf('x'), leaf('y'), locker.run('z', () => leaf('x'))])
    return [...both, await leaf('x')]
  })
  assert.deepEqual(result, ['x', 'y', 'x', 'x'])
})

test('deadlock - code that a work started may request its key after the work has ended', async () => {
  await using locker = new Locker({ timeout, cache: false })
  const after = pDefer<unknown>()
  await locker.run('key', () => {
    setTimeout(() => locker.run('key', () => 'unused').then(after.resolve, after.reject), 50)
    return 'done'
  })
  assert.equal(await after.promise, 'done')
})

test('deadlock - the same key of another store is another key', async () => {
  await using near = new Locker({ timeout })
  await using far = new Locker({ timeout })
  const result = await near.run('report', () => far.run('report', () => 'computed once, kept at two levels'))
  assert.equal(result, 'computed once, kept at two levels')
})

test('deadlock - the same key under another prefix is another key', async () => {
  const store = new MemoryStore()
  await using one = new Locker({ timeout, store, prefix: 'a' })
  await using other = new Locker({ timeout, store, prefix: 'b' })
  assert.equal(await one.run('key', () => other.run('key', () => 'of b')), 'of b')
})

test('deadlock - a cycle across lockers of one connection is found', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await using one = new Locker({ redis: connection, timeout })
  await using other = new Locker({ redis: connection, timeout })
  const error = await originOf(one.run('a', () => other.run('b', () => one.run('a', () => 1))))
  assert.ok(error instanceof DeadlockError, 'error instanceof DeadlockError')
})

test('L1 deadlock - a cycle across processes ends at the timeout of the waiters', async () => {
  const store = new MemoryStore()
  await using one = new Locker({ store, timeout: 400 })
  await using other = new Locker({ store, timeout: 400 })
  const bothRun = [pDefer(), pDefer()]
  const cross = (mine: number, from: Locker, key: string) => async () => {
    bothRun[mine]?.resolve()
    await Promise.all(bothRun.map(({ promise }) => promise))
    return from.run(key, () => 'unused')
  }
  const from = performance.now()
  const runs = [one.run('a', cross(0, one, 'b')), other.run('b', cross(1, other, 'a'))]
  for (const outcome of await Promise.allSettled(runs)) assert.equal(outcome.status, 'rejected')
  const waited = performance.now() - from
  assert.ok(waited >= 395 && waited < 900, `${waited} ms`)
  await until(() => one.stats().held + other.stats().held === 0, { what: 'the leases to be settled' })
})

test('deadlock - a wait that has ended does not make a later wait a cycle', async () => {
  await using locker = new Locker({ timeout, cache: false })
  const gate = pDefer<string>()
  const outer = locker.run('a', async () => {
    await locker.run('b', () => 'first', { ttl: 0 })
    return gate.promise
  })
  await until(() => locker.stats().settled === 1, { what: 'b' })
  const second = locker.run('b', () => locker.run('a', () => 'unused'))
  await until(() => locker.stats().joins === 1, { what: 'b to wait for a' })
  gate.resolve('done')
  assert.deepEqual(await Promise.all([outer, second]), ['done', 'done'])
})
