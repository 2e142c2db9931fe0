import assert from 'node:assert/strict'
import { afterEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { Redis as Redis5 } from 'ioredis5'
import {
  ClosedError,
  Connection,
  Lease,
  Locker,
  type LockerOptions,
  type RedisSource,
  RemoteError,
  UnavailableError,
} from '../../src/index.ts'
import { EPSILON } from '../support/lockers.ts'
import { freePort, LOCALHOST } from '../support/ports.ts'
import { Child } from '../support/process.ts'
import { serve } from '../support/process-child.ts'
import { RedisServer } from '../support/redis-server.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** The roles of this file when a test below starts it as another process. */
const handlers = {
  /** Calls a Redis that does not exist, by options and by a client without an 'error' listener, and stays alive. */
  ask: async (port: number): Promise<unknown[]> => {
    const options: LockerOptions = { unavailableAfter: 300 }
    const client = new Redis({ port, lazyConnect: true })
    const lockers = [{ port }, client].map((redis) => new Locker({ ...options, redis }))
    const codes = await Promise.all(
      lockers.map((locker) => locker.run('key', () => 1).catch(({ code }: { code: unknown }) => code)),
    )
    await Promise.all(lockers.map((locker) => locker.close()))
    client.disconnect()
    return codes
  },
}

/** The options that the clients of both versions of ioredis share. */
type Options = Partial<{
  path: string
  host: string
  port: number
  db: number
  username: string
  password: string
  keyPrefix: string
  enableOfflineQueue: boolean
  lazyConnect: boolean
  stringNumbers: boolean
  enableAutoPipelining: boolean
  enableReadyCheck: boolean
  autoResendUnfulfilledCommands: boolean
  connectionName: string
}>

type Borrowed = Redis | Redis5

const VERSIONS: Record<string, (options: Options) => Borrowed> = {
  'ioredis 6': (options) => new Redis(options),
  'ioredis 5.10': (options) => new Redis5(options),
}

const VARIANTS: Record<string, Options> = {
  'as it comes': {},
  'with keyPrefix': { keyPrefix: 'theirs:' },
  'with another db': { db: 3 },
  'without an offline queue': { enableOfflineQueue: false },
  'that connects lazily': { lazyConnect: true },
  'with stringNumbers': { stringNumbers: true },
  'with autopipelining': { enableAutoPipelining: true },
  'without a ready check': { enableReadyCheck: false },
  'with all of it': {
    keyPrefix: '{a}:',
    db: 1,
    enableOfflineQueue: false,
    lazyConnect: true,
    stringNumbers: true,
    enableAutoPipelining: true,
  },
}

/** Opened by the present test, and closed at its end, also if it fails. */
const clients = new Set<{ disconnect(): void }>()
const lockers = new Set<Locker>()

async function closeAll(): Promise<void> {
  await Promise.all([...lockers].map((locker) => locker.close({ grace: 0 })))
  for (const client of clients) client.disconnect()
  lockers.clear()
  clients.clear()
}

/** A client whose errors are ignored. */
function borrowed<C extends Borrowed>(client: C): C {
  client.on('error', () => {})
  clients.add(client)
  return client
}

function lockerOn(redis: NonNullable<LockerOptions['redis']>, options: LockerOptions = {}): Locker {
  const locker = new Locker({ redis, ...options })
  lockers.add(locker)
  return locker
}

async function leaseOf(locker: Locker, key: string): Promise<Lease> {
  const ticket = await locker.request(key)
  assert.ok(ticket instanceof Lease)
  return ticket
}

const parked = (locker: Locker, key: string) =>
  until(async () => (await locker.peek(key)).lock?.parked, { what: `somebody to be parked on ${key}` })

const subscribed = (...lockers: Locker[]) =>
  until(() => lockers.every((locker) => locker.stats().subscribed), { what: 'all to be subscribed' })

/** The outcome of a promise, and the time to it, ms. */
async function timed(promise: Promise<unknown>): Promise<{ value?: unknown; error?: unknown; ms: number }> {
  const start = performance.now()
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  )
  return { ...outcome, ms: performance.now() - start }
}

/** Every interaction of two processes, by messages alone: the lease is far too long to help. */
async function converse(a: Locker, b: Locker): Promise<void> {
  await Promise.all([a, b].map((locker, index) => locker.run(`own ${index}`, () => index)))
  await subscribed(a, b)
  const told = async (key: string, end: (lease: Lease) => Promise<void>) => {
    const lease = await leaseOf(a, key)
    const waiter = timed(b.run(key, () => 'by b'))
    await parked(a, key)
    const start = performance.now()
    await end(lease)
    const outcome = await waiter
    assert.ok(performance.now() - start < EPSILON, 'the message did not arrive')
    return outcome
  }
  const bytes = Buffer.from([0, 255, 13, 10])
  assert.deepEqual((await told('published', (lease) => lease.publish({ bytes }))).value, { bytes })
  assert.ok((await told('failed', (lease) => lease.fail(new Error('no')))).error instanceof RemoteError)
  assert.equal((await told('released', (lease) => lease.release())).value, 'by b')

  assert.equal((await a.peek('published')).status, 'done')
  const hits = b.stats().localHits
  assert.deepEqual(await b.run('published', () => 'again'), { bytes })
  assert.equal(b.stats().localHits, hits + 1)
  const cached = b.stats().cached
  await a.invalidate('published')
  await until(() => b.stats().cached === cached - 1, { what: 'the cache to drop what was invalidated' })
  assert.equal(await b.run('published', () => 'again'), 'again')
}

function tests(): void {
  afterEach(closeAll)

  for (const [version, make] of Object.entries(VERSIONS)) {
    describe(`clients - ${version}`, () => {
      for (const [variant, options] of Object.entries(VARIANTS)) {
        test(`clients - a borrowed client of ${version} ${variant}`, async () => {
          await using t = await setup()
          const [one, two] = [
            borrowed(make({ ...t.redis, ...options })),
            borrowed(make({ ...t.redis, ...options })),
          ]
          const [a, b] = [lockerOn(one), lockerOn(two)]
          await converse(a, b)
          await Promise.all([a.close(), b.close()])
          for (const client of [one, two]) {
            assert.equal(client.status, 'ready')
            assert.equal(await client.set('mine', 'still open'), 'OK')
          }
          await until(async () => (await t.server.connectedClients()).length === 2, {
            what: 'the subscriptions to end, and nothing else',
          })
          one.disconnect()
          two.disconnect()
        })
      }

      test(`clients - a client of ${version} is left as it was, by however many lockers`, async () => {
        await using t = await setup()
        const client = borrowed(make({ ...t.redis }))
        const warnings: Error[] = []
        const warn = (warning: Error) => warnings.push(warning)
        process.on('warning', warn)
        const events = () => client.eventNames().map((event) => [event, client.listenerCount(event)])
        const before = new Map(events() as [string, number][])
        for (let round = 0; round < 12; round += 1) {
          await using locker = lockerOn(client)
          await locker.run(`key ${round}`, () => 1)
          await locker.close()
        }
        await sleep(0)
        process.off('warning', warn)
        assert.deepEqual(warnings, [])
        assert.deepEqual(new Map(events() as [string, number][]), before)
      })

      for (const end of ['quit', 'disconnect'] as const) {
        test(`L1 clients - ${version}: the user ends the client meanwhile (${end})`, async () => {
          await using t = await setup()
          const client = borrowed(make({ ...t.redis }))
          await using a = lockerOn(t.redis, { lease: 400 })
          await using b = lockerOn(client, { lease: 400, unavailableAfter: 500, cache: false })
          await b.run('kept', () => 1)
          const lease = await leaseOf(a, 'key')
          const waiter = timed(b.run('key', () => 1))
          await parked(a, 'key')
          await client[end]()
          const now = await timed(b.run('kept', () => 1))
          assert.ok(now.error instanceof UnavailableError, String(now.error))
          assert.ok(now.ms < 500 + EPSILON)
          const later = await waiter
          assert.ok(later.error instanceof UnavailableError, String(later.error))
          assert.ok(later.ms < 400 + 500 + EPSILON)
          await assert.rejects(b.invalidate('kept'), UnavailableError)
          await b.close()
          await lease.release()
          await a.close()
          await until(async () => (await t.server.connectedClients()).length === 0, {
            what: 'all to be gone',
          })
        })
      }
    })
  }

  describe('clients - protocols', () => {
    for (const protocol of [2, 3] as const) {
      test(`clients - RESP${protocol}, borrowed and by options`, async () => {
        await using t = await setup()
        const client = await t.client({ protocol })
        await using a = lockerOn(client)
        await using b = lockerOn({ ...t.redis, protocol })
        await converse(a, b)
      })
    }

    test('clients - RESP3 with another mapping of replies', async () => {
      await using t = await setup()
      const client = new Redis({ ...t.redis, protocol: 3, replyMapping: 'resp3' })
      clients.add(client)
      await using a = lockerOn(client)
      await using b = lockerOn({ ...t.redis, protocol: 3, replyMapping: 'resp3' })
      await converse(a, b)
      await a.close()
      client.disconnect()
    })
  })

  describe('clients - sources', () => {
    const sources: Record<string, (server: RedisServer) => RedisSource> = {
      options: (server) => server.options,
      'options with keyPrefix and db': (server) => ({ ...server.options, keyPrefix: 'ours:', db: 2 }),
      'options without an offline queue': (server) => ({ ...server.options, enableOfflineQueue: false }),
      'a URL': (server) => `redis://${LOCALHOST}:${server.port}`,
      'a URL with a db': (server) => `redis://${LOCALHOST}:${server.port}/5`,
      'the path of a socket': (server) => server.path,
    }
    for (const [name, source] of Object.entries(sources)) {
      test(`clients - by ${name}: two connections, and none after close`, async () => {
        await using server = await RedisServer.start({ port: 'free' })
        const [a, b] = [lockerOn(source(server)), lockerOn(source(server))]
        await converse(a, b)
        assert.equal((await server.connectedClients()).length, 4)
        await a.close()
        await until(async () => (await server.connectedClients()).length === 2, { what: 'two to be gone' })
        await b.close()
        await until(async () => (await server.connectedClients()).length === 0, { what: 'all to be gone' })
      })
    }

    test('clients - a Connection has two connections, however many lockers share it', async () => {
      await using t = await setup()
      const client = await t.client()
      for (const redis of [t.redis, client]) {
        const connection = new Connection(redis)
        const lockers = Array.from({ length: 20 }, (_, index) =>
          lockerOn(connection, { prefix: `p${index % 3}` }),
        )
        await Promise.all(lockers.map((locker, index) => locker.run(`key ${index}`, () => index)))
        await subscribed(...lockers)
        assert.equal((await t.server.connectedClients()).length, redis === client ? 2 : 3)
        await Promise.all(lockers.slice(1).map((locker) => locker.close()))
        assert.equal(await lockers[0]?.run('still open', () => 1), 1)
        await lockers[0]?.close()
        await connection.close()
        await until(async () => (await t.server.connectedClients()).length === 1, { what: 'ours to be gone' })
      }
      assert.equal(await client.ping(), 'PONG')
    })

    for (const [what, one, two] of [
      ['keyPrefix', { keyPrefix: 'one:' }, { keyPrefix: 'two:' }],
      ['db', { db: 1 }, { db: 2 }],
    ] as const) {
      test(`clients - processes with another ${what} do not see each other's results`, async () => {
        await using t = await setup()
        await using a = lockerOn(await t.client(one))
        await using b = lockerOn({ ...t.redis, ...two }, { cache: false })
        assert.equal(await a.run('key', () => 'of a'), 'of a')
        assert.equal(await b.run('key', () => 'of b'), 'of b')
        assert.equal(await a.run('key', () => 'again'), 'of a')
        await a.invalidate('key')
        assert.equal((await a.peek('key')).status, 'free')
        assert.equal(await b.run('key', () => 'again'), 'of b')
      })
    }
  })

  describe('clients - errors', () => {
    test('clients - a refused port ends no process, and emits no warning by itself', async () => {
      await using child = await Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
      assert.deepEqual(await child.call('ask', await freePort()), ['E_UNAVAILABLE', 'E_UNAVAILABLE'])
      assert.equal(child.output, '')
    })

    test('L1 clients - refused at first and accepted later', async () => {
      const port = await freePort()
      const client = borrowed(new Redis5({ port }))
      const lockers = [{ port }, client].map((redis) => lockerOn(redis, { unavailableAfter: 300 }))
      for (const locker of lockers) {
        const { error, ms } = await timed(locker.run('key', () => 1))
        assert.ok(error instanceof UnavailableError)
        assert.match(String(error.cause), /ECONNREFUSED/)
        assert.ok(ms < 300 + EPSILON)
      }
      await using _server = await RedisServer.start({ port })
      for (const locker of lockers) {
        assert.ok(await until(() => locker.run('key', () => true), { what: 'the server to be found' }))
      }
      await subscribed(...lockers)
      await Promise.all(lockers.map((locker) => locker.close()))
      client.disconnect()
    })

    /** A server with a user that may do everything except this. */
    async function restricted(...rules: string[]): Promise<{ t: Setup; user: Options }> {
      const t = await setup()
      await t.server.call('ACL', 'SETUSER', 'user', 'on', '>right', '~*', '&*', '+@all', ...rules)
      return { t, user: { ...t.redis, username: 'user', password: 'right' } }
    }

    test('clients - a wrong password is in the error', async () => {
      const { t, user } = await restricted()
      await using _ = t
      const wrong = { ...user, password: 'wrong' }
      const client = borrowed(new Redis5(wrong))
      for (const redis of [wrong, client]) {
        await using locker = lockerOn(redis, { unavailableAfter: 500 })
        const { error, ms } = await timed(locker.run('key', () => 1))
        assert.ok(error instanceof UnavailableError)
        assert.match(`${error.message} ${error.cause}`, /WRONGPASS|NOAUTH/)
        assert.ok(ms < 500 + EPSILON)
        await locker.close()
      }
      client.disconnect()
    })

    test('clients - a user without permission for EVALSHA gets an error that says so', async () => {
      const { t, user } = await restricted('-evalsha')
      await using _ = t
      await using locker = lockerOn(user)
      const { error } = await timed(locker.run('key', () => 1))
      assert.ok(error instanceof UnavailableError)
      assert.match(String(error.cause), /NOPERM.*evalsha/)
    })

    for (const rule of ['-publish', '-subscribe', 'resetchannels']) {
      test(`L3 clients - a user with ${rule}: slower, but it works`, async () => {
        const { t, user } = await restricted(rule)
        await using _ = t
        const lease = 900
        await using a = lockerOn(user, { lease, cache: false })
        await using b = lockerOn(user, { lease, cache: false })
        for (const end of ['publish', 'fail', 'release'] as const) {
          const held = await leaseOf(a, end)
          const waiter = timed(b.run(end, () => 'by b'))
          await parked(a, end)
          const start = performance.now()
          await held[end]('by a')
          const { value, error } = await waiter
          const ms = performance.now() - start
          assert.ok(ms < lease + EPSILON, `${end} took ${ms} ms`)
          if (end === 'fail') assert.ok(error instanceof RemoteError)
          else assert.equal(value, end === 'publish' ? 'by a' : 'by b')
        }
      })
    }

    test('S4 clients - a result that a user without permission for PUBLISH invalidates is served by no cache', async () => {
      const { t, user } = await restricted('-publish')
      await using _ = t
      await using a = lockerOn(user)
      await using b = lockerOn(t.redis)
      await Promise.all([a, b].map((locker, index) => locker.run(`own ${index}`, () => 1)))
      await subscribed(a, b)
      assert.equal(await b.run('key', () => 'old'), 'old')
      const acknowledged = await a.invalidate('key').then(
        () => true,
        (error: unknown) => assert.ok(error instanceof UnavailableError),
      )
      // Either the warning says that results may be lost, or the result is there.
      if (!acknowledged) return
      await until(async () => (await b.run('key', () => 'new')) === 'new', {
        what: 'the cache to drop what was invalidated',
        timeout: 2000 + EPSILON,
      })
    })
  })

  describe('clients - close', () => {
    test('L1 clients - close while connecting: waiters reject, nothing remains', async () => {
      await using t = await setup({ proxy: true })
      t.proxy.blackhole(true)
      await using locker = lockerOn(t.redis, { unavailableAfter: 1000 })
      const waiter = timed(locker.run('key', () => 1))
      await until(() => t.proxy.accepted > 0, { what: 'a connection to be made' })
      const start = performance.now()
      await locker.close()
      assert.ok(performance.now() - start < 1000 + EPSILON)
      assert.ok((await waiter).error instanceof ClosedError)
      await assert.rejects(
        locker.run('key', () => 1),
        ClosedError,
      )
      await t.proxy.clear()
      await until(() => t.proxy.connections.length === 0, { what: 'the connections to be gone' })
      const accepted = t.proxy.accepted
      await t.server.call('PING')
      assert.equal(t.proxy.accepted, accepted)
      assert.equal((await t.server.connectedClients()).length, 0)
    })

    test('clients - close before the first use, and close in the tick of it', async () => {
      await using t = await setup()
      await using unused = lockerOn(t.redis)
      await unused.close()
      await using hasty = lockerOn(t.redis)
      const [asked] = await Promise.all([timed(hasty.run('key', () => 1)), hasty.close()])
      assert.ok(asked.error instanceof ClosedError || asked.value === 1, String(asked.error))
      await until(async () => (await t.server.connectedClients()).length === 0, {
        what: 'nothing to be left',
      })
    })
  })
}

if (process.argv[2] === 'child') serve(handlers)
else tests()
