import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { describe, test } from 'node:test'
import { createServer } from 'node:tls'
import { inspect } from 'node:util'
import { runInNewContext } from 'node:vm'
import { Cluster, Redis } from 'ioredis'
import { Redis as Redis5 } from 'ioredis5'
import { Connection, Locker, type LockerOptions, RedisQueue, UnavailableError } from '../../src/index.ts'
import { freePort, LOCALHOST } from '../support/ports.ts'
import { Child } from '../support/process.ts'
import { serve } from '../support/process-child.ts'
import { portOf, RedisServer } from '../support/redis-server.ts'
import { setup } from '../support/setup.ts'

/** Redis may be silent for this long, ms. */
const PATIENCE = 600

/** The role of this file when a test starts it as another process: a warning is emitted once per process. */
const handlers = {
  /** Prints the warnings of a process that creates a layer with these options several times. */
  warnings: async (redis: 'undefined' | 'null' | 'absent'): Promise<string[]> => {
    const warnings: string[] = []
    process.on('warning', (warning) =>
      warnings.push(`${(warning as { code?: string }).code} ${warning.message}`),
    )
    const options = { undefined: { redis: undefined }, null: { redis: null }, absent: {} }[redis]
    for (let round = 0; round < 2; round++) {
      await using locker = new Locker(options)
      assert.equal(await locker.run('key', () => 1), 1)
      await using queue = new RedisQueue('queue', options)
      queue.process('command', () => 2)
      assert.equal(await queue.submit('command'), 2)
    }
    await new Promise((resolve) => setImmediate(resolve))
    return warnings
  },
}

const LAYERS: Record<string, (redis: unknown) => AsyncDisposable> = {
  Locker: (redis) => new Locker({ redis } as never),
  RedisQueue: (redis) => new RedisQueue('queue', { redis } as never),
}

class NodeRedisClient extends EventEmitter {
  readonly isOpen = false
  connect(): void {}
  sendCommand(): void {}
}

/** A Connection of another copy of this package has the same mark, and is not an instance of our class. */
const foreign = { [Symbol.for('soloflight.Connection')]: true, ask() {} }

class Config {
  host = 'localhost'
}

const REFUSED: [string, unknown, RegExp][] = [
  ['a client of node-redis', new NodeRedisClient(), /a client of node-redis.*pass its URL/],
  [
    'an old client of node-redis',
    { send_command() {}, internal_send_command() {} },
    /a client of node-redis/,
  ],
  ['{ url }', { url: 'redis://:secret@elsewhere' }, /Unknown option `url` in `redis`: pass the URL itself/],
  ['{ socket }', { socket: { host: 'elsewhere' } }, /`socket`.*node-redis; pass `host` and `port`/],
  ['a misspelt option', { hots: 'elsewhere' }, /Unknown option `hots` in `redis`.*did you mean `host`\?$/],
  ['another misspelt option', { sentinelPasword: '' }, /did you mean `sentinelPassword`\?$/],
  [
    'a Connection of another copy',
    foreign,
    /a Connection of another copy of soloflight: install the package once/,
  ],
  ['an empty string', '', /an empty string; pass null, or leave it out, to work without Redis/],
  ['blanks', ' ', /an empty string/],
  ['a host alone', 'localhost:6379', /a URL such as redis:\/\/localhost:6379, got `localhost:6379`/],
  ['a URL of something else', 'http://localhost', /a URL such as redis:/],
  ['a URL object of something else', new URL('http://localhost'), /a URL such as redis:/],
  ['a URL without a host', 'redis:///2', /a URL that names a host/],
  [
    'a URL with a name for a database',
    'redis://localhost/main',
    /a URL whose path is the number of a database/,
  ],
  ['a URL that is none', 'redis://localhost:port', /a valid URL/],
  ['a host that is not there', { host: undefined }, /`redis\.host`.*it would be localhost/],
  ['an array', [{ host: 'localhost' }], /an array: for a cluster pass `new Cluster\(nodes\)`/],
  ['a promise', Promise.resolve('redis://localhost'), /a promise: await it first/],
  ['an object of a class', new Config(), /an object of the class Config/],
  ['a number', 6379, /to be a URL, ioredis options or an ioredis client, got `6379`$/],
  ['a function', () => 'redis://localhost', /or an ioredis client, got `\(\) ?=>/],
]

const SECRETS: [string, unknown][] = [
  ['a URL of another scheme', 'https://user:s3cr3t@host'],
  ['no scheme', 'user:s3cr3t@host:6379'],
  ['a password with an @ and a slash', 'redis://user:s3cr3t@s3cr3t/s3cr3t@host:port'],
  ['a password as an option', 'redis://host:port?password=s3cr3t'],
  ['a URL object', new URL('https://user:s3cr3t@host')],
]

function tests(): void {
  for (const [layer, make] of Object.entries(LAYERS)) {
    describe(`redis option - ${layer}`, () => {
      for (const [what, redis, message] of REFUSED) {
        test(`redis option - ${layer}: ${what} is refused`, () => {
          assert.throws(() => make(redis), { name: 'TypeError', message })
        })
      }

      for (const [what, redis] of SECRETS) {
        test(`redis option - ${layer}: a message shows no credentials: ${what}`, () => {
          assert.throws(
            () => make(redis),
            (error) => {
              assert.ok(error instanceof TypeError)
              assert.doesNotMatch(inspect(error), /s3cr3t/)
              return true
            },
          )
        })
      }

      test(`redis option - ${layer}: a string or URL instead of the options shows no credentials`, () => {
        const url = 'redis://user:s3cr3t@host'
        const wrong = {
          Locker: () => new Locker(url as never),
          RedisQueue: () => new RedisQueue('q', url as never),
        }
        assert.throws(
          wrong[layer as keyof typeof wrong],
          /^TypeError: Expected `options` to be an object.*\*\*\*@host/,
        )
      })
    })
  }

  describe('redis option - valid sources', () => {
    test('redis option - every kind of source reaches the server that it names', async () => {
      await using server = await RedisServer.start({ port: 'free' })
      await server.call('ACL', 'SETUSER', 'us:er', 'on', '>p@ss/w', '~*', '&*', '+@all')
      const { path } = server
      const port = portOf(server)
      const login = `${encodeURIComponent('us:er')}:${encodeURIComponent('p@ss/w')}`
      const six = new Redis({ port, lazyConnect: true })
      const five = new Redis5({ port, lazyConnect: true })
      const cluster = new Cluster([{ port }], { lazyConnect: true })
      try {
        const sources: Record<string, LockerOptions['redis']> = {
          'a URL': `redis://${LOCALHOST}:${port}/3`,
          'a URL object': new URL(`redis://${login}@${LOCALHOST}:${port}/4`),
          'a URL of another realm': runInNewContext('new URL(url)', {
            URL: realm(),
            url: `redis://${LOCALHOST}:${port}`,
          }),
          'a socket': path,
          'a socket as a URL': `unix://${path}?db=2`,
          options: { host: LOCALHOST, port: port, password: undefined },
          'options without a prototype': Object.assign(Object.create(null), { port }),
          'a client of ioredis 6': six,
          'a client of ioredis 5.10': five,
          'a Connection': new Connection({ port: port }),
        }
        for (const [what, redis] of Object.entries(sources)) {
          await using locker = new Locker({ redis })
          assert.equal(await locker.run(what, () => what), what)
          assert.notEqual((await server.connectedClients()).length, 0, what)
          await locker.close()
          if (redis instanceof Connection) await redis.close()
        }
        const dbs = String(await server.call('INFO', 'keyspace')).match(/^db\d+/gm)
        assert.deepEqual(dbs, ['db0', 'db2', 'db3', 'db4'])
        new Locker({ redis: cluster })
      } finally {
        for (const client of [six, five, cluster]) client.disconnect()
      }
    })

    test('redis option - undefined warns once that it works alone; null and leaving it out do not', async () => {
      const said: Record<string, string[]> = {}
      for (const redis of ['undefined', 'null', 'absent'] as const) {
        await using child = await Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
        said[redis] = await child.call('warnings', redis)
      }
      assert.deepEqual([said['null'], said['absent']], [[], []])
      assert.equal(said['undefined']?.length, 2)
      for (const [index, layer] of ['Locker', 'RedisQueue'].entries()) {
        const warning = said['undefined']?.[index] ?? ''
        assert.match(warning, new RegExp(`^SOLOFLIGHT_NO_REDIS .*${layer} is undefined.*alone.*redis: null`))
      }
    })
  })

  describe('redis option - replies of Redis are in the message', () => {
    async function failure(redis: LockerOptions['redis'], key = 'key'): Promise<UnavailableError> {
      await using locker = new Locker({ redis, unavailableAfter: PATIENCE })
      const error: unknown = await locker.run(key, () => 'done').catch((thrown: unknown) => thrown)
      assert.ok(error instanceof UnavailableError, `Expected an UnavailableError, got ${String(error)}`)
      return error
    }

    test('redis option - a database that does not exist', async () => {
      await using server = await RedisServer.start({ port: 'free' })
      const port = portOf(server)
      for (const redis of [`redis://${LOCALHOST}:${port}/99`, { port: port, db: 99 }])
        assert.match((await failure(redis)).message, /Redis refused: ERR DB index is out of range/)
      const borrowed = new Redis5({ port: port, db: 99, lazyConnect: true })
      try {
        assert.match((await failure(borrowed)).message, /DB index is out of range/)
      } finally {
        borrowed.disconnect()
      }
      assert.equal(await server.call('DBSIZE'), 0)
    })

    test('redis option - a wrong password, and none, without showing any', async () => {
      await using server = await RedisServer.start({ port: 'free' })
      await server.call('ACL', 'SETUSER', 'user', 'on', '>right', '~*', '&*', '+@all')
      const wrong = await failure(`redis://user:s3cr3t@${LOCALHOST}:${server.port}`)
      assert.match(wrong.message, /WRONGPASS/)
      assert.doesNotMatch(inspect(wrong, { depth: 9 }), /s3cr3t/)
      await server.call('CONFIG', 'SET', 'requirepass', 'right')
      assert.match((await failure(`redis://${LOCALHOST}:${server.port}`)).message, /NOAUTH/)
    })

    test('redis option - a replica', async () => {
      await using t = await setup()
      await t.server.call('REPLICAOF', LOCALHOST, 1)
      for (const redis of [t.redis, await t.client()])
        assert.match((await failure(redis, `key ${typeof redis}`)).message, /READONLY You can't write/)
    })

    test('redis option - one end speaks TLS and the other does not', async () => {
      await using server = await RedisServer.start({ port: 'free' })
      assert.match(
        (await failure(`rediss://${LOCALHOST}:${server.port}`)).message,
        /does the server speak TLS/,
      )
      const secure = createServer({}).on('tlsClientError', () => {})
      const port = await freePort()
      await once(secure.listen(port, LOCALHOST), 'listening')
      try {
        const { message } = await failure(`redis://${LOCALHOST}:${port}`)
        assert.match(message, /(ECONNRESET|EPIPE|closed).*does the server expect TLS, rediss:/)
      } finally {
        secure.close()
      }
    })

    test('redis option - no server listens, on any address of a name', async () => {
      const port = await freePort()
      assert.match((await failure(`redis://localhost:${port}`)).message, /ECONNREFUSED/)
      const cluster = new Cluster([{ host: LOCALHOST, port }], {
        lazyConnect: true,
        clusterRetryStrategy: () => null,
      })
      cluster.on('error', () => {})
      assert.match((await failure(cluster)).message, /ECONNREFUSED|closed/)
      cluster.disconnect()
    })
  })
}

/** A URL class of another realm. */
function realm(): unknown {
  return class {
    readonly href: string
    constructor(href: string) {
      this.href = href
    }
    get [Symbol.toStringTag](): string {
      return 'URL'
    }
    toString(): string {
      return this.href
    }
  }
}

if (process.argv[2] === 'child') serve(handlers)
else tests()
