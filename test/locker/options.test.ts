import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deserialize, serialize } from 'node:v8'
import {
  type Codec,
  Locker,
  type LockerOptions,
  MemoryStore,
  RemoteError,
  UnavailableError,
} from '../../src/index.ts'
import { EPSILON, inBothStores, leaseOf } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

inBothStores('options - different prefixes share nothing', async (w) => {
  const [one, other, third] = [
    w.create({ prefix: 'a' }),
    w.create({ prefix: 'b' }),
    w.create({ prefix: 'a' }),
  ]
  assert.equal(await one.run('key', () => 'of a'), 'of a')
  assert.equal(await other.run('key', () => 'of b'), 'of b')
  assert.equal(await third.run('key', () => 'unused'), 'of a')
  await other.invalidate('key')
  assert.equal((await one.peek('key')).status, 'done')
  assert.equal((await other.peek('key')).status, 'free')
})

inBothStores('options - another codec carries results and progress, also what JSON cannot', async (w) => {
  const codec: Codec = { encode: serialize, decode: deserialize }
  const [one, other] = [w.create({ codec }), w.create({ codec, cache: false })]
  const value = new Map<string, unknown>([
    ['at', new Date(0)],
    ['big', 2n ** 70n],
  ])
  assert.deepEqual(await one.run('key', () => value), value)
  assert.deepEqual(await other.run('key', () => 'unused'), value)
  const plain = w.create({ cache: false })
  assert.equal(await plain.run('key', () => 'of another codec'), 'of another codec')
})

inBothStores('options - exposeError decides what leaves the process', async (w) => {
  const one = w.create({
    errorTtl: 60_000,
    exposeError: ({ name, message }) => ({ name, message: message.replace(/token \S+/, 'token …') }),
  })
  const other = w.create()
  const original = Object.assign(new RangeError('bad token abc'), { config: { authorization: 'secret' } })
  const here = await one.run('key', () => Promise.reject(original)).catch((error) => error)
  const there = await other.run('key', () => 'unused').catch((error) => error)
  for (const error of [here, there]) {
    assert.ok(error instanceof RemoteError)
    assert.deepEqual(error.remote, { name: 'RangeError', message: 'bad token …' })
    assert.equal(error.message, 'bad token …')
  }
  assert.equal(here.cause, original)
  assert.equal(there.cause, undefined)
})

inBothStores('L4 options - an exposeError that throws blocks no waiter', async (w) => {
  const one = w.create({
    exposeError() {
      throw new Error('the hook is broken')
    },
  })
  await assert.rejects(one.run('key', () => Promise.reject(new Error('original'))))
  await until(() => one.stats().held === 0, { what: 'the lease to be given up' })
  const [result, time] = [w.create().run('key', () => 'next'), performance.now()]
  assert.equal(await result, 'next')
  assert.ok(performance.now() - time < EPSILON)
})

test('options - unavailableAfter limits the wait for a Redis that is away', async () => {
  await using t = await setup()
  await t.server.kill()
  await using locker = new Locker({ redis: t.redis, unavailableAfter: 300 })
  const waited = await took(() => locker.request('key').catch(() => {}))
  assert.ok(waited >= 290 && waited < 300 + EPSILON, `${waited} ms`)
  const asks = [() => locker.run('key', () => 1), () => locker.peek('key'), () => locker.invalidate('key')]
  for (const ask of asks) {
    const asked = ask()
    await assert.rejects(Promise.resolve(asked), UnavailableError)
  }
})

test("options - onUnavailable 'local' runs the work once in this process, and reports it as unshared", async () => {
  await using t = await setup()
  await t.server.kill()
  await using locker = new Locker({ redis: t.redis, unavailableAfter: 200, onUnavailable: 'local' })
  let works = 0
  const work = ({ shared, fence }: { shared: boolean; fence: number }) => ({ shared, fence, works: ++works })
  const both = await Promise.all([locker.run('key', work), locker.run('key', work)])
  for (const result of both) assert.deepEqual(result, { shared: false, fence: 0, works: 1 })
  const lease = await leaseOf(locker, 'other')
  assert.deepEqual([lease.shared, lease.fence], [false, 0])
  await lease.publish('here')
  assert.equal(locker.stats().unshared, 2)
})

/** Invalid options of a locker, with the message of each. */
const BAD: [options: object, message: RegExp][] = [
  [{ tll: 1 }, /^Unknown option `tll` in `options`; known are prefix, /],
  [{ ttl: -1 }, /^Expected `ttl` to be a number of milliseconds from 0 and up, got `-1` \(number\)$/],
  [{ ttl: '5' }, /^Expected `ttl` .*, got `5` \(string\)$/],
  [{ ttl: Number.POSITIVE_INFINITY }, /^Expected `ttl` .*, got `Infinity` \(number\)$/],
  [{ ttl: Number.NaN }, /^Expected `ttl` .*, got `NaN` \(number\)$/],
  [{ ttl: null }, /^Expected `ttl` .*, got `null` \(object\)$/],
  [{ errorTtl: -1 }, /^Expected `errorTtl` /],
  [{ ttlJitter: 1.1 }, /^Expected `ttlJitter` to be a number from 0 to 1, got `1.1` \(number\)$/],
  [{ lease: 99 }, /^Expected `lease` to be a number of milliseconds from 100 and up, got `99` \(number\)$/],
  [{ maxHold: 0 }, /^Expected `maxHold` .* from 1 and up, or Infinity, got `0` \(number\)$/],
  [{ timeout: -1 }, /^Expected `timeout` .* or Infinity, got `-1` \(number\)$/],
  [{ unavailableAfter: 0 }, /^Expected `unavailableAfter` /],
  [
    { onUnavailable: 'retry' },
    /^Expected `onUnavailable` to be one of "fail", "local", "cached", "cached-local", got `retry` \(string\)$/,
  ],
  [{ takeover: 1 }, /^Expected `takeover` to be one of true, false, got `1` \(number\)$/],
  [
    { concurrency: 0 },
    /^Expected `concurrency` to be a whole number from 1 and up, or Infinity, got `0` \(number\)$/,
  ],
  [{ concurrency: 1.5 }, /^Expected `concurrency` /],
  [{ cache: true }, /^Expected `cache` to be an object, got `true` \(boolean\)$/],
  [{ cache: { size: 1 } }, /^Unknown option `size` in `cache`; known are max, maxSize$/],
  [{ cache: { max: 0 } }, /^Expected `cache.max` /],
  [{ codec: {} }, /^Expected `codec.encode` to be a function, got `undefined` \(undefined\)$/],
  [{ trace: 'x' }, /^Expected `trace` to be a function/],
  [{ exposeError: {} }, /^Expected `exposeError` to be a function/],
  [{ store: {} }, /^Expected `store` to be a MemoryStore/],
  [
    { redis: 'localhost' },
    /^Expected `redis` to be a URL such as redis:\/\/localhost:6379, got `localhost`$/,
  ],
  [{ redis: 6379 }, /^Expected `redis` to be a URL, ioredis options or an ioredis client, got `6379`$/],
  [{ redis: '/x', store: new MemoryStore() }, /^Expected either `redis` or `store`, got both$/],
]

test('options - invalid options of a locker are refused, with the expected and the given value', () => {
  for (const [options, message] of BAD) {
    assert.throws(() => new Locker(options), { name: 'TypeError', message }, JSON.stringify(options))
  }
  for (const not of [null, 5, 'redis://localhost']) {
    assert.throws(() => new Locker(not as LockerOptions), {
      name: 'TypeError',
      message: /^Expected `options`/,
    })
  }
  assert.throws(
    () => new Locker({ redis: 'http://user:secret@host' }),
    (error: Error) => {
      return error instanceof TypeError && !error.message.includes('secret')
    },
  )
})

test('options - options with getters of a class are validated like a plain object', async () => {
  class Wrong {
    get concurrency() {
      return 0
    }
  }
  assert.throws(() => new Locker(new Wrong()), /concurrency/)
  class Right {
    get ttl() {
      return 50
    }
  }
  await using locker = new Locker(new Right())
  await locker.run('key', () => 1)
  const { value } = await locker.peek('key')
  assert.ok(value && value.ttlLeft <= 50)
})

test('options - undefined counts as absent', async () => {
  const options = {
    ttl: undefined,
    lease: undefined,
    redis: undefined,
    cache: undefined,
  } as unknown as LockerOptions
  await using locker = new Locker(options)
  assert.equal(await locker.run('key', () => 1, { ttl: undefined, signal: undefined } as object), 1)
})

test('options - invalid options of a call are refused, and nothing starts', async () => {
  await using locker = new Locker()
  const bad: [object, RegExp][] = [
    [{ ttl: -1 }, /^Expected `ttl`/],
    [{ errorTtl: 'x' }, /^Expected `errorTtl`/],
    [{ lease: 5 }, /^Expected `lease`/],
    [{ timeout: Number.NaN }, /^Expected `timeout`/],
    [{ signal: {} }, /^Expected `signal` to be an AbortSignal/],
    [{ onProgress: 1 }, /^Expected `onProgress` to be a function/],
  ]
  for (const [options, message] of bad) {
    await assert.rejects(
      locker.run('key', () => 1, options),
      { name: 'TypeError', message },
    )
    assert.throws(() => locker.memoize(() => 1, { key: () => 'key', ...options }), {
      name: 'TypeError',
      message,
    })
  }
  await assert.rejects(locker.request('key', { timeout: -5 }), TypeError)
  await assert.rejects(locker.run('key', 'no work' as never), /^TypeError: Expected `work` to be a function/)
  assert.throws(() => locker.memoize('x' as never, { key: () => 'k' }), /Expected `fn` to be a function/)
  assert.throws(() => locker.memoize(() => 1, {} as never), /Expected `key` to be a function/)
  await assert.rejects(async () => locker.close({ grace: -1 }), /Expected `grace`/)
  assert.equal((await locker.peek('key')).status, 'free')
  const lease = await leaseOf(locker, 'key')
  await assert.rejects(lease.publish(1, { ttl: -1 }), /Expected `ttl`/)
  await assert.rejects(locker.publish('key', 1, { ttl: -1 }), /Expected `ttl`/)
  await lease.publish(2)
})
