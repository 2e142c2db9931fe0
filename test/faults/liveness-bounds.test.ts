import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Connection, Lease, Locker, OverloadedError } from '../../src/index.ts'
import { type Clock, systemClock, type Timer } from '../../src/kernel/time.ts'
import { FlightTable } from '../../src/locker/flight/flight-table.ts'
import { RedisStore } from '../../src/locker/store/redis/redis-store.ts'
import { LONG, scene, settledBy } from '../support/locker-scene.ts'
import { EPSILON, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

describe('bounds', () => {
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  const heap = () => {
    collect()
    // The second collection frees what the first one finalises.
    collect()
    return process.memoryUsage().heapUsed
  }

  test('L5 parked - above the cap a waiter is rejected at once, and a park is free again when a waiter leaves', async () => {
    await using t = await setup()
    const lockers = [1, 2, 3, 4].map(() => {
      const connection = new Connection(t.redis)
      connection.acquireShared(
        'locker:soloflight',
        () => new FlightTable(new RedisStore(connection, { maxParked: 2 }), connection.clock, connection),
      )
      return { connection, locker: new Locker({ redis: connection, lease: LONG, cache: false }) }
    })
    const [holder, first, second, third] = lockers.map(({ locker }) => locker) as [
      Locker,
      Locker,
      Locker,
      Locker,
    ]
    const lease = await leaseOf(holder)
    const leaves = new AbortController()
    const left = assert.rejects(first.request('k', { signal: leaves.signal }), { code: 'E_ABORTED' })
    const stays = second.run('k', () => 'anew')
    await parked(holder, 'k', 2)
    assert.ok((await took(() => assert.rejects(third.request('k'), OverloadedError))) < EPSILON)
    leaves.abort()
    await left
    await parked(holder, 'k', 1)
    const last = third.run('k', () => 'anew')
    await parked(holder, 'k', 2)
    await lease.publish('v')
    assert.deepEqual(await Promise.all([stays, last]), ['v', 'v'])
    await Promise.all(lockers.map(({ locker }) => locker.close()))
    await Promise.all(lockers.map(({ connection }) => connection.close()))
  })

  for (const away of ['frozen', 'gone'] as const) {
    test(`L5 memory - stays flat while Redis is ${away} and thousands call`, async () => {
      await using s = await scene({ unavailableAfter: 200 })
      if (away === 'frozen') await s.t.server.freeze()
      else await s.t.server.kill()
      const ask = async (round: number) => {
        const asked = Array.from({ length: 3000 }, (_, index) =>
          settledBy(s.locker.run(`k.${round}.${index}`, () => 'v')),
        )
        for (const { outcome } of await Promise.all(asked)) assert.equal(outcome, 'E_UNAVAILABLE')
      }
      for (let round = 0; round < 3; round += 1) await ask(round)
      const [before, pending] = [heap(), s.locker.stats().pendingCommands]
      for (let round = 3; round < 9; round += 1) await ask(round)
      const stats = s.locker.stats()
      assert.ok(
        stats.pendingCommands <= pending,
        `${stats.pendingCommands} commands wait, ${pending} did before`,
      )
      assert.deepEqual([stats.flights, stats.waiters, stats.held], [0, 0, 0])
      // 18,000 requests: a leak of a hundred bytes each would show. The last of them may take a moment to end.
      await until(() => heap() - before < 1_800_000, {
        what: `the heap of ${before} bytes to be flat`,
        every: 100,
      })
      if (away === 'frozen') s.t.server.thaw()
      else await s.t.server.restart()
      await until(() => s.locker.run('k', () => true), { what: 'calls to be served again' })
      await until(() => s.locker.stats().pendingCommands === 0, { what: 'all commands to be answered' })
    })
  }

  test('L5 keys - after the longest ttl an idle database holds no key of the locker', async () => {
    await using s = await scene({ lease: 300, ttl: 400, errorTtl: 400 })
    await Promise.all([
      s.locker.run('value', () => 'v'),
      s.locker.run('large', () => 'x'.repeat(100_000)),
      s.locker.run('short', () => 'v', { ttl: 0 }),
      s.locker.run('failed', () => Promise.reject(new Error('no paper'))).catch(() => {}),
      s.locker.run('shown', async ({ progress }) => progress(1)),
      leaseOf(s.locker, 'released').then((lease) => lease.release()),
      s.locker.run('forgotten', () => 'v').then(() => s.other.invalidate('forgotten', 'never there')),
      s.locker.run('dead', () => new Promise(() => {}), { timeout: 100 }).catch(() => {}),
    ])
    const held = await leaseOf(s.locker, 'left')
    const leaving = new AbortController()
    const left = assert.rejects(s.other.request('left', { signal: leaving.signal }), { code: 'E_ABORTED' })
    await parked(s.other, 'left')
    leaving.abort()
    await left
    await held.publish('v')
    await s.locker.close({ grace: 0 })
    await until(async () => (await s.t.server.call('DBSIZE')) === 0, { what: 'all keys to expire' })
  })

  /** The system clock, which records its pending timers. */
  class CountingClock implements Clock {
    readonly pending = new Set<Timer>()

    now(): number {
      return systemClock.now()
    }

    after(ms: number, run: () => void, background?: boolean): Timer {
      const inner = systemClock.after(
        ms,
        () => {
          this.pending.delete(timer)
          run()
        },
        background,
      )
      const timer: Timer = {
        cancel: () => {
          this.pending.delete(timer)
          inner.cancel()
        },
      }
      this.pending.add(timer)
      return timer
    }
  }

  test('L5 churn - after 10,000 keys no flight, waiter, listener or timer is left', async () => {
    await using t = await setup()
    const clock = new CountingClock()
    await using connection = new Connection(t.redis, { clock })
    const listeners = new Set<string>()
    const { inbox } = connection
    const [listen, ignore] = [inbox.listen.bind(inbox), inbox.ignore.bind(inbox)]
    inbox.listen = (nonce, listener) => {
      listeners.add(nonce)
      listen(nonce, listener)
    }
    inbox.ignore = (nonce) => {
      listeners.delete(nonce)
      ignore(nonce)
    }
    await using locker = new Locker({ redis: connection, cache: { max: 100 }, lease: 2000, ttl: 5000 })
    await using other = new Locker({ redis: t.redis, lease: 2000, ttl: 5000 })
    const ways: ((key: string) => Promise<unknown>)[] = [
      (key) => locker.run(key, () => key),
      (key) => Promise.all([other.run(key, () => key), locker.run(key, () => key)]),
      (key) => locker.run(key, () => Promise.reject(new Error(key))),
      (key) => locker.run(key, () => key, { signal: AbortSignal.timeout(1) }),
      (key) => locker.run(key, ({ progress }) => progress(key), { timeout: 2, onProgress: () => {} }),
      (key) =>
        locker
          .request(key, { timeout: 1 })
          .then((ticket) => (ticket instanceof Lease ? ticket.release() : undefined)),
      (key) =>
        locker.request(key).then((ticket) => (ticket instanceof Lease ? ticket.publish(key) : undefined)),
      (key) => locker.run(key, () => key, { refresh: true }),
      (key) => locker.run(key, () => key).then(() => locker.invalidate(key)),
      (key) => Promise.all([locker.run(key, () => key), locker.request(key)]),
    ]
    for (let round = 0; round < 100; round += 1) {
      const calls = Array.from({ length: 100 }, (_, index) =>
        ways[index % ways.length]?.(`k.${round}.${index}`),
      )
      await Promise.allSettled(calls)
    }
    const idle = () => {
      const { flights, waiters, held, running, queued, pendingCommands } = locker.stats()
      return [flights, waiters, held, running, queued, pendingCommands, listeners.size].every(
        (count) => count === 0,
      )
    }
    await until(idle, { what: 'everything to be settled' })
    assert.ok(locker.stats().cached <= 100)
    // The ping of the subscription, the timeout of its reply, and the shared deadline of all commands.
    await until(() => clock.pending.size <= 3, { what: 'the timers to end', timeout: 3000 })
  })
})

test('L1 deadline - it counts from the call, also while a reply arrives slowly', async () => {
  await using s = await scene()
  const keys = Array.from({ length: 8 }, (_, index) => `large ${index}`)
  // 8 MB at 1 MB/s: the last byte would arrive after 8 s.
  await Promise.all(keys.map((key) => s.other.run(key, () => 'x'.repeat(1_000_000))))
  s.t.proxy.throttle(1_000_000, { direction: 'down' })
  const timeout = 1000
  const asked = [
    ...keys.map((key) => s.locker.run(key, () => 'anew', { timeout })),
    s.locker.runMany(keys, (some) => some, { timeout }),
  ]
  for (const { outcome, ms } of await Promise.all(asked.map(settledBy))) {
    assert.ok(outcome === 'result' || outcome === 'E_TIMEOUT', outcome)
    assert.ok(ms < timeout + EPSILON, `${outcome} after ${ms} ms`)
  }
})
