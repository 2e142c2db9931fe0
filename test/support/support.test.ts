import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { findRedisServer, majorVersion } from './binary.ts'
import { RedisCluster } from './cluster.ts'
import type { EchoHandlers } from './echo-child.ts'
import { Child } from './process.ts'
import type { ProxyConnection } from './proxy-connection.ts'
import { RedisServer } from './redis-server.ts'
import { SentinelSet } from './sentinel.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

const run = promisify(execFile)
const echoChild = new URL('./echo-child.ts', import.meta.url)

/** A client that fails at once when its connection is lost, instead of trying again. */
const plain = {
  retryStrategy: null,
  maxRetriesPerRequest: 0,
  enableReadyCheck: false,
  disableClientInfo: true,
} as const

/** Whether the process runs: one that is dead and not buried yet, as its parent is dead too, does not. */
async function isAlive(pid: number): Promise<boolean> {
  const { stdout } = await run('ps', ['-o', 'stat=', '-p', String(pid)]).catch(() => ({ stdout: '' }))
  return stdout !== '' && !stdout.startsWith('Z')
}

/** Whether the command is still unanswered after the server has answered others. */
async function isUnanswered(command: Promise<unknown>, t: Setup): Promise<boolean> {
  const answered = command.then(
    () => true,
    () => true,
  )
  await t.server.call('PING')
  await t.server.call('PING')
  return !(await Promise.race([answered, Promise.resolve(false)]))
}

describe('wait', () => {
  test('wait - returns the fact once it is true', async () => {
    let looks = 0
    const fact = () => {
      looks += 1
      if (looks === 1) throw new Error('too early')
      return looks === 3 && 'done'
    }
    assert.equal(await until(fact, { what: 'the third look' }), 'done')
  })

  test('wait - names what was awaited, and why it was not true', async () => {
    const fact = () => {
      throw new Error('never')
    }
    await assert.rejects(until(fact, { what: 'a miracle', timeout: 20 }), (error: Error) => {
      assert.equal(error.message, 'waited 20 ms for a miracle')
      assert.match(String(error.cause), /never/)
      return true
    })
  })

  test('wait - ends at the timeout also when the fact never settles', async () => {
    await assert.rejects(
      until(() => new Promise(() => {}), { what: 'silence', timeout: 20 }),
      /silence/,
    )
  })
})

describe('binary', () => {
  const ensure = fileURLToPath(new URL('./ensure-redis.ts', import.meta.url))
  const runEnsure = (env: Record<string, string>) =>
    run(process.execPath, ['--import', import.meta.resolve('tsx'), ensure], { env })

  test('binary - is found, with its version', async () => {
    assert.ok((await majorVersion(await findRedisServer())) >= 6)
  })

  test('binary - a wrong REDIS_SERVER and an absent server say what to do', async () => {
    const failure = (env: Record<string, string>) =>
      runEnsure(env).then(
        () => assert.fail('it found a server'),
        ({ stderr }) => String(stderr),
      )
    const [wrong, absent] = await Promise.all([
      failure({ REDIS_SERVER: '/nowhere/redis-server' }),
      failure({ PATH: '/nowhere', SOLOFLIGHT_NO_INSTALL: '1' }),
    ])
    assert.match(wrong, /^REDIS_SERVER names \/nowhere\/redis-server, .*\n$/)
    assert.match(absent, /^No Redis server: install .*\n$/)
  })

  const isDebianRoot = existsSync('/etc/debian_version') && process.getuid?.() === 0
  test('binary - is installed once for all who ask at the same time', { skip: !isDebianRoot }, async () => {
    const bin = await mkdtemp(join(tmpdir(), 'sf-'))
    try {
      for (const tool of ['sh', 'flock', 'sleep', 'chmod']) await symlink(await which(tool), join(bin, tool))
      // It stands for apt-get: the first install fails as it does without package lists.
      const apt = `#!/bin/sh
echo "$1 $RUNLEVEL" >> ${bin}/log
if [ "$1" = update ]; then : > ${bin}/lists; exit; fi
[ -e ${bin}/lists ] || exit 100
sleep 0.1 && echo '#!/bin/sh' > ${bin}/redis-server && chmod +x ${bin}/redis-server`
      await writeFile(join(bin, 'apt-get'), apt)
      await chmod(join(bin, 'apt-get'), 0o755)
      const outputs = await Promise.all([1, 2].map(() => runEnsure({ PATH: bin, TMPDIR: bin })))
      assert.match(outputs.map(({ stdout }) => stdout).join(''), /^soloflight tests: installing.*\n$/)
      assert.equal(await readFile(join(bin, 'log'), 'utf8'), 'install 1\nupdate 1\ninstall 1\n')
    } finally {
      await rm(bin, { recursive: true })
    }
  })
})

async function which(tool: string): Promise<string> {
  const path = (process.env['PATH'] ?? '').split(delimiter).find((folder) => existsSync(join(folder, tool)))
  return join(path ?? '', tool)
}

describe('server', () => {
  test('server - listens on a socket only, or on a port too', async () => {
    await using onSocket = await RedisServer.start()
    await using onPort = await RedisServer.start({ port: 'free', args: ['--maxmemory', '64mb'] })
    assert.deepEqual(onSocket.options, { path: onSocket.path })
    assert.deepEqual(onPort.options, { host: '127.0.0.1', port: onPort.port })
    for (const server of [onSocket, onPort]) assert.equal(await (await server.client()).ping(), 'PONG')
    assert.deepEqual(await onPort.call('CONFIG', 'GET', 'maxmemory'), ['maxmemory', String(64 * 2 ** 20)])
  })

  test('server - allows DEBUG', async () => {
    await using server = await RedisServer.start()
    assert.equal(await server.call('DEBUG', 'SLEEP', '0'), 'OK')
  })

  test('server - a start that fails says what the server said', async () => {
    await assert.rejects(RedisServer.start({ args: ['--no-such-option', 'x'] }), /exited at its start/)
  })

  test('server - leaves neither a process nor a folder', async () => {
    const server = await RedisServer.start()
    const { pid, path } = server
    await server.freeze()
    await server[Symbol.asyncDispose]()
    assert.ok(!(await isAlive(pid)))
    assert.ok(!existsSync(path))
  })

  test('server - frozen it is silent, thawed it answers', async () => {
    await using t = await setup()
    const client = await t.client()
    await t.server.freeze()
    const ping = client.ping()
    assert.equal(
      await Promise.race([ping, new Promise((resolve) => setTimeout(resolve, 30, 'silent'))]),
      'silent',
    )
    t.server.thaw()
    assert.equal(await ping, 'PONG')
  })

  test('server - a restart forgets, unless it persists', async () => {
    await using forgetful = await RedisServer.start()
    await using mindful = await RedisServer.start({ port: 'free', persistence: true })
    const { pid, port } = mindful
    for (const server of [forgetful, mindful]) {
      await server.call('SET', 'key', 'value')
      await server.restart()
    }
    assert.equal(await forgetful.call('GET', 'key'), null)
    assert.equal(await mindful.call('GET', 'key'), 'value')
    assert.notEqual(mindful.pid, pid)
    assert.equal(mindful.port, port)
    await mindful.stop()
    await mindful.restart({ persistence: false })
    assert.equal(await mindful.call('GET', 'key'), null)
  })

  test('server - its clients reconnect after a restart', async () => {
    await using server = await RedisServer.start()
    const client = await server.client()
    await server.restart()
    assert.equal(await client.ping(), 'PONG')
  })

  test('server - counts commands, and tells scripts from clients', async () => {
    await using server = await RedisServer.start()
    const client = await server.client(plain)
    await server.resetStats()
    await using monitor = await server.monitor()
    await client.eval('redis.call("SET", KEYS[1], 1) return redis.call("GET", KEYS[1])', 1, 'key')
    await client.get('key')
    const { eval: evals, get, set } = await server.commandStats()
    assert.deepEqual({ evals, get, set }, { evals: 1, get: 2, set: 1 })
    const lines = (await monitor.lines()).filter(({ command }) => command !== 'info')
    assert.deepEqual(
      lines.map(({ command, fromScript }) => `${command} ${fromScript}`),
      ['eval false', 'set true', 'get true', 'get false'],
    )
    assert.deepEqual(lines.at(-1)?.args, ['key'])
  })

  test('server - counts only what clients sent', async () => {
    await using server = await RedisServer.start()
    const client = await server.client(plain)
    await using monitor = await server.monitor()
    await client.eval('return redis.call("PING")', 0)
    assert.equal(await monitor.clientCommands(), 1)
  })

  test('server - lists the connected clients without its own', async () => {
    await using server = await RedisServer.start()
    await using _monitor = await server.monitor()
    await server.client({ ...plain, connectionName: 'mine' })
    const clients = await server.connectedClients()
    assert.deepEqual(
      clients.map(({ name }) => name),
      ['mine'],
    )
  })

  test('server - dies with a test process that is killed', async () => {
    await using child = await Child.fork<EchoHandlers>(echoChild)
    const { pid, path } = await child.call('startServer')
    assert.ok(await isAlive(pid))
    await child.kill('SIGKILL')
    await until(async () => !(await isAlive(pid)), { what: 'the server of a killed process to die' })
    await until(() => !existsSync(dirname(path)), { what: 'its folder to go' })
  })
})

describe('setup', () => {
  test('setup - gives options and a url that reach the server, through the proxy if asked', async () => {
    for (const proxy of [false, true]) {
      await using t = await setup({ proxy })
      assert.equal(await (await t.client()).ping(), 'PONG')
      const byUrl = new Redis(t.url, { lazyConnect: true })
      await byUrl.connect()
      byUrl.disconnect()
      assert.equal(t.proxy?.accepted, proxy ? 2 : undefined)
    }
  })
})

describe('proxy', () => {
  test('proxy - hands everything through, and counts it', async () => {
    await using t = await setup({ proxy: true })
    const clients = await Promise.all(Array.from({ length: 20 }, () => t.client(plain)))
    const value = 'x'.repeat(200_000)
    await Promise.all(clients.map((client, index) => client.set(`key:${index}`, value)))
    const values = await Promise.all(clients.map((client, index) => client.get(`key:${index}`)))
    assert.ok(values.every((each) => each === value))
    assert.equal(t.proxy.accepted, 20)
    assert.equal(t.proxy.connections.length, 20)
    assert.ok(t.proxy.bytes.up > 20 * value.length && t.proxy.bytes.down > 20 * value.length)
    const [first] = t.proxy.connections
    assert.deepEqual([first?.index, first?.commands.slice(-2)], [0, ['SET', 'GET']])
  })

  test('proxy - delays one direction or each', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    const took = async () => {
      const start = performance.now()
      await client.ping()
      return performance.now() - start
    }
    t.proxy.delay(30)
    assert.ok((await took()) >= 60)
    t.proxy.delay(0, { direction: 'up' })
    assert.ok((await took()) >= 30)
    t.proxy.delay(30, { only: () => false })
    const replies = await Promise.all([client.set('key', 1), client.incr('key'), client.incr('key')])
    assert.deepEqual(replies, ['OK', 2, 3])
  })

  test('proxy - cuts the connections that are chosen', async () => {
    await using t = await setup({ proxy: true })
    const [client, subscriber] = await Promise.all([t.client(plain), t.client(plain)])
    await subscriber.subscribe('channel')
    const ended = new Promise((resolve) => subscriber.once('end', resolve))
    assert.equal(
      t.proxy.cut(({ sawSubscribe }) => sawSubscribe),
      1,
    )
    await ended
    assert.equal(await client.ping(), 'PONG')
  })

  test('proxy - cuts after so many bytes of a command, which never takes effect', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    const fault = t.proxy.cutAfter(10, 'up')
    await assert.rejects(client.set('key', 'value'))
    await fault.struck
    assert.equal(await t.server.call('EXISTS', 'key'), 0)
    assert.equal(fault.hits, 1)
  })

  test('proxy - cuts after so many bytes of a reply, whose command took effect', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    const fault = t.proxy.cutAfter(2, 'down')
    await assert.rejects(client.set('key', 'value'))
    await fault.struck
    assert.equal(await t.server.call('GET', 'key'), 'value')
  })

  test('proxy - a blackhole is silent for old and new connections, and ends those that lost something', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    const idle = await t.client(plain)
    t.proxy.blackhole(true)
    const lost = client.set('key', 'value')
    const socket = connect(t.proxy.options)
    await new Promise((resolve) => socket.once('connect', resolve))
    socket.write('PING\r\n')
    await until(() => t.proxy.connections[2]?.commands.length, { what: 'the proxy to see the PING' })
    assert.ok(await isUnanswered(lost, t))
    assert.equal(socket.bytesRead, 0)
    t.proxy.blackhole(false)
    await assert.rejects(lost)
    assert.equal(await t.server.call('EXISTS', 'key'), 0)
    assert.equal(await idle.ping(), 'PONG')
    socket.destroy()
  })

  test('proxy - a client that leaves in a blackhole stays connected at the server', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    t.proxy.blackhole(true)
    client.disconnect()
    await until(() => client.status === 'end', { what: 'the client to end' })
    assert.equal((await t.server.connectedClients()).length, 1)
    t.proxy.blackhole(false)
    await until(async () => (await t.server.connectedClients()).length === 0, {
      what: 'the server to learn of it',
    })
  })

  test('proxy - a stall delivers late', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    t.proxy.stall(true)
    const late = client.set('key', 'value')
    await until(() => t.proxy.connections[0]?.commands.includes('SET'), { what: 'the proxy to see the SET' })
    assert.ok(await isUnanswered(late, t))
    assert.equal(await t.server.call('EXISTS', 'key'), 0)
    t.proxy.stall(false)
    assert.equal(await late, 'OK')
  })

  test('proxy - refuses new connections and keeps the old', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    await t.proxy.refuse(true)
    await assert.rejects(t.client(plain))
    assert.equal(await client.ping(), 'PONG')
    await t.proxy.refuse(false)
    assert.equal(await (await t.client(plain)).ping(), 'PONG')
  })

  test('proxy - swallows the reply to one command of a pipeline, which took effect', async () => {
    await using t = await setup({ proxy: true })
    const client = await t.client(plain)
    const fault = t.proxy.swallowReply(/^SET b /)
    const results = await Promise.allSettled([client.set('a', 1), client.set('b', 1), client.set('c', 1)])
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'rejected'],
    )
    await fault.struck
    assert.equal(await t.server.call('GET', 'b'), '1')
    assert.equal(await (await t.client(plain)).set('b', 2), 'OK')
  })

  test('proxy - swallows as often as asked, then no more', async () => {
    await using t = await setup({ proxy: true })
    const fault = t.proxy.swallowReply((command) => command.includes('counter'), { times: 2 })
    const client = await t.client({ maxRetriesPerRequest: 5, retryStrategy: () => 1 })
    // Each lost reply makes ioredis send the command again: that is what the fault is for.
    assert.equal(await client.incr('counter'), 3)
    assert.equal(fault.hits, 2)
  })

  test('proxy - swallows a reply behind its first bytes', async () => {
    await using t = await setup({ proxy: true })
    const socket = connect(t.proxy.options)
    t.proxy.swallowReplyAfter(/^ECHO/, 6)
    let heard = ''
    socket.on('data', (chunk) => {
      heard += chunk
    })
    socket.write('ECHO hello\r\n')
    await new Promise((resolve) => socket.once('close', resolve))
    assert.equal(heard, '$5\r\nhe')
  })

  for (const protocol of [2, 3] as const) {
    test(`proxy - tells replies from messages on a RESP${protocol} subscriber`, async () => {
      await using t = await setup({ proxy: true })
      const subscriber = await t.client({ ...plain, protocol })
      const only = ({ sawSubscribe }: ProxyConnection) => sawSubscribe
      await subscriber.subscribe('a', 'b')
      const fault = t.proxy.swallowReply(/^UNSUBSCRIBE/, { only })
      const heard = new Promise((resolve) =>
        subscriber.once('message', (_channel, message) => resolve(message)),
      )
      await t.server.call('PUBLISH', 'a', 'hello')
      assert.equal(await heard, 'hello')
      assert.equal(fault.hits, 0)
      await assert.rejects(subscriber.unsubscribe('a'))
      assert.equal((await fault.struck).index, 0)
    })
  }

  test('proxy - is a plain wire again after clear', async () => {
    await using t = await setup({ proxy: true })
    t.proxy.delay(10_000)
    t.proxy.blackhole(true)
    t.proxy.swallowReply(/^PING/)
    t.proxy.cutAfter(1, 'up')
    await t.proxy.refuse(true)
    await t.proxy.clear()
    assert.equal(await (await t.client(plain)).ping(), 'PONG')
  })
})

describe('process', () => {
  test('process - answers calls, and its errors arrive with name, message and code', async () => {
    await using child = await Child.fork<EchoHandlers>(echoChild)
    assert.deepEqual(Buffer.from(await child.call('echo', Buffer.from('hi'))), Buffer.from('hi'))
    await assert.rejects(child.call('refuse', 'no'), { name: 'RefusedError', message: 'no', code: 'REFUSED' })
  })

  test('process - hands out events in order, also those of before', async () => {
    await using child = await Child.fork<EchoHandlers>(echoChild)
    const heard: unknown[] = []
    child.on('counted', (value) => heard.push(value))
    await child.call('count', 3)
    assert.equal(await child.next('counted', (value) => value === 2), 2)
    assert.equal(await child.next('counted'), 1)
    assert.equal(await child.next('counted'), 3)
    assert.deepEqual(heard, [1, 2, 3])
  })

  test('process - a killed child rejects its calls', async () => {
    await using child = await Child.fork<EchoHandlers>(echoChild)
    const call = child.call('hang')
    await child.kill()
    assert.deepEqual(await child.exited, { code: null, signal: 'SIGKILL' })
    await assert.rejects(call, /ended \(SIGKILL\) before it answered "hang"/)
    await assert.rejects(child.call('hang'), /before "hang" was called/)
    await assert.rejects(child.next('counted'), /before it emitted "counted"/)
  })

  test('process - frozen it is silent, thawed it answers', async () => {
    await using child = await Child.fork<EchoHandlers>(echoChild)
    await child.freeze()
    const call = child.call('echo', Buffer.from('hi'))
    assert.equal(
      await Promise.race([call, new Promise((resolve) => setTimeout(resolve, 30, 'silent'))]),
      'silent',
    )
    child.thaw()
    assert.equal((await call).length, 2)
  })

  test('process - exits when its parent disconnects', async () => {
    await using child = await Child.fork<EchoHandlers>(echoChild)
    // The reply finds no way back; the call ends with the child.
    await assert.rejects(child.call('close'), /ended \(code 0\)/)
    assert.deepEqual(await child.exited, { code: 0, signal: null })
  })

  test('process - a file that fails at its start says what it wrote', async () => {
    await assert.rejects(
      Child.fork(new URL('./broken-child.ts', import.meta.url)),
      /before it served[\s\S]*It does not start\n[\s\S]*broken-child\.ts:5/,
    )
  })
})

describe('cluster', () => {
  test('cluster - serves its slots, and a slot migrates between commands', async () => {
    await using cluster = await RedisCluster.start()
    const client = await cluster.client()
    for (const key of ['{tag}:1', '{tag}:2', 'other']) await client.set(key, key)
    const slot = await cluster.slotOf('{tag}:1')
    const from = await cluster.ownerOf(slot)
    const to = cluster.nodes.find((node) => node !== from)
    assert.ok(to)
    await cluster.migrateSlot(slot, to, {
      onMigrating: async () => {
        assert.equal(await client.get('{tag}:1'), '{tag}:1')
        await assert.rejects(from.call('GET', '{tag}:absent'), /^ReplyError: ASK/)
        await client.set('{tag}:3', '{tag}:3')
      },
    })
    assert.equal(await cluster.ownerOf(slot), to)
    await assert.rejects(from.call('GET', '{tag}:1'), /^ReplyError: MOVED/)
    assert.deepEqual(await client.mget('{tag}:1', '{tag}:2', '{tag}:3'), ['{tag}:1', '{tag}:2', '{tag}:3'])
  })

  test('cluster - has replicas in step with their masters', async () => {
    await using cluster = await RedisCluster.start({ masters: 1, replicas: 1 })
    const [master, replica] = cluster.nodes
    await master?.call('SET', 'key', 'value')
    assert.equal(await master?.call('WAIT', 1, 5000), 1)
    assert.match(String(await replica?.call('INFO', 'replication')), /role:slave/)
  })
})

describe('sentinel', () => {
  test('sentinel - exchanges the roles, and clients follow', async () => {
    await using set = await SentinelSet.start()
    const client = new Redis(set.options)
    client.on('error', () => {})
    try {
      const first = await set.master()
      await client.set('key', 'value')
      await first.call('WAIT', 1, 5000)
      const second = await set.failover()
      assert.notEqual(second, first)
      assert.equal(await set.master(), second)
      await until(() => client.set('key', 'other'), { what: 'the client to follow' })
    } finally {
      client.disconnect()
    }
  })

  test('sentinel - announces another master when the master dies', async () => {
    await using set = await SentinelSet.start()
    const dead = await set.killMaster()
    const next = await set.masterAfter(dead)
    assert.notEqual(next, dead)
    assert.equal(await next.call('SET', 'key', 'value'), 'OK')
  })

  test('sentinel - announces another master when the master freezes, which then comes back', async () => {
    await using set = await SentinelSet.start()
    const frozen = await set.freezeMaster()
    await set.masterAfter(frozen)
    frozen.thaw()
    await until(async () => String(await frozen.call('INFO', 'replication')).includes('role:slave'), {
      what: 'the old master to follow the new one',
      timeout: 15_000,
    })
  })
})
