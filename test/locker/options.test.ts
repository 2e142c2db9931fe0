import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { deserialize, serialize } from 'node:v8'
import pDefer from 'p-defer'
import {
  AbortedError,
  type Codec,
  Connection,
  Lease,
  LeaseLostError,
  Locker,
  type LockerOptions,
  LockTimeoutError,
  MemoryStore,
  RemoteError,
  TimeoutError,
  UnavailableError,
} from '../../src/index.ts'
import { newId, recordKey } from '../../src/kernel/keys.ts'
import { RedisStore } from '../../src/locker/store/redis/redis-store.ts'
import type { Store } from '../../src/locker/store/store.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** What a bound on time may be exceeded by. */
const EPSILON = 500

function assertLockTimeout(result: PromiseSettledResult<unknown>): void {
  assert.ok(result.status === 'rejected', 'it was rejected')
  assert.ok(result.reason instanceof LockTimeoutError, `${result.reason}`)
}

interface World extends AsyncDisposable {
  /** Another process, as far as the store can tell. */
  open(options?: LockerOptions): Locker
  /** A process that claims a key and is never heard of again. */
  dieHolding(key: string, lease: number): Promise<void>
}

function worldOf(make: (options: LockerOptions) => Locker, store: Store, end: () => Promise<void>): World {
  const lockers: Locker[] = []
  return {
    open(options = {}) {
      const locker = make(options)
      lockers.push(locker)
      return locker
    },
    dieHolding(key, lease) {
      const claim = { key: recordKey('soloflight', key), nonce: newId(), attempt: 1, lease, afterFence: 0 }
      return new Promise((resolve, reject) => {
        const claimer = { sending() {}, claimed: () => resolve(), claimFailed: reject, notice() {} }
        const wants = {
          parkedFence: 0,
          refresh: false,
          takeover: true,
          maxStaleness: 0,
          acceptStaleWhileHeld: 0,
          allowBypass: true,
          expectedFence: 0,
        }
        store.claim({ ...claim, ...wants, trace: '' }, 5000, claimer)
      })
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
      await end()
    },
  }
}

const WORLDS: Record<string, () => Promise<World>> = {
  async memory() {
    const store = new MemoryStore()
    return worldOf(
      (options) => new Locker({ store, ...options }),
      store.connect(),
      async () => {},
    )
  },
  async redis() {
    const t = await setup()
    const connection = new Connection(t.redis)
    const make = (options: LockerOptions) => new Locker({ redis: t.redis, ...options })
    return worldOf(make, new RedisStore(connection), async () => {
      await connection.close()
      await t[Symbol.asyncDispose]()
    })
  },
}

async function took(promise: Promise<unknown>): Promise<number> {
  const from = performance.now()
  await promise.catch(() => {})
  return performance.now() - from
}

async function leaseOf(locker: Locker, key: string, lease?: number): Promise<Lease> {
  const ticket = await locker.request(key, lease === undefined ? {} : { lease })
  assert.ok(ticket instanceof Lease, 'ticket instanceof Lease')
  return ticket
}

for (const [world, openWorld] of Object.entries(WORLDS)) {
  describe(`options on ${world}`, () => {
    test(`options - ttl ends a result, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ ttl: 300 }), w.open({ cache: false })]
      let works = 0
      const work = () => ++works
      const from = performance.now()
      assert.equal(await one.run('key', work), 1)
      assert.equal(await other.run('key', work), 1)
      const { value } = await other.peek('key')
      assert.ok(
        value && value.ttlLeft > 0 && value.ttlLeft <= 300 && value.age >= 0,
        'value && value.ttlLeft > 0 && value.ttlLeft <= 300 && value. …',
      )
      await until(async () => (await other.peek('key')).status === 'free', { what: 'the result to end' })
      assert.ok(performance.now() - from >= 299, 'performance.now() - from >= 299')
      assert.equal(await other.run('key', work), 2)
      assert.equal(await other.run('brief', () => 'kept', { ttl: 60_000 }), 'kept')
      assert.ok(
        ((await one.peek('brief')).value?.ttlLeft ?? 0) > 50_000,
        '((await one.peek("brief")).value?.ttlLeft ?? 0) > 50_000',
      )
    })

    test(`options - ttl 0 gives the result to those who wait, and to nobody else, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ ttl: 0 }), w.open({ ttl: 0 })]
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

    test(`options - ttlJitter takes off up to its part, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ ttl: 1_000_000, ttlJitter: 0.5 })
      const keys = Array.from({ length: 40 }, (_, index) => `key${index}`)
      await Promise.all(keys.map((key) => locker.run(key, () => 1)))
      const lefts = await Promise.all(keys.map(async (key) => (await locker.peek(key)).value?.ttlLeft ?? 0))
      for (const left of lefts) assert.ok(left > 490_000 && left <= 1_000_000, String(left))
      assert.ok(Math.max(...lefts) - Math.min(...lefts) > 100_000, 'they are spread')
    })

    test(`options - errorTtl keeps a failure, without it the next caller tries anew, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ errorTtl: 400 }), w.open()]
      let works = 0
      const work = () => {
        throw new Error(`failure ${++works}`)
      }
      await assert.rejects(one.run('key', work), { message: 'failure 1' })
      await assert.rejects(other.run('key', work), { message: 'failure 1' })
      await assert.rejects(one.run('key', work), { message: 'failure 1' })
      const again = () => other.run('key', () => 'now it works').catch(() => undefined)
      assert.equal(await until(again, { what: 'the failure to end', every: 20 }), 'now it works')
      await assert.rejects(other.run('other', work), { message: 'failure 2' })
      await assert.rejects(other.run('other', work), { message: 'failure 3' })
      await assert.rejects(other.run('third', work, { errorTtl: 60_000 }), { message: 'failure 4' })
      await assert.rejects(one.run('third', work), { message: 'failure 4' })
      assert.equal(
        await one.run('third', () => 'a refresh asks anew', { refresh: true }),
        'a refresh asks anew',
      )
    })

    test(`options - a lease that is held for maxHold is let go, and the next waiter takes over, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ maxHold: 400, lease: 150 }), w.open()]
      const from = performance.now()
      const lease = await leaseOf(one, 'key')
      const next = other.run('key', () => 'of the next')
      assert.equal(await next, 'of the next')
      const held = performance.now() - from
      assert.ok(held >= 395 && held < 400 + EPSILON, `held for ${held} ms`)
      assert.ok(
        lease.signal.reason instanceof LeaseLostError,
        'lease.signal.reason instanceof LeaseLostError',
      )
      await assert.rejects(lease.publish('too late'), LeaseLostError)
      assert.equal(await other.run('key', () => 'again'), 'of the next')
      assert.equal(one.stats().held, 0)
    })

    test(`options - a work beyond maxHold is told, and its result is not accepted, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ maxHold: 300, lease: 200 }), w.open()]
      const end = pDefer()
      const told = pDefer<unknown>()
      const first = one.run(
        'key',
        async ({ signal }) => {
          signal.addEventListener('abort', () => told.resolve(signal.reason))
          await end.promise
          return 'late'
        },
        { timeout: 250 },
      )
      await assert.rejects(first, TimeoutError)
      assert.equal(await other.run('key', () => 'of the next'), 'of the next')
      assert.ok(
        (await told.promise) instanceof LeaseLostError,
        '(await told.promise) instanceof LeaseLostError',
      )
      end.resolve()
      await until(() => one.stats().works === 1, { what: 'the work to end' })
      assert.equal(await w.open().run('key', () => 'again'), 'of the next')
    })

    test(`L1 options - timeout ends one waiter, in time, and the work goes on, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open({ timeout: 250 })]
      const gate = pDefer<string>()
      const first = one.run('key', () => gate.promise, { timeout: Number.POSITIVE_INFINITY })
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      const from = performance.now()
      const ends = [
        one.run('key', () => 'x', { timeout: 100 }),
        other.run('key', () => 'x'),
        other.request('key'),
      ]
      const limits = [100, 250, 250]
      await Promise.all(
        ends.map(async (end, index) => {
          await assert.rejects(end, (error: TimeoutError) => {
            assert.ok(error instanceof TimeoutError, 'error instanceof TimeoutError')
            assert.equal(error.key, 'key')
            const limit = limits[index] ?? 0
            const waited = performance.now() - from
            assert.ok(waited >= limit - 2 && waited < limit + EPSILON, `${waited} ms`)
            return true
          })
        }),
      )
      assert.deepEqual([one.stats().timeouts, other.stats().timeouts], [1, 2])
      gate.resolve('done')
      assert.equal(await first, 'done')
      assert.equal(await other.run('key', () => 'anew'), 'done')
    })

    test(`L1 options - a signal ends its own waiter only, with its reason, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const gate = pDefer<string>()
      const leaver = new AbortController()
      const first = one.run('key', () => gate.promise, { signal: leaver.signal })
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      const stays = [one.run('key', () => 'x'), other.run('key', () => 'x')]
      const leaves = [
        other.run('key', () => 'x', { signal: leaver.signal }),
        other.request('key', { signal: leaver.signal }),
      ]
      const reason = new Error('the user went home')
      leaver.abort(reason)
      for (const left of [first, ...leaves]) {
        await assert.rejects(left, (error: AbortedError) => {
          assert.ok(error instanceof AbortedError, 'error instanceof AbortedError')
          assert.equal(error.cause, reason)
          return true
        })
      }
      await assert.rejects(
        one.run('key', () => 'x', { signal: leaver.signal }),
        AbortedError,
      )
      gate.resolve('done')
      assert.deepEqual(await Promise.all(stays), ['done', 'done'])
      assert.equal(one.stats().waiters, 0)
    })

    test(`L4 options - the last waiter that leaves takes its process off the record, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const lease = await leaseOf(one, 'key')
      const leaver = new AbortController()
      const waits = [1, 2].map(() => other.run('key', () => 'x', { signal: leaver.signal }))
      await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
      leaver.abort()
      await Promise.allSettled(waits)
      await until(async () => (await one.peek('key')).lock?.parked === 0, { what: 'the leaving' })
      await lease.publish('done')
    })

    test(`options - lease of the locker and of a request is what the store knows, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ lease: 5000 })
      await leaseOf(locker, 'key')
      await leaseOf(locker, 'own', 60_000)
      const left = async (key: string) => (await locker.peek(key)).lock?.leaseLeft ?? 0
      assert.ok(
        (await left('key')) > 3000 && (await left('key')) <= 5000,
        '(await left("key")) > 3000 && (await left("key")) <= 5000',
      )
      assert.ok(
        (await left('own')) > 50_000 && (await left('own')) <= 60_000,
        '(await left("own")) > 50_000 && (await left("own")) <= 60_000',
      )
    })

    test(`options - a short lease is renewed for as long as the work takes, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ lease: 300 }), w.open()]
      const first = one.run('key', async ({ signal }) => {
        await sleep(1000)
        return signal.aborted ? 'lost' : 'kept'
      })
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      assert.deepEqual(await Promise.all([first, other.run('key', () => 'taken')]), ['kept', 'kept'])
      assert.equal(other.stats().takeovers, 0)
    })

    test(`L2 options - a waiter takes over from a dead holder within the lease, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      await w.dieHolding('key', 400)
      const from = performance.now()
      let works = 0
      const work = () => ++works
      assert.deepEqual(await Promise.all([one.run('key', work), other.run('key', work)]), [1, 1])
      const waited = performance.now() - from
      assert.ok(waited > 300 && waited < 400 + EPSILON, `${waited} ms`)
      assert.equal(one.stats().takeovers + other.stats().takeovers, 1)
    })

    test(`options - takeover false rejects those who waited for a dead holder, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ takeover: false })
      await w.dieHolding('key', 300)
      const waits = [locker.run('key', () => 'x'), locker.run('key', () => 'x')]
      const rejected = await Promise.allSettled(waits)
      for (const wait of rejected)
        assert.ok(
          wait.status === 'rejected' && wait.reason instanceof LockTimeoutError,
          'wait.status === "rejected" && wait.reason instanceof LockTim …',
        )
      assert.equal(await locker.run('key', () => 'the next caller'), 'the next caller')
    })

    test(`options - takeover false rejects those who waited for a holder let go at maxHold, on ${world}`, async () => {
      await using w = await openWorld()
      const holder = w.open({ maxHold: 400 })
      const [one, other] = [w.open({ takeover: false }), w.open({ takeover: false })]
      const ticket = await holder.request('key')
      assert.ok(ticket instanceof Lease, 'it is held')
      const from = performance.now()
      const waits = [one.run('key', () => 'x'), one.run('key', () => 'x'), other.request('key')]
      await until(async () => (await holder.peek('key')).lock?.parked === 2, { what: 'the parks' })
      for (const wait of await Promise.allSettled(waits)) assertLockTimeout(wait)
      // Long before the lease (10 s) would have ended.
      assert.ok(performance.now() - from < 400 + EPSILON, `${performance.now() - from} ms`)
      await assert.rejects(ticket.publish('late'), { code: 'E_LEASE_LOST' })
      assert.equal(await one.run('key', () => 'the next caller'), 'the next caller')
    })

    test(`options - takeover false and maxHold: who waits for the work of its own process is rejected as well, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ maxHold: 300, takeover: false })
      let works = 0
      const never = () => {
        works++
        return new Promise<never>(() => {})
      }
      const waits = [locker.run('key', never), locker.run('key', never), locker.request('key')]
      for (const wait of await Promise.allSettled(waits)) assertLockTimeout(wait)
      assert.equal(works, 1)
    })

    test(`options - a holder let go at maxHold is replaced at once by one who may, on ${world}`, async () => {
      await using w = await openWorld()
      const holder = w.open({ maxHold: 400 })
      const [staying, taking] = [w.open({ takeover: false }), w.open()]
      assert.ok((await holder.request('key')) instanceof Lease, 'it is held')
      const stays = staying.run('key', () => 'x')
      await until(async () => (await holder.peek('key')).lock?.parked === 1, { what: 'the park' })
      const takes = taking.run('key', () => 'taken')
      const from = performance.now()
      // Who may not replace it still receives what its successor brings, if that was first.
      const [stayed, taken] = await Promise.allSettled([stays, takes])
      assert.deepEqual(taken, { status: 'fulfilled', value: 'taken' })
      assert.ok(performance.now() - from < 400 + EPSILON, `${performance.now() - from} ms`)
      if (stayed.status === 'rejected') assertLockTimeout(stayed)
      else assert.equal(stayed.value, 'taken')
    })

    test(`options - takeover false: a holder that releases or closes hands over all the same, on ${world}`, async () => {
      await using w = await openWorld()
      const [holder, closing, waiter] = [w.open(), w.open(), w.open({ takeover: false })]
      const ticket = await holder.request('released')
      await closing.request('closed')
      const waits = ['released', 'closed'].map((key) => waiter.run(key, () => `after ${key}`))
      for (const key of ['released', 'closed'])
        await until(async () => (await waiter.peek(key)).lock?.parked === 1, { what: 'the park' })
      assert.ok(ticket instanceof Lease, 'it is held')
      await Promise.all([ticket.release(), closing.close({ grace: 0 })])
      assert.deepEqual(await Promise.all(waits), ['after released', 'after closed'])
    })

    test(`options - concurrency bounds the works of a locker, who keep their leases while they wait, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ concurrency: 2, lease: 300 }), w.open()]
      let [running, most] = [0, 0]
      const work = async ({ key }: { key: string }) => {
        most = Math.max(most, ++running)
        await sleep(150)
        running--
        return key
      }
      const keys = Array.from({ length: 6 }, (_, index) => `key${index}`)
      const runs = keys.map((key) => one.run(key, work))
      await until(() => one.stats().queued === 4, { what: 'the queue' })
      assert.equal(one.stats().running, 2)
      const stolen = other.run('key5', () => 'stolen')
      assert.deepEqual(await Promise.all(runs), keys)
      assert.equal(await stolen, 'key5')
      assert.equal(most, 2)
    })

    test(`options - nested works with concurrency 1 do not block each other, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ concurrency: 1, timeout: 3000 })
      const inner = () => locker.run('inner', () => 'innermost')
      const middle = () => locker.run('middle', inner)
      assert.equal(await locker.run('outer', middle), 'innermost')
      const idle = () => {
        const { running, queued, held } = locker.stats()
        return running + queued + held === 0
      }
      await until(idle, { what: 'the slots to be given back' })
    })

    test(`options - with concurrency 1 a work waits for a queued one without blocking it, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ concurrency: 1, timeout: 3000 })
      const gate = pDefer()
      const outer = locker.run('outer', async () => {
        await gate.promise
        return locker.run('queued', () => 'unused')
      })
      await until(() => locker.stats().running === 1, { what: 'the outer work' })
      const queued = locker.run('queued', () => 'done')
      await until(() => locker.stats().queued === 1, { what: 'the queue' })
      gate.resolve()
      assert.deepEqual(await Promise.all([outer, queued]), ['done', 'done'])
    })

    test(`S4 options - refresh computes anew for all who ask for that, and serves the others meanwhile, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ cache: false }), w.open({ cache: false })]
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
    })

    test(`options - a refresh that fails leaves the old result, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ cache: false })
      await locker.run('key', () => 'old')
      const fails = () => Promise.reject(new Error('no'))
      await assert.rejects(locker.run('key', fails, { refresh: true }), RemoteError)
      assert.equal(await locker.run('key', () => 'unused'), 'old')
    })

    test(`options - onProgress is called here, in other processes, and with the latest for who comes late, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other, late] = [w.open(), w.open(), w.open()]
      const seen: Record<string, unknown[]> = { one: [], joined: [], other: [], late: [] }
      const note = (who: string) => ({ onProgress: (value: unknown) => seen[who]?.push(value) })
      const steps = [pDefer(), pDefer(), pDefer()]
      const first = one.run(
        'key',
        async ({ progress }) => {
          for (const [index, step] of steps.entries()) {
            await step.promise
            progress({ step: index, of: Buffer.from('x') })
          }
          await until(() => seen['late']?.some((value) => (value as { step: number }).step === 2), {
            what: 'the last',
          })
          return 'done'
        },
        note('one'),
      )
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      const joined = one.run('key', () => 'x', note('joined'))
      const parked = other.run('key', () => 'x', note('other'))
      await until(async () => (await one.peek('key')).lock?.parked === 1, { what: 'the park' })
      const step = (index: number) => ({ step: index, of: Buffer.from('x') })
      for (const index of [0, 1]) {
        steps[index]?.resolve()
        await until(() => (seen['other']?.length ?? 0) > index, { what: `step ${index} elsewhere` })
      }
      const latecomer = late.run('key', () => 'x', note('late'))
      await until(() => seen['late']?.length, { what: 'the latest' })
      assert.deepEqual(seen['late']?.[0], step(1))
      steps[2]?.resolve()
      assert.deepEqual(await Promise.all([first, joined, parked, latecomer]), [
        'done',
        'done',
        'done',
        'done',
      ])
      const all = [step(0), step(1), step(2)]
      // A process that looks again may be shown again what it has seen.
      const kept = (values: unknown[]) =>
        values.filter((value, at) => !isDeepStrictEqual(value, values[at - 1]))
      const shown = Object.fromEntries(Object.entries(seen).map(([who, values]) => [who, kept(values)]))
      assert.deepEqual(shown, { one: all, joined: all, other: all, late: [step(1), step(2)] })
    })

    test(`options - onProgress is called once for what is shown once, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ lease: 200 }), w.open()]
      const seen: unknown[] = []
      const gate = pDefer<string>()
      const first = one.run('key', ({ progress }) => {
        progress('the only step')
        return gate.promise
      })
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      const parked = other.run('key', () => 'x', { onProgress: (value) => seen.push(value) })
      await until(() => seen.length, { what: 'the step' })
      await sleep(700) // the parked process looks again at every end of a lease
      gate.resolve('done')
      assert.deepEqual(await Promise.all([first, parked]), ['done', 'done'])
      assert.deepEqual(seen, ['the only step'])
    })

    test(`options - progress that cannot be carried throws where it is shown, and ends nothing, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open()
      const result = await locker.run('key', ({ progress }) => {
        assert.throws(() => progress(new Map()), { code: 'E_CODEC' })
        assert.throws(() => progress('x'.repeat(65 * 1024)), { code: 'E_CODEC' })
        return 'done'
      })
      assert.equal(result, 'done')
    })

    test(`options - several prefixes are several worlds, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other, third] = [w.open({ prefix: 'a' }), w.open({ prefix: 'b' }), w.open({ prefix: 'a' })]
      assert.equal(await one.run('key', () => 'of a'), 'of a')
      assert.equal(await other.run('key', () => 'of b'), 'of b')
      assert.equal(await third.run('key', () => 'unused'), 'of a')
      await other.invalidate('key')
      assert.equal((await one.peek('key')).status, 'done')
      assert.equal((await other.peek('key')).status, 'free')
    })

    test(`options - another codec carries results, progress and what JSON cannot, on ${world}`, async () => {
      await using w = await openWorld()
      const codec: Codec = { encode: serialize, decode: deserialize }
      const [one, other] = [w.open({ codec }), w.open({ codec, cache: false })]
      const value = new Map<string, unknown>([
        ['at', new Date(0)],
        ['big', 2n ** 70n],
      ])
      assert.deepEqual(await one.run('key', () => value), value)
      assert.deepEqual(await other.run('key', () => 'unused'), value)
      const plain = w.open({ cache: false })
      assert.equal(await plain.run('key', () => 'of another codec'), 'of another codec')
    })

    test(`options - exposeError decides what leaves the process, on ${world}`, async () => {
      await using w = await openWorld()
      const one = w.open({
        errorTtl: 60_000,
        exposeError: ({ name, message }) => ({ name, message: message.replace(/token \S+/, 'token …') }),
      })
      const other = w.open()
      const original = Object.assign(new RangeError('bad token abc'), { config: { authorization: 'secret' } })
      const here = await one.run('key', () => Promise.reject(original)).catch((error) => error)
      const there = await other.run('key', () => 'unused').catch((error) => error)
      for (const error of [here, there]) {
        assert.ok(error instanceof RemoteError, 'error instanceof RemoteError')
        assert.deepEqual(error.remote, { name: 'RangeError', message: 'bad token …' })
        assert.equal(error.message, 'bad token …')
      }
      assert.equal(here.cause, original)
      assert.equal(there.cause, undefined)
    })

    test(`L4 options - an exposeError that throws blocks nobody, on ${world}`, async () => {
      await using w = await openWorld()
      const one = w.open({
        exposeError() {
          throw new Error('the hook is broken')
        },
      })
      await assert.rejects(one.run('key', () => Promise.reject(new Error('original'))))
      await until(() => one.stats().held === 0, { what: 'the lease to be given up' })
      const [result, time] = [w.open().run('key', () => 'next'), performance.now()]
      assert.equal(await result, 'next')
      assert.ok(performance.now() - time < EPSILON, 'performance.now() - time < EPSILON')
    })
  })
}

test('options - unavailableAfter bounds the wait for a Redis that is not there', async () => {
  await using t = await setup()
  await t.server.kill()
  await using locker = new Locker({ redis: t.redis, unavailableAfter: 300 })
  const waited = await took(locker.request('key'))
  assert.ok(waited >= 290 && waited < 300 + EPSILON, `${waited} ms`)
  const asks = [() => locker.run('key', () => 1), () => locker.peek('key'), () => locker.invalidate('key')]
  for (const ask of asks) {
    const asked = ask()
    await assert.rejects(Promise.resolve(asked), UnavailableError)
  }
})

test("options - onUnavailable 'local' does the work once in this process, and says so", async () => {
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

test('options - wrong options of a locker are refused, with what was expected and what came', () => {
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

test('options - what a class of options says is checked like what an object says', async () => {
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

test('options - undefined is as good as absent', async () => {
  const options = {
    ttl: undefined,
    lease: undefined,
    redis: undefined,
    cache: undefined,
  } as unknown as LockerOptions
  await using locker = new Locker(options)
  assert.equal(await locker.run('key', () => 1, { ttl: undefined, signal: undefined } as object), 1)
})

test('options - wrong options of a call are refused, and nothing is begun', async () => {
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
