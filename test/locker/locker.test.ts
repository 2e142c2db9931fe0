import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import {
  ClosedError,
  CodecError,
  Connection,
  type Done,
  Lease,
  LeaseLostError,
  Locker,
  type LockerOptions,
  MemoryStore,
  NotLockedError,
  RemoteError,
  type RunOptions,
} from '../../src/index.ts'
import { type Clock, systemClock } from '../../src/kernel/event-loop.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { WorkScheduler } from '../../src/kernel/work-scheduler.ts'
import { lockerScripts } from '../../src/locker/store/redis/scripts/index.ts'
import type { Monitor } from '../support/monitor.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const EPSILON = 500

interface World extends AsyncDisposable {
  /** Another process, as far as the store can tell. */
  open(options?: LockerOptions): Locker
  /** Forgets a record, and its lease, behind the back of everybody. */
  lose(key: string): Promise<unknown>
}

function worldOf(
  make: (options: LockerOptions) => Locker,
  lose: (record: string) => Promise<unknown>,
  end: () => Promise<void>,
): World {
  const lockers: Locker[] = []
  return {
    open(options = {}) {
      const locker = make(options)
      lockers.push(locker)
      return locker
    },
    lose: (key) => lose(recordKey('soloflight', key)),
    async [Symbol.asyncDispose]() {
      await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
      await end()
    },
  }
}

const WORLDS: Record<string, () => Promise<World>> = {
  async memory() {
    const store = new MemoryStore()
    const lose = async (record: string) =>
      store.apply(record, (found) => {
        found.lease = undefined
        found.expiresAt = 0
      })
    return worldOf(
      (options) => new Locker({ store, ...options }),
      lose,
      async () => {},
    )
  },
  async redis() {
    const t = await setup()
    const lose = (record: string) => t.server.call('DEL', record)
    return worldOf(
      (options) => new Locker({ redis: t.redis, ...options }),
      lose,
      async () => t[Symbol.asyncDispose](),
    )
  },
}

async function leaseOf(locker: Locker, key: string): Promise<Lease> {
  const ticket = await locker.request(key)
  assert.ok(ticket instanceof Lease, 'ticket instanceof Lease')
  return ticket
}

function parked(locker: Locker, key: string, count: number): Promise<unknown> {
  return until(async () => (await locker.peek(key)).lock?.parked === count, { what: `${count} to be parked` })
}

/** What a promise rejects with. */
async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise
  } catch (error) {
    return error
  }
  return assert.fail('it did not reject')
}

for (const [world, openWorld] of Object.entries(WORLDS)) {
  describe(`locker on ${world}`, () => {
    test(`locker - the first is the processor, all others are handed its result, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const ticket = await one.request<string>('key')
      assert.equal(ticket.status, Locker.LOCKED)
      assert.ok(ticket instanceof Lease, 'ticket instanceof Lease')
      assert.deepEqual([ticket.key, ticket.shared, ticket.signal.aborted], ['key', true, false])
      assert.ok(
        Number.isSafeInteger(ticket.fence) && ticket.fence > 0,
        'Number.isSafeInteger(ticket.fence) && ticket.fence > 0',
      )
      const waits = [one.request<string>('key'), other.request<string>('key'), other.run('key', () => 'x')]
      await parked(one, 'key', 1)
      await ticket.publish('report')
      const [joined, elsewhere, ran] = await Promise.all(waits)
      assert.deepEqual(joined, { status: Locker.DONE, result: 'report' })
      assert.deepEqual(elsewhere, { status: 'done', result: 'report' })
      assert.equal(ran, 'report')
      assert.deepEqual(await w.open().request('key'), { status: 'done', result: 'report' })
    })

    test(`Q2 locker - fifty callers in five processes share one work, on ${world}`, async () => {
      await using w = await openWorld()
      let works = 0
      const work = async () => {
        await new Promise((resume) => setImmediate(resume))
        return { works: ++works }
      }
      const lockers = Array.from({ length: 5 }, () => w.open())
      const runs = lockers.flatMap((locker) => Array.from({ length: 10 }, () => locker.run('key', work)))
      for (const result of await Promise.all(runs)) assert.deepEqual(result, { works: 1 })
      assert.equal(works, 1)
    })

    test(`locker - any value that the codec carries is a result, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open({ cache: false })]
      const values = [
        undefined,
        null,
        false,
        0,
        -0,
        NaN,
        '',
        [],
        {},
        Buffer.from('x'),
        new Float64Array(2),
        { a: undefined },
      ]
      for (const [index, value] of values.entries()) {
        assert.deepStrictEqual(await one.run(`key${index}`, () => value), value)
        assert.deepStrictEqual(await other.run(`key${index}`, () => 'unused'), value)
      }
    })

    test(`locker - the processor too receives what was encoded, and shares no object, on ${world}`, async () => {
      await using w = await openWorld()
      const made = { list: [1], bytes: Buffer.from('abc') }
      const locker = w.open({ cache: false })
      const [mine, joined] = [locker.run('key', () => made), locker.run('key', () => made)]
      const result = await mine
      assert.deepStrictEqual(result, made)
      assert.notEqual(result, made)
      assert.deepStrictEqual(await joined, made)
      made.list.push(2)
      made.bytes.fill(0)
      assert.deepStrictEqual(await locker.run('key', () => made), { list: [1], bytes: Buffer.from('abc') })
    })

    test(`S2 locker - publish by the locker needs exactly one lease, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ lease: 300 }), w.open()]
      const none = await failureOf(one.publish('key', 1))
      assert.ok(
        none instanceof NotLockedError && none.key === 'key' && none.code === 'E_NOT_LOCKED',
        'none instanceof NotLockedError && none.key === "key" && none …',
      )
      const first = await leaseOf(one, 'key')
      assert.ok(
        (await failureOf(other.publish('key', 1))) instanceof NotLockedError,
        '(await failureOf(other.publish("key", 1))) instanceof NotLoc …',
      )
      await w.lose('key')
      await until(() => first.signal.aborted, { what: 'the loss to be seen' })
      assert.ok(
        first.signal.reason instanceof LeaseLostError,
        'first.signal.reason instanceof LeaseLostError',
      )
      const second = await leaseOf(one, 'key')
      assert.ok((await failureOf(one.publish('key', 1))) instanceof NotLockedError, 'two leases')
      assert.ok(
        (await failureOf(first.publish('of the lost one'))) instanceof LeaseLostError,
        '(await failureOf(first.publish("of the lost one"))) instance …',
      )
      await one.publish('key', 'by the locker', { ttl: 60_000 })
      assert.ok(
        (await failureOf(second.publish('again'))) instanceof LeaseLostError,
        '(await failureOf(second.publish("again"))) instanceof LeaseL …',
      )
      assert.equal(await other.run('key', () => 'unused'), 'by the locker')
      const left = (await one.peek('key')).value?.ttlLeft ?? 0
      assert.ok(left > 50_000 && left <= 60_000, 'left > 50_000 && left <= 60_000')
    })

    test(`S1 S2 locker - fences grow, and a superseded lease cannot publish, fail or release, on ${world}`, async () => {
      await using w = await openWorld()
      const one = w.open({ lease: 200 })
      const fences: number[] = []
      for (let round = 0; round < 4; round++) {
        const lease = await leaseOf(one, 'key')
        fences.push(lease.fence)
        await w.lose('key')
        const next = await leaseOf(w.open(), 'key')
        fences.push(next.fence)
        const attempt = [() => lease.publish(1), () => lease.fail(new Error('x')), () => lease.release()][
          round % 3
        ]
        if (round % 3 < 2)
          assert.ok(
            (await failureOf(attempt?.() ?? Promise.resolve())) instanceof LeaseLostError,
            '(await failureOf(attempt?.() ?? Promise.resolve())) instance …',
          )
        else await lease.release().catch(() => {})
        assert.equal((await one.peek('key')).lock?.fence, next.fence)
        await next.release()
      }
      assert.deepEqual(
        fences,
        [...new Set(fences)].sort((a, b) => a - b),
      )
    })

    test(`S3 locker - a lease is settled once, however it is tried again, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open({ cache: false })
      const again = (lease: Lease) => [
        () => lease.publish('second'),
        () => lease.fail(new Error('second')),
        () => lease.release(),
      ]
      const published = await leaseOf(locker, 'published')
      await published.publish('first')
      const released = await leaseOf(locker, 'released')
      await released.release()
      const failed = await leaseOf(locker, 'failed')
      await failed.fail(new Error('first'))
      for (const attempt of [published, released, failed].flatMap(again)) {
        const error = await failureOf(attempt())
        assert.ok(
          error instanceof LeaseLostError && error.code === 'E_LEASE_LOST',
          'error instanceof LeaseLostError && error.code === "E_LEASE_LOST"',
        )
      }
      const both = await leaseOf(locker, 'both')
      const outcomes = await Promise.allSettled([both.publish('one'), both.publish('two'), both.release()])
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        ['fulfilled', 'rejected', 'rejected'],
      )
      assert.equal(await locker.run('both', () => 'x'), 'one')
      assert.equal(await locker.run('published', () => 'x'), 'first')
    })

    test(`L2 locker - release hands over at once, to the next of the process and to others, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const first = await leaseOf(one, 'key')
      const local = one.request('key')
      await first.release()
      const second = await local
      assert.ok(
        second instanceof Lease && second.fence > first.fence,
        'second instanceof Lease && second.fence > first.fence',
      )
      const remote = other.run('key', () => 'of the other process')
      await parked(one, 'key', 1)
      const from = performance.now()
      await second.release()
      assert.equal(await remote, 'of the other process')
      assert.ok(performance.now() - from < EPSILON, 'performance.now() - from < EPSILON')
    })

    test(`locker - leaving the scope of a lease releases it, unless it was settled, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open()
      {
        await using lease = await leaseOf(locker, 'left')
        assert.equal((await locker.peek('left')).lock?.fence, lease.fence)
      }
      assert.equal((await locker.peek('left')).status, 'free')
      {
        await using lease = await leaseOf(locker, 'settled')
        await lease.publish('kept')
      }
      assert.equal(await locker.run('settled', () => 'x'), 'kept')
      assert.equal(locker.stats().held, 0)
    })

    test(`locker - a failure settles everyone, with all that is carried of it, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
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
      const [first, joined, elsewhere] = await Promise.all(runs.map(failureOf))
      const remote = {
        name: 'RangeError',
        message: 'no such page',
        code: 'E_PAGE',
        fields: { page: { number: 42, bytes: Buffer.from('x') } },
        cause: { name: 'Error', message: 'root', code: 7 },
      }
      for (const error of [first, joined, elsewhere]) {
        assert.ok(error instanceof RemoteError, 'error instanceof RemoteError')
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
      assert.ok(
        cause instanceof RemoteError && cause.message === 'root' && cause.remote.code === 7,
        'cause instanceof RemoteError && cause.message === "root" &&  …',
      )
      assert.equal(await other.run('key', () => 'anew'), 'anew')
    })

    test(`locker - lease.fail reaches everyone, and is kept for its ttl, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const lease = await leaseOf(one, 'key')
      const waiting = failureOf(other.run('key', () => 'x'))
      await parked(one, 'key', 1)
      await lease.fail(new TypeError('bad'), { ttl: 60_000 })
      const failure = await waiting
      assert.ok(
        failure instanceof RemoteError && failure.remote.name === 'TypeError',
        'failure instanceof RemoteError && failure.remote.name === "T …',
      )
      assert.ok(
        (await failureOf(one.request('key'))) instanceof RemoteError,
        '(await failureOf(one.request("key"))) instanceof RemoteError',
      )
    })

    test(`L5 locker - what travels of a failure is bounded, and the failure itself arrives, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ errorTtl: 60_000 }), w.open()]
      const large = Object.assign(new Error('m'.repeat(100_000)), {
        first: 'small',
        body: 'b'.repeat(100_000),
        after: 'x'.repeat(7000),
      })
      let deep: Error = new Error('0')
      for (let level = 1; level < 50; level++) deep = new Error(String(level), { cause: deep })
      large.cause = deep
      await failureOf(one.run('key', () => Promise.reject(large)))
      const error = await failureOf(other.run('key', () => 'x'))
      assert.ok(error instanceof RemoteError, 'error instanceof RemoteError')
      assert.ok(
        error.message.length <= 8192 && error.message.startsWith('mmm'),
        'error.message.length <= 8192 && error.message.startsWith("mmm")',
      )
      assert.ok(
        JSON.stringify(error.remote.fields ?? {}).length <= 8192 + 64,
        'JSON.stringify(error.remote.fields ?? {}).length <= 8192 + 64',
      )
      assert.equal(error.remote.fields?.['first'], 'small')
      assert.equal(error.remote.fields?.['body'], undefined)
      let causes = 0
      for (let cause = error.remote.cause; cause; cause = cause.cause) causes++
      assert.ok(causes >= 1 && causes <= 5, `${causes} causes`)
    })

    test(`locker - whatever is thrown reaches everyone as a RemoteError, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ errorTtl: 60_000 }), w.open()]
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
        getters: Object.defineProperties(
          {},
          { message: { get: refuse }, x: { get: refuse, enumerable: true } },
        ),
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
        const here = await failureOf(one.run(key, () => Promise.reject(value)))
        assert.ok(here instanceof RemoteError, `${key}: ${String((here as Error).message)}`)
        const there = await failureOf(other.run(key, () => 'x'))
        assert.ok(there instanceof RemoteError, key)
        assert.ok(there.message.length <= 8192, 'there.message.length <= 8192')
      }
      assert.equal(one.stats().held, 0)
    })

    test(`locker - a result that cannot be carried fails the flight for everybody and frees the lock, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ errorTtl: 60_000 }), w.open()]
      const gate = pDefer<unknown>()
      const runs = [one.run('key', () => gate.promise)]
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      runs.push(other.run('key', () => 'x'))
      await parked(one, 'key', 1)
      gate.resolve({ at: { when: new Date(0) } })
      for (const error of await Promise.all(runs.map(failureOf))) {
        assert.ok(error instanceof RemoteError, 'error instanceof RemoteError')
        assert.equal(error.remote.code, 'E_CODEC')
        assert.match(error.message, /An instance of Date at \$\.at\.when/)
      }
      assert.equal(await other.run('key', () => 'anew'), 'anew')
      const lease = await leaseOf(one, 'other')
      const error = await failureOf(lease.publish(new Map()))
      assert.ok(
        error instanceof CodecError && error.key === 'other',
        'error instanceof CodecError && error.key === "other"',
      )
      assert.equal((await one.peek('other')).status, 'free')
    })

    test(`locker - a result larger than any message reaches everyone, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ ttl: 0 }), w.open({ ttl: 0 })]
      const gate = pDefer()
      const large = Buffer.alloc(3_000_000, 'x')
      const first = one.run('key', async () => {
        await gate.promise
        return large
      })
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      const elsewhere = [other.run('key', () => large), w.open().run('key', () => large)]
      await parked(one, 'key', 2)
      gate.resolve()
      for (const result of await Promise.all([first, ...elsewhere]))
        assert.ok(large.equals(result), 'large.equals(result)')
      assert.equal(one.stats().works + other.stats().works, 1)
    })

    test(`locker - memoize keeps this, arguments and key, and does its work once, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      let works = 0
      const key = (id: string, _options?: { deep: boolean }) => `report:${id}`
      async function make(this: { site: string }, id: string, options?: { deep: boolean }): Promise<string> {
        works++
        return `${this.site} ${id} ${options?.deep}`
      }
      const service = {
        site: 'a',
        report: one.memoize(make as (...args: [string, { deep: boolean }?]) => Promise<string>, { key }),
      }
      assert.deepEqual(await Promise.all([service.report('1', { deep: true }), service.report('1')]), [
        'a 1 true',
        'a 1 true',
      ])
      assert.equal(await service.report('2'), 'a 2 undefined')
      assert.equal(works, 2)
      assert.equal(await other.run('report:1', () => 'x'), 'a 1 true')
      const brief = other.memoize((id: number) => id * 2, { key: (id) => `double:${id}`, ttl: 0 })
      assert.deepEqual([await brief(4), await brief(5)], [8, 10])
      const throws = other.memoize(
        () => {
          throw new Error('sync')
        },
        { key: () => 'throws' },
      )
      assert.ok(
        (await failureOf(throws())) instanceof RemoteError,
        '(await failureOf(throws())) instanceof RemoteError',
      )
    })

    test(`locker - a memoized function rejects when its key cannot be made, on ${world}`, async () => {
      await using w = await openWorld()
      const broken = w.open().memoize(() => 1, {
        key: () => {
          throw new Error('no key')
        },
      })
      let call: Promise<number> | undefined
      assert.doesNotThrow(() => {
        call = broken()
        call.catch(() => {})
      })
      await assert.rejects(call ?? Promise.resolve(), { message: 'no key' })
    })

    test(`locker - peek tells free, locked, done, and both at once, and changes nothing, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open({ ttl: 50_000, cache: false }), w.open()]
      assert.deepEqual(await other.peek('key'), { status: 'free' })
      const lease = await leaseOf(one, 'key')
      const locked = await other.peek('key')
      assert.equal(locked.status, 'locked')
      assert.equal(locked.value, undefined)
      assert.match(locked.lock?.holder ?? '', new RegExp(`:${process.pid}$`))
      assert.equal(locked.lock?.fence, lease.fence)
      assert.equal(locked.lock?.parked, 0)
      assert.ok(
        (locked.lock?.leaseLeft ?? 0) > 5000 && (locked.lock?.leaseLeft ?? 0) <= 10_000,
        '(locked.lock?.leaseLeft ?? 0) > 5000 && (locked.lock?.leaseL …',
      )
      const waiting = other.run('key', () => 'x')
      await parked(one, 'key', 1)
      await lease.publish('done')
      await waiting
      const done = await one.peek('key')
      assert.deepEqual([done.status, done.lock, done.value?.fence], ['done', undefined, lease.fence])
      assert.ok(
        (done.value?.ttlLeft ?? 0) > 45_000 && (done.value?.age ?? -1) >= 0,
        '(done.value?.ttlLeft ?? 0) > 45_000 && (done.value?.age ?? - …',
      )
      const gate = pDefer<string>()
      const refresh = one.run('key', () => gate.promise, { refresh: true })
      await until(async () => (await one.peek('key')).lock, { what: 'the refresh' })
      assert.equal((await one.peek('key')).status, 'done')
      assert.ok(
        ((await one.peek('key')).lock?.fence ?? 0) > lease.fence,
        '((await one.peek("key")).lock?.fence ?? 0) > lease.fence',
      )
      gate.resolve('new')
      await refresh
      await one.invalidate('key')
      assert.deepEqual(await one.peek('key'), { status: 'free' })
    })

    test(`S4 locker - invalidate forgets results, of several keys, in other processes too, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      for (const key of ['a', 'b', 'c']) await one.run(key, () => 'old')
      for (const key of ['a', 'b', 'c']) assert.equal(await other.run(key, () => 'x'), 'old')
      await one.invalidate('a', 'b')
      await one.invalidate()
      await one.invalidate('never seen')
      for (const key of ['a', 'b']) {
        assert.equal((await other.peek(key)).status, 'free')
        assert.equal(await one.run(key, () => `new ${key}`), `new ${key}`)
        const current = async () => (await other.run(key, () => 'x')) === `new ${key}`
        await until(current, { what: 'the other process to hear of it', timeout: 2000 + EPSILON })
      }
      assert.equal(await other.run('c', () => 'x'), 'old')
    })

    test(`S4 locker - invalidate during a flight: who waited gets it, nobody else does, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other, third] = [
        w.open({ cache: false }),
        w.open({ cache: false }),
        w.open({ cache: false }),
      ]
      const gates = [pDefer<string>(), pDefer<string>()]
      let works = 0
      const work = () => gates[works++]?.promise ?? assert.fail('too many works')
      const first = one.run('key', work)
      await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
      const [joined, remote] = [one.run('key', work), other.run('key', work)]
      await parked(one, 'key', 1)
      await third.invalidate('key')
      const after = [one.run('key', work), other.run('key', work), third.run('key', work)]
      await until(async () => ((await third.peek('key')).lock?.parked ?? 0) >= 2, { what: 'the parks' })
      gates[0]?.resolve('begun before')
      await until(() => works === 2, { what: 'the second work' })
      gates[1]?.resolve('begun after')
      assert.deepEqual(await Promise.all(after), ['begun after', 'begun after', 'begun after'])
      assert.deepEqual(await Promise.all([first, remote]), ['begun before', 'begun before'])
      // Whether it came before the invalidation its process cannot know: it may have either.
      assert.match(await joined, /^begun (before|after)$/)
      assert.equal(works, 2)
      assert.equal(await one.run('key', work), 'begun after')
    })

    test(`S4 locker - invalidate in the process of the work: later callers start anew, on ${world}`, async () => {
      await using w = await openWorld()
      for (const cache of [undefined, false as const]) {
        const locker = w.open(cache === false ? { cache } : {})
        const key = `key ${cache}`
        const gates = [pDefer<string>(), pDefer<string>()]
        let works = 0
        const work = () => gates[works++]?.promise ?? assert.fail('too many works')
        const before = locker.run(key, work)
        await until(() => works === 1, { what: 'the work' })
        const invalidated = locker.invalidate(key)
        await invalidated
        const after = locker.run(key, work)
        gates[0]?.resolve('begun before')
        assert.equal(await before, 'begun before')
        gates[1]?.resolve('begun after')
        assert.equal(await after, 'begun after')
        assert.equal(await locker.run(key, work), 'begun after')
      }
    })

    test(`locker - a work that invalidates its own key hands over its result, and it is not kept, on ${world}`, async () => {
      await using w = await openWorld()
      const locker = w.open()
      const result = await locker.run('key', async ({ key }) => {
        await locker.invalidate(key)
        return 'not kept'
      })
      assert.equal(result, 'not kept')
      assert.equal(await locker.run('key', () => 'anew'), 'anew')
    })

    test(`locker - stats count what was done and show what is, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const gate = pDefer<string>()
      const first = one.run('key', () => gate.promise)
      await until(() => one.stats().running === 1, { what: 'the work' })
      const joined = one.run('key', () => 'x')
      const elsewhere = other.run('key', () => 'x')
      await parked(one, 'key', 1)
      const during = one.stats()
      assert.deepEqual([during.flights, during.waiters, during.held, during.joins], [1, 2, 1, 1])
      await until(() => other.stats().parks >= 1, { what: 'the other process to be told' })
      assert.equal(other.stats().waiters, 1)
      await until(() => one.stats().subscribed, { what: 'the subscription' })
      gate.resolve('done')
      await Promise.all([first, joined, elsewhere])
      await one.run('key', () => 'x')
      await failureOf(one.run('bad', () => Promise.reject(new Error('x'))))
      await until(() => one.stats().running === 0, { what: 'the slots to be given back' })
      const after = one.stats()
      assert.deepEqual(
        [after.flights, after.waiters, after.held, after.running, after.works, after.failures, after.settled],
        [0, 0, 0, 0, 2, 1, 2],
      )
      assert.deepEqual(
        [after.grants, after.takeovers, after.lost, after.timeouts, after.aborts],
        [2, 0, 0, 0, 0],
      )
      assert.ok(after.hits + after.localHits === 1, 'after.hits + after.localHits === 1')
      for (const [name, value] of Object.entries(after)) assert.notEqual(value, undefined, name)
    })

    test(`L2 locker - close lets works publish within the grace, and rejects who only waits, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const gate = pDefer<string>()
      const mine = one.run('mine', () => gate.promise)
      const theirs = await leaseOf(other, 'theirs')
      const waits = failureOf(one.run('theirs', () => 'x'))
      await parked(other, 'theirs', 1)
      const remote = other.run('mine', () => 'x')
      await parked(other, 'mine', 1)
      const closed = one.close({ grace: 10_000 })
      assert.equal(one.close(), closed, 'closing twice is closing once')
      for (const ask of [() => one.run('new', () => 1), () => one.request('new'), () => one.peek('new')]) {
        assert.ok(
          (await failureOf(ask())) instanceof ClosedError,
          '(await failureOf(ask())) instanceof ClosedError',
        )
      }
      gate.resolve('in time')
      assert.deepEqual(await Promise.all([mine, remote]), ['in time', 'in time'])
      const error = await waits
      assert.ok(
        error instanceof ClosedError && error.key === 'theirs',
        'error instanceof ClosedError && error.key === "theirs"',
      )
      await closed
      await until(async () => (await other.peek('theirs')).lock?.parked === 0, {
        what: 'the place to be given up',
      })
      await theirs.publish('x')
    })

    test(`L2 locker - close hands over at the end of its grace, and tells the work, on ${world}`, async () => {
      await using w = await openWorld()
      const [one, other] = [w.open(), w.open()]
      const told = pDefer<unknown>()
      const never = failureOf(
        one.run('key', ({ signal }) => {
          signal.addEventListener('abort', () => told.resolve(signal.reason))
          return new Promise(() => {})
        }),
      )
      const lease = await leaseOf(one, 'leased')
      const next = [other.run('key', () => 'of the next'), other.run('leased', () => 'of the next')]
      await parked(other, 'key', 1)
      await parked(other, 'leased', 1)
      const from = performance.now()
      await one.close({ grace: 200 })
      assert.deepEqual(await Promise.all(next), ['of the next', 'of the next'])
      const took = performance.now() - from
      assert.ok(took >= 195 && took < 200 + EPSILON, `${took} ms`)
      assert.ok((await never) instanceof ClosedError, '(await never) instanceof ClosedError')
      assert.ok((await told.promise) instanceof ClosedError, '(await told.promise) instanceof ClosedError')
      assert.ok(lease.signal.reason instanceof ClosedError, 'lease.signal.reason instanceof ClosedError')
      assert.ok(
        (await failureOf(lease.publish('too late'))) instanceof LeaseLostError,
        '(await failureOf(lease.publish("too late"))) instanceof Leas …',
      )
    })

    test(`locker - close of an unused locker, and closing by scope, resolve, on ${world}`, async () => {
      await using w = await openWorld()
      await w.open().close()
      {
        await using scoped = w.open()
        assert.equal(await scoped.run('key', () => 1), 1)
      }
      assert.equal(await w.open().run('key', () => 2), 1)
    })
  })
}

test('locker - embedded, without options, it works alone', async () => {
  await using one = new Locker()
  await using other = new Locker()
  assert.equal(await one.run('key', () => 1), 1)
  assert.equal(await other.run('key', () => 2), 2)
  assert.equal(one.stats().subscribed, true)
  assert.equal(one.stats().pendingCommands, 0)
})

test('L5 locker - no message is larger than its limit: a larger result is announced and read', async () => {
  await using t = await setup()
  await using one = new Locker({ redis: t.redis })
  await using other = new Locker({ redis: t.redis })
  const listener = await t.client()
  const lengths: number[] = []
  listener.on('pmessageBuffer', (_pattern: string, _channel: Buffer, message: Buffer) =>
    lengths.push(message.length),
  )
  await listener.psubscribe('soloflight:1:inbox:*')
  for (const size of [10_000, 60_000, 70_000, 2_000_000]) {
    const key = `key${size}`
    const lease = await leaseOf(one, key)
    const waits = other.run<string>(key, () => 'x')
    await parked(one, key, 1)
    await lease.publish('v'.repeat(size))
    assert.equal((await waits).length, size)
  }
  await until(() => lengths.length >= 4, { what: 'the messages' })
  const [small, large, ...announced] = lengths
  assert.ok(small && small > 10_000 && small < 10_200, 'small && small > 10_000 && small < 10_200')
  assert.ok(large && large > 60_000 && large < 60_200, 'large && large > 60_000 && large < 60_200')
  for (const length of announced) assert.ok(length < 100, `a message of ${length} bytes`)
})

test('locker - two lockers on one Connection share flights, and each keeps its own counters and leases', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await using one = new Locker({ redis: connection })
  await using other = new Locker({ redis: connection, cache: false })
  await one.run('warm', () => 1)
  await using monitor = await t.server.monitor()
  const gate = pDefer<string>()
  const first = one.run('key', () => gate.promise)
  await until(() => one.stats().running === 1, { what: 'the work' })
  const joined = other.run('key', () => 'x')
  assert.deepEqual([one.stats().flights, other.stats().flights, other.stats().joins], [1, 1, 1])
  gate.resolve('shared')
  assert.deepEqual(await Promise.all([first, joined]), ['shared', 'shared'])
  const claims = (await monitor.lines()).filter(
    ({ command, fromScript }) => command === 'evalsha' && !fromScript,
  )
  assert.equal(claims.length, 2, 'one claim and one publish')
  const lease = await leaseOf(one, 'leased')
  assert.ok(
    (await failureOf(other.publish('leased', 1))) instanceof NotLockedError,
    '(await failureOf(other.publish("leased", 1))) instanceof Not …',
  )
  await lease.release()
})

test('locker - closing one of two lockers on a Connection leaves the other and its waiters alone', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  const one = new Locker({ redis: connection })
  await using other = new Locker({ redis: connection })
  const never = failureOf(one.run('key', () => new Promise(() => {})))
  await until(() => one.stats().running === 1, { what: 'the work' })
  const joined = other.run('key', () => 'of the other')
  await one.close({ grace: 0 })
  assert.ok((await never) instanceof ClosedError, '(await never) instanceof ClosedError')
  assert.equal(await joined, 'of the other')
  assert.equal(await other.run('next', () => 'open'), 'open')
})

test('locker - two connections to one Redis share results and not flights', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await using one = new Locker({ redis: connection })
  await using other = new Locker({ redis: t.url })
  const gate = pDefer<string>()
  const first = one.run('key', () => gate.promise)
  await until(() => one.stats().running === 1, { what: 'the work' })
  const second = other.run('key', () => 'x')
  await parked(one, 'key', 1)
  assert.equal(one.stats().flights, 1)
  gate.resolve('shared')
  const results: (string | Done<string>)[] = await Promise.all([first, second])
  assert.deepEqual(results, ['shared', 'shared'])
})

test('L5 locker - after the longest ttl an idle Redis holds no key of ours', async () => {
  await using t = await setup()
  await using locker = new Locker({ redis: t.redis, ttl: 200, lease: 100, errorTtl: 100 })
  await locker.run('value', () => 1)
  await failureOf(locker.run('failure', () => Promise.reject(new Error('x'))))
  await (await leaseOf(locker, 'released')).release()
  await locker.run('invalidated', () => 1)
  await locker.invalidate('invalidated', 'never')
  const left = async () => (await t.server.call('DBSIZE')) === 0
  for (const key of (await t.server.call('KEYS', '*')) as string[]) {
    assert.ok(Number(await t.server.call('PTTL', key)) > 0, key)
  }
  await until(left, { what: 'the keys to be gone', timeout: 5000 })
})

describe('a burst of claims', () => {
  /** How many claims the server has seen. */
  async function claimsIn(monitor: Monitor): Promise<number> {
    const lines = await monitor.lines()
    const counts = lines
      .filter(({ args }) => args[0] === lockerScripts.claim.sha1)
      .map(({ args }) => Number(args[1]))
    return counts.reduce((total, count) => total + count, 0)
  }

  const burst = (locker: Locker, count: number, options: RunOptions = {}) =>
    Promise.allSettled(Array.from({ length: count }, (_, n) => locker.run(`key:${n}`, () => 1, options)))

  test('few are under way until Redis has answered the first of them', async () => {
    await using t = await setup({ proxy: true })
    // Nothing happens because Redis is slow.
    const after: Clock['after'] = (ms, run, background) =>
      ms < 100 ? { cancel: () => {} } : systemClock.after(ms, run, background)
    await using locker = new Locker({
      redis: t.proxy.options,
      unavailableAfter: 20_000,
      clock: { now: systemClock.now, after },
    })
    await locker.ready()
    await locker.run('warm', () => 0)
    await using monitor = await t.server.monitor()
    t.proxy.delay(3_000, { direction: 'down' })
    // Claimed in one tick: nothing is read before.
    const settled = burst(locker, 200, { refresh: true })
    assert.equal(await until(() => claimsIn(monitor), { what: 'the first claims' }), 16)
    await sleep(200)
    assert.equal(await claimsIn(monitor), 16)
    t.proxy.delay(0)
    assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
  })

  test('all go out where Redis takes its time', async () => {
    await using t = await setup({ proxy: true })
    await using locker = new Locker({ redis: t.proxy.options, unavailableAfter: 20_000 })
    await locker.ready()
    await locker.run('warm', () => 0)
    await using monitor = await t.server.monitor()
    t.proxy.delay(300, { direction: 'down' })
    const settled = burst(locker, 200)
    await until(async () => (await claimsIn(monitor)) > 0, { what: 'the first claims' })
    t.proxy.delay(8_000, { direction: 'down' })
    await until(async () => (await claimsIn(monitor)) === 200, { what: 'all claims' })
    t.proxy.delay(0)
    assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
  })

  test('who gives Redis little time waits behind nobody who gives it more', async () => {
    await using t = await setup({ proxy: true })
    await using connection = new Connection(t.proxy.options)
    await using patient = new Locker({ redis: connection, unavailableAfter: 20_000 })
    await using hasty = new Locker({ redis: connection, unavailableAfter: 300 })
    await hasty.ready()
    t.proxy.stall(true)
    const refresh = { refresh: true }
    const others = burst(patient, 100, refresh)
    const began = performance.now()
    await assert.rejects(
      hasty.run('other', () => 1, refresh),
      { code: 'E_UNAVAILABLE' },
    )
    assert.ok(performance.now() - began < 5_000, `after ${performance.now() - began} ms`)
    t.proxy.stall(false)
    await others
  })

  test('when the client is disconnected, each of a large one is told', async () => {
    await using t = await setup()
    const client = await t.client()
    await using locker = new Locker({ redis: client })
    await locker.ready()
    const settled = burst(locker, 50_000, { refresh: true })
    await new Promise((turn) => setImmediate(turn))
    client.disconnect()
    const reasons = (await settled).map((each) => (each.status === 'rejected' ? each.reason.code : undefined))
    assert.deepEqual([...new Set(reasons)], ['E_UNAVAILABLE'])
  })

  test('no more are under way while works of the process wait for others that compute', async () => {
    await using t = await setup({ proxy: true })
    const after: Clock['after'] = (ms, run, background) =>
      ms < 100 ? { cancel: () => {} } : systemClock.after(ms, run, background)
    const clock: Clock = { now: systemClock.now, after }
    await using locker = new Locker({ redis: t.proxy.options, unavailableAfter: 20_000, clock })
    await locker.ready()
    await locker.run('warm', () => 0)
    await using monitor = await t.server.monitor()
    // Works of whatever layer: one starts for each that has ended.
    const works = new WorkScheduler(Number.POSITIVE_INFINITY, clock)
    let busy = true
    const compute = () =>
      works.schedule((slot) => {
        const end = performance.now() + 3
        while (performance.now() < end);
        slot.release()
        if (busy) compute()
      })
    for (let n = 0; n < 5; n++) compute()
    try {
      t.proxy.delay(2_000, { direction: 'down' })
      const settled = burst(locker, 200, { refresh: true })
      await until(async () => (await claimsIn(monitor)) > 16, { what: 'the second claims' })
      await sleep(200)
      assert.equal(await claimsIn(monitor), 32, 'as many as were answered, not twice as many')
      t.proxy.delay(0)
      assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
    } finally {
      busy = false
      t.proxy.delay(0)
      await locker.close({ grace: 0 })
    }
  })
})
