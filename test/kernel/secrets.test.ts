// Passwords, and other secrets in foreign errors, are not shown.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { describe, test } from 'node:test'
import { Cluster, Redis } from 'ioredis'
import { Redis as Redis5 } from 'ioredis5'
import {
  Connection,
  Locker,
  RedisQueue,
  type RedisSource,
  type RemoteError,
  type RemoteFailure,
  UnavailableError,
} from '../../src/index.ts'
import { HttpCache } from '../../src/memoize/index.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { CARRIERS, isSecret, masked, maskedValue, SECRET_WORDS } from '../../src/secrets.ts'
import { HttpWorld } from '../support/http-scene.ts'
import { freePort, LOCALHOST } from '../support/ports.ts'
import { portOf, RedisServer } from '../support/redis-server.ts'
import { setup } from '../support/setup.ts'
import { Told } from '../support/told.ts'
import { until } from '../support/wait.ts'

const SECRET = 's3cr3t'
const USER = 'us3r'

/** Makes every kind of call on several layers, and waits until they have warned that Redis is unreachable. */
async function askAll(redis: RedisSource, told: Told): Promise<void> {
  const locker = new Locker({ redis, unavailableAfter: 300, timeout: 1000, errorTtl: 1000 })
  const queue = new RedisQueue('jobs', { redis, unavailableAfter: 300, timeout: 1000 })
  const connection = new Connection(redis)
  queue.process('render', () => 1)
  const read = async () => {
    for await (const _ of locker.stream('words', async function* () {})) assert.fail('unexpected')
  }
  await told.failures(
    locker.ready({ timeout: 500 }),
    queue.ready({ timeout: 500 }),
    locker.run('key', () => 1),
    locker.run('local', () => 1, { onUnavailable: 'local' }),
    locker.request('other'),
    locker.peek('key'),
    locker.invalidate('key'),
    locker.invalidateTags('tag'),
    read(),
    queue.submit('render', 1),
    queue.enqueue('render', 2),
    queue.counts(),
    connection.call({ send: (sender) => sender.send('time', []) }, 300),
  )
  await new Promise((resume) => setTimeout(resume, 1800))
  await told.failures(locker.run('again', () => 1))
  await told.failures(locker.close({ grace: 0 }), queue.close({ grace: 0 }), connection.close())
}

describe('secrets - a connection that fails', { concurrency: 5 }, () => {
  /** A way in which a client is refused: the server, and the options of the client. */
  const cases: Record<
    string,
    { args?: string[]; acl?: boolean; source: (port: number, secret: string) => RedisSource }
  > = {
    'a wrong password': {
      args: ['--requirepass', 'right'],
      source: (port, secret) => ({ host: LOCALHOST, port, password: secret }),
    },
    'a wrong password in a URL': {
      args: ['--requirepass', 'right'],
      source: (port, secret) => `redis://:${secret}@${LOCALHOST}:${port}`,
    },
    'a wrong password of a user': {
      acl: true,
      source: (port, secret) => `redis://${secret}:${secret}@${LOCALHOST}:${port}`,
    },
    'a user that is not there, by RESP3': {
      args: ['--requirepass', 'right'],
      source: (port, secret) => ({ host: LOCALHOST, port, username: secret, password: secret, protocol: 3 }),
    },
    'a server that does not know AUTH': {
      args: ['--rename-command', 'AUTH', '', '--rename-command', 'HELLO', ''],
      source: (port, secret) => ({ host: LOCALHOST, port, username: secret, password: secret }),
    },
    'a server without TLS': { source: (port, secret) => `rediss://${secret}:${secret}@${LOCALHOST}:${port}` },
    'a borrowed client': {
      args: ['--requirepass', 'right'],
      source: (port, secret) => new Redis({ host: LOCALHOST, port, username: secret, password: secret }),
    },
    'a borrowed client of ioredis 5': {
      args: ['--requirepass', 'right'],
      source: (port, secret) =>
        new Redis5({ host: LOCALHOST, port, username: secret, password: secret }) as never,
    },
    'a Sentinel': {
      args: ['--requirepass', 'right'],
      source: (port, secret) => ({
        sentinels: [{ host: LOCALHOST, port }],
        name: 'master',
        sentinelPassword: secret,
        password: secret,
      }),
    },
    'a Cluster': {
      args: ['--requirepass', 'right', '--cluster-enabled', 'yes'],
      source: (port, secret) =>
        new Cluster([{ host: LOCALHOST, port }], { redisOptions: { password: secret } }),
    },
    'a URL as the host': { source: (_, secret) => ({ host: `redis://${secret}:${secret}@nowhere.invalid` }) },
    'credentials in the host': {
      source: (port, secret) => ({ host: `${secret}:${secret}/x@${LOCALHOST}`, port }),
    },
    'credentials in the path': { source: (_, secret) => ({ path: `${secret}:${secret}@${LOCALHOST}` }) },
    'a Cluster of URLs': {
      args: ['--requirepass', 'right', '--cluster-enabled', 'yes'],
      source: (port, secret) => new Cluster([`redis://${secret}:${secret}@${LOCALHOST}:${port}`]),
    },
  }

  for (const [index, [what, { args, acl, source }]] of Object.entries(cases).entries()) {
    test(`secrets - ${what}: errors, events and warnings do not show the password`, async () => {
      await using server = await RedisServer.start({ port: 'free', args: args ?? [] })
      if (acl) await server.call('ACL', 'SETUSER', 'user', 'on', '>right', '~*', '&*', '+@all')
      // Each has a password of its own, because all events of this process are collected.
      const secret = `${SECRET}-${index}-`
      await check(source(portOf(server), secret), secret)
    })
  }

  test('secrets - a closed port: errors, events and warnings do not show the password', async () => {
    const secret = `${SECRET}-closed-`
    await check(`redis://${secret}:${secret}@${LOCALHOST}:${await freePort()}`, secret)
  })

  async function check(redis: RedisSource, secret: string): Promise<void> {
    using told = new Told()
    const client = typeof redis === 'object' && 'disconnect' in redis ? redis : undefined
    client?.on('error', () => {})
    try {
      await askAll(redis, told)
    } finally {
      client?.disconnect()
    }
    assert.ok(told.size > 5, `${told.size} things were told`)
    told.assertWithout(secret)
  }
})

test('secrets - an error of a refused command does not show its arguments', async () => {
  await using t = await setup()
  using told = new Told()
  await using locker = new Locker({ redis: t.redis, unavailableAfter: 300 })
  const work = async () => {
    await t.server.call('REPLICAOF', LOCALHOST, 1)
    return SECRET
  }
  const [failure] = await told.failures(locker.run('key', work))
  assert.ok(failure instanceof UnavailableError)
  const { message, name } = failure.cause as Error
  assert.match(message, /READONLY/)
  assert.equal(name, 'ReplyError')
  told.assertWithout(SECRET)
  await locker.close({ grace: 0 })
})

test('secrets - a cause keeps its code', async () => {
  await using locker = new Locker({
    redis: { host: LOCALHOST, port: await freePort() },
    unavailableAfter: 200,
  })
  const error = await locker.run('key', () => 1).catch((thrown: UnavailableError) => thrown)
  assert.ok(error instanceof UnavailableError)
  assert.deepEqual(Object.entries(error.cause as object).sort(), [
    ['code', 'ECONNREFUSED'],
    ['name', 'Error'],
  ])
})

test('secrets - a URL in the wrong place is not quoted', async () => {
  using told = new Told()
  await using locker = new Locker()
  await using queue = new RedisQueue('jobs')
  const urls = [
    `redis://${USER}:${SECRET}@host:6379`,
    `rediss//${USER}:${SECRET}@host`,
    `${USER}:${SECRET}@host:6379/0`,
    `redis://${USER}:pa/ss?${SECRET}#@host/0`,
    `redis://host?password=${SECRET}`,
    new URL(`redis://${USER}:${SECRET}@host`),
    [`redis://a:b@host`, `redis://${USER}:${SECRET}@host`],
  ]
  for (const url of urls) {
    const given = url as never
    const calls: Record<string, () => unknown> = {
      prefix: () => new Locker({ prefix: given }),
      ttl: () => new Locker({ ttl: given }),
      codec: () => new Locker({ codec: given }),
      cache: () => new Locker({ cache: { max: given } }),
      onUnavailable: () => new Locker({ onUnavailable: given }),
      'an option of Redis': () => new Locker({ redis: { [String(url)]: 1 } as never }),
      'a name of an option': () => new Locker({ [String(url)]: 1 } as never),
      'channels of a Connection': () => new Connection('redis://host', { channelPrefix: given }),
      'retain of a queue': () => new RedisQueue('jobs', { retain: { failed: given } }),
      'lease of a queue': () => new RedisQueue('jobs', { lease: given }),
      'vary of a cache': () => new HttpCache(locker, { vary: given }),
      'status of a cache': () => new HttpCache(locker, { cacheStatus: given } as never),
      concurrency: () => queue.process('render', () => 1, { concurrency: given }),
    }
    for (const [name, call] of Object.entries(calls)) told.thrown(name, call)
    await told.failures(
      locker.run('key', () => 1, { timeout: given }),
      locker.run('key', () => 1, { version: given } as never),
      queue.submit('render', 1, { delay: given }),
      queue.jobs('waiting', { cursor: given }),
      queue.jobs(given),
    )
    if (typeof url === 'string' && /:\/\/(?!host)/.test(url)) continue
    if (typeof url === 'string')
      told.thrown('redis', () => new Locker({ redis: url.replace('redis:', 'http:') }))
  }
  told.assertWithout(SECRET)
})

test('secrets - a URL as a key is quoted without its credentials, and is the key all the same', async () => {
  await using locker = new Locker()
  await using queue = new RedisQueue('jobs')
  const key = `https://${USER}:${SECRET}@host/path`
  const never = () => new Promise<never>(() => {})
  const [run, submitted] = await Promise.allSettled([
    locker.run(key, never, { timeout: 20 }),
    queue.submit(key, 1, { timeout: 20 }),
  ])
  for (const each of [run, submitted]) {
    const { reason } = each as PromiseRejectedResult
    assert.match(reason.message, /No outcome of `https:\/\/\*\*\*@host\/path`/)
  }
  assert.equal((run as PromiseRejectedResult).reason.key, key)
  await locker.close({ grace: 0 })
  await queue.close({ grace: 0 })
})

test('secrets - texts are shown without credentials, and otherwise as they are', () => {
  const texts: Record<string, string> = {
    'at redis://u:p@h:1, and redis://:p@h': 'at redis://***@h:1, and redis://***@h',
    'https://u@h/a@b': 'https://***@b',
    'redis://u:p/p?p#p@h:1/0': 'redis://***@h:1/0',
    'redis//u:p@h': 'redis//***@h',
    'https://registry/@scope/name@1.0': 'https://registry/@scope/name@1.0',
    'file:///a/node_modules/@b/c.js:1:2': 'file:///a/node_modules/@b/c.js:1:2',
    'http://[::1]:80/a@b': 'http://[::1]:80/a@b',
    'to a@b.c': 'to a@b.c',
    'https://h/?a=1&access_token=x&b=2#f': 'https://h/?a=1&access_token=***&b=2#f',
    "ERR unknown command 'AUTH', with args beginning with: 'u' 'p' ":
      "ERR unknown command 'AUTH', with args beginning with: ***",
  }
  for (const [text, expected] of Object.entries(texts)) {
    assert.equal(masked(text), expected)
    assert.equal(masked(expected), expected)
  }
  assert.equal(maskedValue('redis://u:p@h:1/0?db=1'), 'redis://***@h:1/0?***')
  assert.equal(maskedValue('localhost:6379'), 'localhost:6379')
  for (const part of ['//', '//a:', '//a:b', '?a', '?token', '@', ' //x', '//a@', '//['])
    for (const text of [part.repeat(200_000), `${part.repeat(200_000)}=`]) {
      const began = performance.now()
      masked(text)
      assert.ok(performance.now() - began < 1000, `${part} takes ${performance.now() - began} ms`)
    }
})

test('secrets - the fields that are documented as left out are those that are', async () => {
  const page = await readFile(new URL('../../docs/secrets.md', import.meta.url), 'utf8')
  const options = await readFile(new URL('../../src/locker/options.ts', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| [a-z ]+ \| (.+) \|$/gm)].flatMap(([, row]) => row?.split(' ') ?? [])
  const listed = rows.map((word) => word.slice(1, -1))
  assert.equal(listed.length, CARRIERS.size + SECRET_WORDS.length)
  for (const name of listed) assert.ok(isSecret(name), name)
  for (const name of rows) assert.ok(options.includes(name), `${name} in the docstring`)
  for (const name of ['name', 'message', 'status', 'author', 'issues', 'errno', 'path', 'passed', 'expired'])
    assert.ok(!isSecret(name), name)
})

/** Fields that errors of well-known packages have besides message and code. */
const FOREIGN: Record<string, object> = {
  ioredis: { command: { name: 'auth', args: [SECRET] }, lastNodeError: { command: { args: [SECRET] } } },
  pg: { severity: 'ERROR', detail: `Failing row contains (${SECRET})`, where: SECRET, internalQuery: SECRET },
  mysql2: { errno: 1064, sql: `SET PASSWORD = '${SECRET}'`, sqlState: '42000' },
  mongodb: {
    keyValue: { mail: SECRET },
    errorResponse: { op: SECRET },
    writeErrors: [{ err: { op: SECRET } }],
  },
  sequelize: { sql: SECRET, parameters: [SECRET], errors: [{ path: 'a', value: 'b', params: [SECRET] }] },
  axios: {
    status: 401,
    config: {
      url: `https://h?key=${SECRET}`,
      headers: { Authorization: SECRET },
      auth: { password: SECRET },
    },
    request: { path: SECRET },
    response: { headers: { 'set-cookie': SECRET }, data: SECRET },
  },
  got: { options: { headers: { cookie: SECRET } }, timings: { start: 1 } },
  undici: { statusCode: 401, body: SECRET, headers: ['authorization', SECRET] },
  aws: { $metadata: { httpStatusCode: 403 }, $response: { body: SECRET }, $fault: 'client' },
  node: {
    syscall: 'spawn',
    spawnargs: [SECRET],
    cmd: SECRET,
    stderr: SECRET,
    input: SECRET,
    rawPacket: SECRET,
  },
  own: {
    accessToken: SECRET,
    'x-api-key': SECRET,
    CLIENT_SECRET: SECRET,
    user_password: SECRET,
    sessionId: SECRET,
    connectionString: SECRET,
    details: [{ deep: { Cookie: SECRET, field: 'kept' }, link: `postgres://u:${SECRET}@h/db` }],
  },
}

/** An error with these fields, which are also in its cause, and in one of its aggregated errors. */
function foreignError(fields: object): Error {
  const make = (rest?: ErrorOptions) =>
    Object.assign(new Error(`connect to postgres://u:${SECRET}@h/db failed`, rest), fields)
  const several = Object.assign(new AggregateError([make()], `at http://u:${SECRET}@h`), {
    code: 'E_SEVERAL',
  })
  const cause = make({ cause: several })
  return make({ cause })
}

describe('secrets - failures as data', () => {
  test('secrets - a failure of a work is sent without the secrets of foreign errors', async () => {
    await using t = await setup()
    await using here = new Locker({ redis: t.redis, errorTtl: 60_000 })
    await using there = new Locker({ redis: t.redis })
    using told = new Told()
    for (const [name, fields] of Object.entries(FOREIGN)) {
      await here.run(name, () => Promise.reject(foreignError(fields))).catch(() => {})
      const [error] = await told.failures(there.run(name, () => 'unused'))
      const { remote, cause } = error as RemoteError
      assert.equal(remote.message, 'connect to postgres://***@h/db failed')
      assert.equal(((cause as RemoteError).cause as RemoteError).remote.code, 'E_SEVERAL')
      if (name === 'mysql2') assert.deepEqual(remote.fields, { errno: 1064, sqlState: '42000' })
      if (name === 'own')
        assert.deepEqual(remote.fields, {
          details: [{ deep: { field: 'kept' }, link: 'postgres://***@h/db' }],
        })
      async function* chunks(): AsyncGenerator<string> {
        yield 'chunk'
        await until(() => here.stats().subscribed, { what: 'the subscription' })
        throw foreignError(fields)
      }
      const read = async (locker: Locker) => {
        for await (const _ of locker.stream(name, chunks, { errorTtl: 60_000 } as never));
      }
      await read(here).catch(() => {})
      await told.failures(read(there))
      await told.failures(
        here
          .run(`text ${name}`, () => Promise.reject(`redis://u:${SECRET}@h`), { errorTtl: 9000 })
          .catch(() => {}),
        there.run(`text ${name}`, () => 'unused'),
      )
    }
    for (const key of (await t.server.call('KEYS', '*')) as string[]) {
      const type = String(await t.server.call('TYPE', key))
      told.note(key, await t.server.call(type === 'hash' ? 'HGETALL' : 'EXISTS', key))
    }
    told.assertWithout(SECRET)
  })

  test('secrets - a failure of a job is sent, listed and kept without the secrets of foreign errors', async () => {
    await using t = await setup()
    await using worker = new RedisQueue('jobs', { redis: t.redis, errorTtl: 60_000 })
    await using submitter = new RedisQueue('jobs', { redis: t.redis, attempts: 2 })
    using told = new Told()
    const stop = await submitter.watch((event) => told.note(event))
    worker.on('retrying', (about) => told.note(about))
    worker.on('failed', (about) => told.note(about))
    worker.process('render', (name) => Promise.reject(foreignError(FOREIGN[String(name)] ?? {})))
    for (const name of Object.keys(FOREIGN)) await told.failures(submitter.submit('render', name))
    const { jobs } = await submitter.jobs('failed')
    assert.equal(jobs.length, Object.keys(FOREIGN).length)
    told.note(...jobs)
    await until(() => told.size >= 5 * jobs.length, { what: 'all to be told' })
    for (const key of (await t.server.call('KEYS', '*j/*')) as string[])
      told.note(await t.server.call('HGETALL', key))
    told.assertWithout(SECRET)
    await stop()
  })

  test('secrets - exposeError may send the omitted fields, and receives the failure that would be sent', async () => {
    await using t = await setup()
    const given: RemoteFailure[] = []
    const exposeError = (failure: RemoteFailure, error: unknown): RemoteFailure => {
      given.push(failure)
      return { ...failure, fields: { sql: (error as { sql: string }).sql } }
    }
    await using here = new Locker({ redis: t.redis, errorTtl: 60_000, exposeError })
    await using there = new Locker({ redis: t.redis })
    const thrown = Object.assign(new Error('no'), { sql: 'SELECT 1', errno: 1 })
    await here.run('key', () => Promise.reject(thrown)).catch(() => {})
    const error = await there.run('key', () => 'unused').catch((failure: RemoteError) => failure)
    assert.deepEqual((error as RemoteError).remote.fields, { sql: 'SELECT 1' })
    assert.deepEqual(given, [{ name: 'Error', message: 'no', fields: { errno: 1 } }])
  })
})

test('secrets - the warning about an error of a hook shows no credentials', async () => {
  using told = new Told()
  const warned = once(process, 'warning')
  await using queue = new RedisQueue('jobs', {
    trace: () => {
      throw new Error(`of https://u:${SECRET}@h`)
    },
  })
  queue.process('render', () => 1)
  await queue.submit('render')
  told.note(await warned)
  const [warning] = (await warned) as [Error & { detail?: string }]
  assert.match(`${warning.message} ${warning.detail}`, /of https:\/\/\*\*\*@h[\s\S]*of https:\/\/\*\*\*@h/)
})

test('secrets - the warning about an error of a handler shows no secrets', async () => {
  await using world = new HttpWorld()
  using told = new Told()
  const warned = once(process, 'warning')
  const handler = () => Promise.reject(foreignError(FOREIGN['axios'] ?? {}))
  const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
  const { status, text } = await server.ask('/')
  assert.equal(status, 500)
  told.note(text)
  const [warning] = (await warned) as [Error & { detail?: string }]
  assert.equal(warning.message, 'connect to postgres://***@h/db failed')
  assert.match(warning.detail ?? '', /at foreignError/)
  told.assertWithout(SECRET)
})
