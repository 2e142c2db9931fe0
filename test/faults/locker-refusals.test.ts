import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { channelName, LeaseLostError, Locker, type LockerOptions, UnavailableError } from '../../src/index.ts'
import { EPSILON, leaseOf, parked } from '../support/lockers.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { type Setup, setup } from '../support/setup.ts'
import { timed, until } from '../support/wait.ts'

/** A call fails after refusals of this length, ms. A lease is shorter. */
const PATIENCE = 600
const LEASE = 400

const quick = { lease: LEASE, unavailableAfter: PATIENCE, timeout: 8000, cache: false } as const

/** The fences of all grants to this process, by key, in the order of their events. */
class Fences implements Disposable {
  readonly #byKey = new Map<string, number[]>()
  readonly #note = (event: unknown): void => {
    const { key, fence } = event as { key: string; fence: number }
    this.#byKey.set(key, [...(this.#byKey.get(key) ?? []), fence])
  }

  constructor() {
    subscribe(channelName('grant'), this.#note)
  }

  /** S1: fences only grow. */
  assertGrew(): void {
    assert.ok(this.#byKey.size > 0)
    for (const [key, fences] of this.#byKey) {
      const grew = fences.every((fence, index) => index === 0 || fence > (fences[index - 1] ?? 0))
      assert.ok(grew, `the fences of ${key} did not grow: ${fences.join(', ')}`)
    }
  }

  [Symbol.dispose](): void {
    unsubscribe(channelName('grant'), this.#note)
  }
}

/** Asserts a typed error, in time, with the message of Redis. */
function assertRefused({ error, ms }: { error?: unknown; ms: number }, said: RegExp): void {
  assert.ok(error instanceof UnavailableError, `Expected an UnavailableError, got ${error}`)
  assert.match(`${error.message} ${error.cause}`, said)
  assert.ok(ms < PATIENCE + EPSILON, `it took ${ms} ms`)
}

const infoSays = (server: RedisServer, section: string, fact: string) =>
  until(async () => String(await server.call('INFO', section)).includes(fact), { what: `INFO: ${fact}` })

/** Makes background saves fail: a folder stands in the place of the file. */
const inTheWay = (server: RedisServer) => join(dirname(server.path), 'dump.rdb')

async function breakSaving(server: RedisServer): Promise<void> {
  await mkdir(inTheWay(server))
  await server.call('CONFIG', 'SET', 'save', '3600 1')
  await server.call('BGSAVE')
  await infoSays(server, 'persistence', 'rdb_last_bgsave_status:err')
}

async function mendSaving(server: RedisServer): Promise<void> {
  await rm(inTheWay(server), { recursive: true })
  await server.call('BGSAVE')
  await infoSays(server, 'persistence', 'rdb_last_bgsave_status:ok')
}

/** Keeps the server busy until the returned function is called. */
async function beBusy(t: Setup): Promise<void> {
  await t.server.call('CONFIG', 'SET', 'busy-reply-threshold', 20)
  const client = await t.client({ maxRetriesPerRequest: 0, retryStrategy: () => null })
  client.eval('while true do end', 0).catch(() => {})
  await until(
    () =>
      t.server.call('PING').then(
        () => false,
        () => true,
      ),
    { what: 'the server to be busy' },
  )
}

/** Closes all connections but that of the test support. */
async function expel(server: RedisServer): Promise<void> {
  await server.call('CONFIG', 'SET', 'maxclients', 1)
  for (const type of ['normal', 'pubsub']) await server.call('CLIENT', 'KILL', 'TYPE', type)
}

const set = (name: string, value: string | number) => (t: Setup) =>
  t.server.call('CONFIG', 'SET', name, value)

interface Refusal {
  name: string
  /** The message of the error. */
  said: RegExp
  begin(t: Setup): Promise<unknown>
  end(t: Setup): Promise<unknown>
  /** Whether existing results are served meanwhile. */
  hits: boolean
  /** Whether the command is retried. */
  passing: boolean
}

const REFUSALS: Refusal[] = [
  {
    name: 'BUSY',
    said: /BUSY|did not answer|not connected/,
    begin: beBusy,
    end: (t) => t.server.call('SCRIPT', 'KILL'),
    hits: false,
    passing: true,
  },
  {
    name: 'OOM',
    said: /OOM/,
    begin: set('maxmemory', 1),
    end: set('maxmemory', 0),
    hits: true,
    passing: false,
  },
  {
    name: 'MISCONF',
    said: /MISCONF/,
    begin: (t) => breakSaving(t.server),
    end: (t) => mendSaving(t.server),
    hits: true,
    passing: false,
  },
  {
    name: 'READONLY',
    said: /READONLY|did not answer|not connected/,
    begin: (t) => t.server.call('REPLICAOF', '127.0.0.1', 1),
    end: (t) => t.server.call('REPLICAOF', 'NO', 'ONE'),
    hits: true,
    passing: true,
  },
  {
    name: 'MASTERDOWN',
    said: /MASTERDOWN/,
    begin: async (t) => {
      await t.server.call('CONFIG', 'SET', 'replica-serve-stale-data', 'no')
      await t.server.call('REPLICAOF', '127.0.0.1', 1)
    },
    end: (t) => t.server.call('REPLICAOF', 'NO', 'ONE'),
    hits: false,
    passing: true,
  },
  {
    name: 'NOREPLICAS',
    said: /NOREPLICAS/,
    begin: set('min-replicas-to-write', 1),
    end: set('min-replicas-to-write', 0),
    hits: true,
    passing: true,
  },
  {
    name: 'NOPERM',
    said: /NOPERM/,
    begin: (t) => t.server.call('ACL', 'SETUSER', 'default', '-evalsha'),
    end: (t) => t.server.call('ACL', 'SETUSER', 'default', '+evalsha'),
    hits: false,
    passing: false,
  },
  {
    name: 'maxclients',
    said: /max number of clients|not connected/,
    begin: (t) => expel(t.server),
    end: set('maxclients', 1000),
    hits: false,
    passing: true,
  },
  {
    name: 'CLIENT PAUSE',
    said: /did not answer|not connected/,
    begin: (t) => t.server.call('CLIENT', 'PAUSE', 60_000, 'WRITE'),
    end: (t) => t.server.call('CLIENT', 'UNPAUSE'),
    hits: false,
    passing: true,
  },
]

for (const { name, said, begin, end, hits, passing } of REFUSALS) {
  describe(`refusals - ${name}`, () => {
    test(`L1 S1 refusals - ${name}: a typed error in time, and recovery when it ends`, async () => {
      using fences = new Fences()
      await using t = await setup()
      await using owned = new Locker({ redis: t.redis, ...quick })
      await using borrowing = new Locker({ redis: await t.client(), ...quick })
      const lockers = [owned, borrowing]
      await owned.run('kept', () => 'kept')
      const lease = await leaseOf(owned, 'held')
      const waiter = timed(borrowing.run('held', () => 'by the waiter', { timeout: 6000 }))
      await parked(owned, 'held')

      await begin(t)
      for (const locker of lockers) assertRefused(await timed(locker.run('fresh', () => 1)), said)
      if (hits) {
        for (const locker of lockers) assert.equal(await locker.run('kept', () => 'again'), 'kept')
      }
      await end(t)

      for (const locker of lockers) {
        const recovered = () => locker.run('fresh', ({ fence }) => fence)
        assert.ok(await until(recovered, { what: `the end of ${name}` }))
      }
      // The lease may have expired meanwhile, and the takeover of the waiter may have been refused.
      await lease.release().catch((error) => assert.ok(error instanceof LeaseLostError, String(error)))
      const { value, error } = await waiter
      assert.ok(value === 'by the waiter' || error instanceof UnavailableError, String(error))
      fences.assertGrew()
    })

    if (passing) {
      test(`L1 refusals - ${name}: calls wait for the end of a short one`, async () => {
        using fences = new Fences()
        await using t = await setup()
        const patient: LockerOptions = { ...quick, lease: 10_000, unavailableAfter: 7000 }
        await using owned = new Locker({ redis: t.redis, ...patient })
        await using borrowing = new Locker({ redis: await t.client(), ...patient })
        const lockers = [owned, borrowing]
        await Promise.all(lockers.map((locker, index) => locker.run(`warm ${index}`, () => 1)))
        await begin(t)
        let works = 0
        const running = lockers.map((locker) => locker.run('fresh', () => ++works))
        await until(() => lockers.every((locker) => locker.stats().pendingCommands > 0), {
          what: 'the claims to be under way',
        })
        await end(t)
        assert.deepEqual(await Promise.all(running), [1, 1])
        fences.assertGrew()
      })
    }
  })
}

describe('refusals - out of memory', () => {
  test('L4 refusals - OOM: leases are settled, existing results are served and invalidated', async () => {
    await using t = await setup()
    await using a = new Locker({ redis: t.redis, ...quick, lease: 5000 })
    await using b = new Locker({ redis: t.redis, ...quick, lease: 5000 })
    const lease = await leaseOf(a, 'held')
    const failing = await leaseOf(a, 'failing')
    const released = await leaseOf(a, 'released')
    const waiting = b.run('held', () => 'again')
    await parked(a, 'held')
    await a.run('kept', () => 'kept')
    await t.server.call('CONFIG', 'SET', 'maxmemory', 1)
    await lease.publish('settled')
    await failing.fail(new Error('no'))
    await released.release()
    assert.equal(await waiting, 'settled')
    assert.equal(await b.run('held', () => 'again'), 'settled')
    await b.invalidate('kept')
    assert.equal((await a.peek('kept')).status, 'free')
    assertRefused(await timed(b.run('kept', () => 1)), /OOM/)
  })

  test('S5 refusals - OOM: a held lease is renewed, and no waiter takes over', async () => {
    await using t = await setup()
    await using a = new Locker({ redis: t.redis, ...quick })
    await using b = new Locker({ redis: t.redis, ...quick })
    const lease = await leaseOf(a, 'held')
    const waiting = timed(b.run('held', () => 'by another'))
    await parked(a, 'held')
    await t.server.call('CONFIG', 'SET', 'maxmemory', 1)
    // Without renewals the lease would expire, and the waiter reads the record at its end.
    await new Promise((resolve) => setTimeout(resolve, 3 * LEASE))
    assert.ok(!lease.signal.aborted, 'the lease was lost')
    await lease.publish('by the holder')
    assert.equal((await waiting).value, 'by the holder')
  })
})

describe('refusals - a work whose result is refused', () => {
  test('L4 refusals - a result that could not be published is discarded: others run the work within a lease', async () => {
    await using t = await setup()
    await using a = new Locker({ redis: t.redis, ...quick })
    await using b = new Locker({ redis: t.redis, ...quick })
    const refused = timed(
      a.run('key', async () => {
        await breakSaving(t.server)
        return 'refused'
      }),
    )
    assert.ok((await refused).error instanceof UnavailableError)
    await mendSaving(t.server)
    const { value, ms } = await timed(b.run('key', () => 'by another'))
    assert.equal(value, 'by another')
    assert.ok(ms < LEASE + EPSILON, `it took ${ms} ms`)
    assert.equal(a.stats().held, 0)
  })
})

describe('refusals - the subscription', () => {
  test('refusals - MISCONF refuses a PING as well, which counts as a reply: no message was missed', async () => {
    await using t = await setup()
    await using locker = new Locker({ redis: t.redis })
    assert.equal(await locker.run('key', () => 1), 1)
    await until(() => locker.stats().subscribed, { what: 'the subscription' })
    let lost = 0
    const note = (event: unknown) => {
      const { link, up } = event as { link: string; up: boolean }
      if (link === 'subscription' && !up) lost += 1
    }
    subscribe(channelName('connection'), note)
    try {
      await breakSaving(t.server)
      const refused = async () =>
        Number(/errorstat_MISCONF:count=(\d+)/.exec(String(await t.server.call('INFO', 'errorstats')))?.[1])
      await until(async () => (await refused()) >= 2, { what: 'two PINGs to be refused', every: 20 })
      assert.equal(lost, 0)
    } finally {
      unsubscribe(channelName('connection'), note)
    }
  })
})

describe('refusals - LOADING', () => {
  test('L1 refusals - LOADING: a typed error in time, and recovery when the data are loaded', async () => {
    using fences = new Fences()
    // Slow on purpose: 2000 keys of a millisecond each, and the server serves clients between them.
    await using t = await setup({
      args: ['--key-load-delay', '1000', '--loading-process-events-interval-bytes', '1024'],
    })
    await using owned = new Locker({ redis: t.redis, ...quick })
    const eager = { enableReadyCheck: false, retryStrategy: () => 20 }
    await using borrowing = new Locker({ redis: await t.client(eager), ...quick })
    await using patient = new Locker({ redis: await t.client(eager), ...quick, unavailableAfter: 8000 })
    await Promise.all(
      [owned, borrowing, patient].map((locker, index) => locker.run(`warm ${index}`, () => 1)),
    )
    await t.server.call('DEBUG', 'POPULATE', 2000)
    await t.server.call('SAVE')
    const restarted = t.server.restart()
    const observer = await until(() => t.client({ enableReadyCheck: false, disableClientInfo: true }), {
      what: 'the server to listen',
    })
    await until(
      () =>
        observer.get('any').then(
          () => false,
          (error: Error) => error.message.startsWith('LOADING'),
        ),
      {
        what: 'the server to be loading',
      },
    )
    // A slow start makes the server estimate a long loading. No call waits for as long as it says.
    const pid = Number(/process_id:(\d+)/.exec(await observer.info('server'))?.[1])
    process.kill(pid, 'SIGSTOP')
    await new Promise((resolve) => setTimeout(resolve, 1500))
    process.kill(pid, 'SIGCONT')
    const waitedOut = timed(patient.run('patient', () => 'patient'))
    const [byOwned, byBorrowing] = await Promise.all(
      [owned, borrowing].map((locker) => timed(locker.run('fresh', () => 1))),
    )
    assert.ok(byOwned && byBorrowing)
    assertRefused(byOwned, /LOADING|not connected/)
    assertRefused(byBorrowing, /LOADING/)
    await restarted
    assert.equal((await waitedOut).value, 'patient')
    for (const locker of [owned, borrowing]) {
      assert.ok(
        await until(() => locker.run('fresh', ({ fence }) => fence), { what: 'the data to be loaded' }),
      )
    }
    fences.assertGrew()
  })
})

describe('refusals - connections that are killed', () => {
  for (const kind of ['owned', 'borrowed'] as const) {
    test(`S6 S3 refusals - CLIENT KILL in a loop under load, ${kind}: each work runs once`, async () => {
      using fences = new Fences()
      await using t = await setup()
      // A claim that lost its own grant would wait for the end of that lease.
      const options: LockerOptions = { ...quick, lease: 30_000, unavailableAfter: 5000 }
      const redis = async () => (kind === 'owned' ? t.redis : t.client())
      await using a = new Locker({ redis: await redis(), ...options })
      await using b = new Locker({ redis: await redis(), ...options })
      await Promise.all([a.run('warm', () => 1), b.run('warm', () => 1)])
      const works = new Map<string, number>()
      const answers = new Map([a, b].map((locker) => [locker, 0]))
      let kills = 0
      const load = async (locker: Locker) => {
        for (let index = 0; kills < 25; index += 1) {
          const keys = Array.from({ length: 10 }, (_, each) => `${index}.${each}`)
          const work = (key: string) => () => {
            works.set(key, (works.get(key) ?? 0) + 1)
            return key
          }
          assert.deepEqual(await Promise.all(keys.map((key) => locker.run(key, work(key)))), keys)
          answers.set(locker, (answers.get(locker) ?? 0) + 1)
        }
      }
      const kill = async () => {
        for (; kills < 25; kills += 1) {
          const before = new Map(answers)
          await t.server.call('CLIENT', 'KILL', 'TYPE', 'normal')
          // Each connection lives long enough for some calls. A server that accepts none is another test.
          const goesOn = () => [...answers].every(([locker, count]) => count > (before.get(locker) ?? 0))
          await until(goesOn, { what: 'the load to go on', timeout: 10_000, every: 1 })
        }
      }
      await Promise.all([load(a), load(b), kill()])
      const repeated = [...works].filter(([, times]) => times > 1)
      assert.deepEqual(repeated, [])
      fences.assertGrew()
    })
  }
})

describe('refusals - CLIENT PAUSE', () => {
  test('L4 refusals - CLIENT PAUSE: a late grant is released', async () => {
    await using t = await setup()
    await using a = new Locker({ redis: t.redis, ...quick, lease: 60_000 })
    await using b = new Locker({ redis: t.redis, ...quick, lease: 60_000 })
    await Promise.all([a.run('warm', () => 1), b.run('warm', () => 1)])
    await t.server.call('CLIENT', 'PAUSE', 60_000, 'WRITE')
    assertRefused(await timed(a.run('key', () => 1)), /did not answer/)
    await t.server.call('CLIENT', 'UNPAUSE')
    assert.equal(await b.run('key', () => 'by another'), 'by another')
  })
})

/** Makes a method of a client throw once, when `when` holds. */
function throwOnce<T extends object>(
  client: T,
  method: keyof T,
  when: (...args: unknown[]) => boolean,
): void {
  const original = client[method] as (...args: unknown[]) => unknown
  let thrown = false
  client[method] = ((...args: unknown[]) => {
    if (thrown || !when(...args)) return original.apply(client, args)
    thrown = true
    throw new Error('sabotage')
  }) as T[keyof T]
}

test('L1 refusals - a borrowed client that throws on a command refuses only that command', async () => {
  await using t = await setup()
  const client = await t.client()
  await using locker = new Locker({ redis: client })
  await locker.ready()
  await locker.run('warm', () => 0)
  throwOnce(client, 'sendCommand', (command) => (command as { name: string }).name === 'hget')
  const asked = Array.from({ length: 5 }, (_, n) => locker.run(`key:${n}`, () => n))
  const settled = await Promise.allSettled(asked)
  assert.deepEqual(
    settled.map(({ status }) => status),
    ['rejected', ...Array(4).fill('fulfilled')],
  )
  assert.ok(settled[0]?.status === 'rejected' && settled[0].reason instanceof UnavailableError)
  assert.equal(await locker.run('later', () => 'computed'), 'computed')
})

test('L1 refusals - a borrowed client whose duplicate throws is duplicated again', async () => {
  await using t = await setup()
  const client = await t.client()
  await using locker = new Locker({ redis: client })
  throwOnce(client, 'duplicate', () => true)
  const refreshed = Array.from({ length: 5 }, (_, n) => locker.run(`key:${n}`, () => n, { refresh: true }))
  assert.deepEqual(await Promise.all(refreshed), [0, 1, 2, 3, 4])
  await until(() => locker.stats().subscribed, { what: 'the subscription' })
})
