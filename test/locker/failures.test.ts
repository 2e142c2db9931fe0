import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import { CodecError, RemoteError } from '../../src/index.ts'
import { inBothStores, leaseOf, parked } from '../support/lockers.ts'
import { rejectionOf, until } from '../support/wait.ts'

inBothStores('failures - a failure reaches every waiter, with its code, fields and cause', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const root = Object.assign(new Error('root'), { code: 7 })
  const original = Object.assign(new RangeError('no such page', { cause: root }), {
    code: 'E_PAGE',
    page: { number: 42, bytes: Buffer.from('x') },
    skipped: new Map(),
  })
  const [started, gate] = [pDefer(), pDefer<string>()]
  const work = () => {
    started.resolve()
    return gate.promise
  }
  const runs = [one.run('key', work)]
  await started.promise
  runs.push(
    one.run('key', () => 'x'),
    other.run('key', () => 'x'),
  )
  await parked(one, 'key', 1)
  gate.reject(original)
  const [first, joined, elsewhere] = await Promise.all(runs.map(rejectionOf))
  const remote = {
    name: 'RangeError',
    message: 'no such page',
    code: 'E_PAGE',
    fields: { page: { number: 42, bytes: Buffer.from('x') } },
    cause: { name: 'Error', message: 'root', code: 7 },
  }
  for (const error of [first, joined, elsewhere]) {
    assert.ok(error instanceof RemoteError)
    assert.deepEqual(
      [error.name, error.code, error.key, error.message],
      ['RemoteError', 'E_REMOTE', 'key', 'no such page'],
    )
    assert.deepEqual(error.remote, remote)
  }
  assert.notEqual(first, joined)
  assert.equal((first as Error).cause, original)
  assert.equal((joined as Error).cause, original)
  const cause = (elsewhere as Error).cause
  assert.ok(cause instanceof RemoteError && cause.message === 'root' && cause.remote.code === 7)
  assert.equal(await other.run('key', () => 'anew'), 'anew')
})

inBothStores('failures - lease.fail reaches every waiter, and is kept for its ttl', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const lease = await leaseOf(one, 'key')
  const waiting = rejectionOf(other.run('key', () => 'x'))
  await parked(one, 'key', 1)
  await lease.fail(new TypeError('bad'), { ttl: 60_000 })
  const failure = await waiting
  assert.ok(failure instanceof RemoteError && failure.remote.name === 'TypeError')
  assert.ok((await rejectionOf(one.request('key'))) instanceof RemoteError)
})

inBothStores('L5 failures - the encoded size of a failure is bounded, and the failure arrives', async (w) => {
  const [one, other] = [w.create({ errorTtl: 60_000 }), w.create()]
  const large = Object.assign(new Error('m'.repeat(100_000)), {
    first: 'small',
    body: 'b'.repeat(100_000),
    after: 'x'.repeat(7000),
  })
  let deep: Error = new Error('0')
  for (let level = 1; level < 50; level++) deep = new Error(String(level), { cause: deep })
  large.cause = deep
  await rejectionOf(one.run('key', () => Promise.reject(large)))
  const error = await rejectionOf(other.run('key', () => 'x'))
  assert.ok(error instanceof RemoteError)
  assert.ok(error.message.length <= 8192 && error.message.startsWith('mmm'))
  assert.ok(JSON.stringify(error.remote.fields ?? {}).length <= 8192 + 64)
  assert.equal(error.remote.fields?.['first'], 'small')
  assert.equal(error.remote.fields?.['body'], undefined)
  let causes = 0
  for (let cause = error.remote.cause; cause; cause = cause.cause) causes++
  assert.ok(causes >= 1 && causes <= 5, `${causes} causes`)
})

inBothStores('failures - any thrown value reaches every waiter as a RemoteError', async (w) => {
  const [one, other] = [w.create({ errorTtl: 60_000 }), w.create()]
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  const refuse = () => {
    throw new Error('a trap')
  }
  const untellable = Object.assign(() => {}, { toString: refuse })
  const thrown: Record<string, unknown> = {
    undefined: undefined,
    null: null,
    text: 'just text',
    number: 42,
    symbol: Symbol('s'),
    bare: Object.create(null),
    getters: Object.defineProperties({}, { message: { get: refuse }, x: { get: refuse, enumerable: true } }),
    trapped: new Proxy({}, { get: refuse, ownKeys: refuse, getPrototypeOf: refuse }),
    revoked: proxy,
    untellable,
    long: 'l'.repeat(1_000_000),
    cyclic: Object.assign(new Error('cyclic'), { self: [1] }),
  }
  const cyclic = thrown['cyclic'] as Error & { self: unknown }
  cyclic.self = cyclic
  cyclic.cause = cyclic
  for (const [key, value] of Object.entries(thrown)) {
    const here = await rejectionOf(one.run(key, () => Promise.reject(value)))
    assert.ok(here instanceof RemoteError, `${key}: ${String((here as Error).message)}`)
    const there = await rejectionOf(other.run(key, () => 'x'))
    assert.ok(there instanceof RemoteError, key)
    assert.ok(there.message.length <= 8192, 'there.message.length <= 8192')
  }
  assert.equal(one.stats().held, 0)
})

inBothStores(
  'failures - a result that the codec refuses fails every waiter and releases the lease',
  async (w) => {
    const [one, other] = [w.create({ errorTtl: 60_000 }), w.create()]
    const gate = pDefer<unknown>()
    const runs = [one.run('key', () => gate.promise)]
    await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
    runs.push(other.run('key', () => 'x'))
    await parked(one, 'key', 1)
    gate.resolve({ at: { when: new Date(0) } })
    for (const error of await Promise.all(runs.map(rejectionOf))) {
      assert.ok(error instanceof RemoteError)
      assert.equal(error.remote.code, 'E_CODEC')
      assert.match(error.message, /An instance of Date at \$\.at\.when/)
    }
    assert.equal(await other.run('key', () => 'anew'), 'anew')
    const lease = await leaseOf(one, 'other')
    const error = await rejectionOf(lease.publish(new Map()))
    assert.ok(error instanceof CodecError && error.key === 'other')
    assert.equal((await one.peek('other')).status, 'free')
  },
)
