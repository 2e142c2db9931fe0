import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import { RemoteError } from '../../src/index.ts'
import { inBothStores } from '../support/lockers.ts'
import { until } from '../support/wait.ts'

inBothStores('ttl - a result expires after its ttl', async (w) => {
  const [one, other] = [w.create({ ttl: 300 }), w.create({ cache: false })]
  let works = 0
  const work = () => ++works
  const from = performance.now()
  assert.equal(await one.run('key', work), 1)
  assert.equal(await other.run('key', work), 1)
  const { value } = await other.peek('key')
  assert.ok(value && value.ttlLeft > 0 && value.ttlLeft <= 300 && value.age >= 0)
  await until(async () => (await other.peek('key')).status === 'free', { what: 'the result to expire' })
  assert.ok(performance.now() - from >= 299)
  assert.equal(await other.run('key', work), 2)
  assert.equal(await other.run('brief', () => 'kept', { ttl: 60_000 }), 'kept')
  assert.ok(((await one.peek('brief')).value?.ttlLeft ?? 0) > 50_000)
})

inBothStores('ttl - with ttl 0 only waiters receive the result', async (w) => {
  const [one, other] = [w.create({ ttl: 0 }), w.create({ ttl: 0 })]
  const gate = pDefer<number>()
  const first = one.run('key', () => gate.promise)
  await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
  const waiting = [one.run('key', () => 2), other.run('key', () => 3)]
  await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
  gate.resolve(1)
  assert.deepEqual(await Promise.all([first, ...waiting]), [1, 1, 1])
  assert.equal((await one.peek('key')).status, 'free')
  assert.equal(await other.run('key', () => 4), 4)
})

inBothStores('ttl - ttlJitter shortens the ttl by up to its fraction', async (w) => {
  const locker = w.create({ ttl: 1_000_000, ttlJitter: 0.5 })
  const keys = Array.from({ length: 40 }, (_, index) => `key${index}`)
  await Promise.all(keys.map((key) => locker.run(key, () => 1)))
  const lefts = await Promise.all(keys.map(async (key) => (await locker.peek(key)).value?.ttlLeft ?? 0))
  for (const left of lefts) assert.ok(left > 490_000 && left <= 1_000_000, String(left))
  assert.ok(Math.max(...lefts) - Math.min(...lefts) > 100_000, 'they are spread')
})

inBothStores('ttl - errorTtl keeps a failure; without it the next caller runs the work again', async (w) => {
  const [one, other] = [w.create({ errorTtl: 400 }), w.create()]
  let works = 0
  const work = () => {
    throw new Error(`failure ${++works}`)
  }
  await assert.rejects(one.run('key', work), { message: 'failure 1' })
  await assert.rejects(other.run('key', work), { message: 'failure 1' })
  await assert.rejects(one.run('key', work), { message: 'failure 1' })
  const again = () => other.run('key', () => 'now it works').catch(() => undefined)
  assert.equal(await until(again, { what: 'the failure to expire', every: 20 }), 'now it works')
  await assert.rejects(other.run('other', work), { message: 'failure 2' })
  await assert.rejects(other.run('other', work), { message: 'failure 3' })
  await assert.rejects(other.run('third', work, { errorTtl: 60_000 }), { message: 'failure 4' })
  await assert.rejects(one.run('third', work), { message: 'failure 4' })
  assert.equal(await one.run('third', () => 'refreshed', { refresh: true }), 'refreshed')
})

inBothStores(
  'S4 ttl - refresh runs the work once for all callers that refresh, and serves the others meanwhile',
  async (w) => {
    const [one, other] = [w.create({ cache: false }), w.create({ cache: false })]
    assert.equal(await one.run('key', () => 'old'), 'old')
    const gate = pDefer<string>()
    const refreshed = one.run('key', () => gate.promise, { refresh: true })
    await until(async () => (await one.peek('key')).lock, { what: 'the refresh' })
    assert.equal((await one.peek('key')).status, 'done')
    assert.equal(await other.run('key', () => 'unused'), 'old')
    let works = 0
    const second = other.run('key', () => `newest ${++works}`, { refresh: true })
    const third = other.run('key', () => `newest ${++works}`, { refresh: true })
    await until(async () => (await one.peek('key')).lock?.parked, { what: 'the park' })
    gate.resolve('new')
    assert.equal(await refreshed, 'new')
    const later = await Promise.all([second, third])
    for (const result of later) assert.match(result, /^newest [12]$/, 'its work began after the call')
    assert.equal(await one.run('key', () => 'unused'), `newest ${works}`)
  },
)

inBothStores('ttl - a refresh that fails keeps the old result', async (w) => {
  const locker = w.create({ cache: false })
  await locker.run('key', () => 'old')
  const fails = () => Promise.reject(new Error('no'))
  await assert.rejects(locker.run('key', fails, { refresh: true }), RemoteError)
  assert.equal(await locker.run('key', () => 'unused'), 'old')
})
