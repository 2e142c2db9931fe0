import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis as Redis5 } from 'ioredis5'
import pDefer from 'p-defer'
import { ClosedError, Connection, type RedisSource } from '../../src/index.ts'
import { type ChannelListener, Channels } from '../../src/kernel/redis/channels.ts'
import type { RedisServerClient } from '../../src/kernel/redis/client.ts'
import { endTurn } from '../../src/kernel/time.ts'
import { Random } from '../simulation/random.ts'
import { RedisCluster } from '../support/cluster.ts'
import { onSubscription } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { type Setup, setup } from '../support/setup.ts'
import { took, until } from '../support/wait.ts'

/** A lost subscription is detected within this time, ms. */
const DETECTED = 2000

/** Keeps the events of a channel as text. */
class Recorder implements ChannelListener {
  readonly events: string[] = []

  message(message: Buffer): void {
    this.events.push(`message ${message}`)
  }

  up(): void {
    this.events.push('up')
  }

  down(): void {
    this.events.push('down')
  }

  refused(error: Error): void {
    this.events.push(`refused ${error.message}`)
  }

  get isUp(): boolean {
    return this.events.findLast((event) => event === 'up' || event === 'down') === 'up'
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

const subscribed = (connection: Connection) =>
  until(() => connection.subscribed, { what: 'the subscription to be established' })

const upAgain = (...recorders: Recorder[]) =>
  until(() => recorders.every(({ isUp }) => isUp), { what: 'all channels to be up' })

const receivers = async ({ server }: { server: RedisServer }, channel: string) =>
  Number(((await server.call('PUBSUB', 'NUMSUB', channel)) as unknown[])[1])

/** Publishes, and awaits that the message is the last event of each recorder. */
async function hears({ server }: { server: RedisServer }, channel: string, ...recorders: Recorder[]) {
  const message = `m${Math.random()}`
  await server.call('PUBLISH', channel, message)
  await until(() => recorders.every(({ events }) => events.at(-1) === `message ${message}`), {
    what: 'a message to arrive',
  })
  for (const { events } of recorders)
    assert.equal(events.filter((event) => event === `message ${message}`).length, 1)
}

const killSubscriptions = async ({ server }: Setup) =>
  assert.ok(Number(await server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')) >= 1)

/** A server, and a connection whose subscription is established. */
async function scene<Options extends Parameters<typeof setup>[0]>(options?: Options) {
  const t = (await setup(options)) as Options extends { proxy: true }
    ? Setup & { proxy: NonNullable<Setup['proxy']> }
    : Setup
  const connection = new Connection(t.redis)
  const scene = {
    t,
    connection,
    name: (name: string) => `${connection.channelPrefix}:${name}`,
    async [Symbol.asyncDispose]() {
      await connection.close()
      await t[Symbol.asyncDispose]()
    },
  }
  connection.open()
  await subscribed(connection)
  return scene
}

describe('channels', () => {
  const sources: Record<string, (t: Setup) => RedisSource | Promise<RedisSource>> = {
    options: (t) => t.redis,
    'options with RESP3': (t) => ({ ...t.redis, protocol: 3 }),
    'a client of ioredis 6 with keyPrefix and autopipelining': (t) =>
      t.client({ keyPrefix: 'theirs:', enableAutoPipelining: true }),
    'a client of ioredis 5.10': (t) => {
      // It ends with the server.
      const client = new Redis5({ ...t.redis, retryStrategy: () => null })
      client.on('error', () => {})
      return client
    },
  }
  for (const [what, source] of Object.entries(sources)) {
    test(`channels - messages arrive at all listeners, by ${what}, on two connections`, async () => {
      await using t = await setup()
      await using connection = new Connection(await source(t))
      const [a, b] = [`${connection.channelPrefix}:a`, `${connection.channelPrefix}:b`]
      const [one, two, other] = [new Recorder(), new Recorder(), new Recorder()]
      const stops = [one, two].map((listener) => connection.subscribe(a, listener))
      connection.subscribe(b, other)
      await upAgain(one, two, other)
      assert.ok(connection.subscribed)
      await hears(t, a, one, two)
      await hears(t, b, other)
      assert.deepEqual([one.events.length, two.events.length, other.events.length], [2, 2, 2])
      assert.equal(await connection.call({ send: (sender) => sender.send('publish', [a, 'x']) }, 1000), 1)
      await until(() => one.events.length === 3 && two.events.length === 3, { what: 'our own message' })
      assert.equal((await t.server.connectedClients()).length, 2)

      stops[0]?.()
      await hears(t, a, two)
      assert.equal(one.events.length, 3)
      stops[1]?.()
      await until(async () => (await receivers(t, a)) === 0, { what: 'the channel to be unsubscribed' })
      await hears(t, b, other)
    })
  }

  test('channels - those of one turn are one SUBSCRIBE, and the last listeners of one turn one UNSUBSCRIBE', async () => {
    await using s = await scene()
    await using monitor = await s.t.server.monitor()
    const names = ['a', 'b', 'c', 'a', 'b'].map(s.name)
    const recorders = names.map(() => new Recorder())
    const stops = names.map((name, at) => s.connection.subscribe(name, recorders[at] as Recorder))
    assert.deepEqual(recorders[0]?.events, [])
    await upAgain(...recorders)
    for (const stop of stops.slice(0, 3)) stop()
    await turn()
    for (const stop of stops) stop()
    await until(async () => (await receivers(s.t, s.name('b'))) === 0, { what: 'the end of all' })
    const lines = (await monitor.lines()).filter(({ command }) => command.endsWith('subscribe'))
    assert.deepEqual(
      lines.map(({ command, args }) => [command, ...args.toSorted()]),
      [
        ['subscribe', ...['a', 'b', 'c'].map(s.name)],
        ['unsubscribe', s.name('c')],
        ['unsubscribe', ...['a', 'b'].map(s.name)],
      ],
    )
    for (const { events } of recorders) assert.deepEqual(events, ['up'])
  })

  test('channels - a listener that joins hears `up` without a command, not within the call, and no message before it', async () => {
    await using s = await scene()
    const a = s.name('a')
    const [first, second, third] = [new Recorder(), new Recorder(), new Recorder()]
    s.connection.subscribe(a, {
      message: () => s.connection.subscribe(a, third),
      up: () => first.up(),
      down: () => {},
      refused: () => {},
    })
    await upAgain(first)
    const before = (await s.t.server.commandStats())['subscribe']
    s.connection.subscribe(a, second)
    assert.deepEqual(second.events, [])
    await turn()
    assert.deepEqual(second.events, ['up'])
    // Both messages are in one segment: the second is read before the end of the turn.
    await s.t.server.call('EVAL', `for n = 1, 2 do redis.call('PUBLISH', KEYS[1], n) end`, 1, a)
    await upAgain(third)
    assert.deepEqual(second.events, ['up', 'message 1', 'message 2'])
    assert.equal(third.events[0], 'up')
    assert.equal((await s.t.server.commandStats())['subscribe'], before)
  })

  test('channels - U1 events are not in the async context of a caller', async () => {
    await using s = await scene()
    const context = new AsyncLocalStorage<string>()
    const seen: unknown[] = []
    const note = () => seen.push(context.getStore())
    context.run('caller', () => {
      s.connection.subscribe(s.name('a'), { message: note, up: note, down: note, refused: note })
      // As before user code that may block the event loop.
      endTurn()
    })
    await until(() => seen.length === 1, { what: 'up' })
    await s.t.server.call('PUBLISH', s.name('a'), 'x')
    await until(() => seen.length === 2, { what: 'the message' })
    await killSubscriptions(s.t)
    await until(() => seen.length === 4, { what: 'down and up' })
    assert.deepEqual(seen, [undefined, undefined, undefined, undefined])
  })

  test('channels - after close there are no events, and no subscriptions', async () => {
    await using t = await setup()
    const connection = new Connection(t.redis)
    const [one, two] = [new Recorder(), new Recorder()]
    const name = `${connection.channelPrefix}:a`
    const stop = connection.subscribe(name, one)
    await upAgain(one)
    connection.subscribe(name, two)
    await connection.close()
    await until(async () => (await t.server.connectedClients()).length === 0, { what: 'all to be gone' })
    assert.deepEqual([one.events, two.events], [['up'], []])
    stop()
    assert.throws(() => connection.subscribe(name, one), ClosedError)
  })

  test('channels - those of the connection itself cannot be unsubscribed', async () => {
    await using s = await scene()
    for (const name of [s.connection.inboxChannel, s.connection.broadcastChannel])
      assert.throws(() => s.connection.subscribe(name, new Recorder()), /belongs to the connection/)
  })
})

describe('channels - in quick succession', () => {
  test('channels - toggled within one tick: nothing is sent', async () => {
    await using s = await scene()
    const [kept, brief, again] = [new Recorder(), new Recorder(), new Recorder()]
    const stop = s.connection.subscribe(s.name('kept'), kept)
    await upAgain(kept)
    await using monitor = await s.t.server.monitor()
    s.connection.subscribe(s.name('brief'), brief)()
    stop()
    stop()
    s.connection.subscribe(s.name('kept'), again)
    await upAgain(again)
    await hears(s.t, s.name('kept'), again)
    assert.deepEqual([kept.events, brief.events], [['up'], []])
    assert.equal((await monitor.lines()).filter(({ command }) => command.endsWith('subscribe')).length, 0)
  })

  test('channels - `up` is for the last SUBSCRIBE: the reply to an earlier one does not count', async () => {
    await using s = await scene({ proxy: true })
    const [one, two] = [new Recorder(), new Recorder()]
    // The first SUBSCRIBE is confirmed, and then the connection ends.
    const fault = s.t.proxy.swallowReply(/^UNSUBSCRIBE/)
    const stop = s.connection.subscribe(s.name('a'), one)
    await turn()
    stop()
    await turn()
    s.connection.subscribe(s.name('a'), two)
    await until(() => fault.hits === 1, { what: 'the UNSUBSCRIBE' })
    await upAgain(two)
    assert.deepEqual([one.events, two.events], [[], ['up']])
    await hears(s.t, s.name('a'), two)
  })

  const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000)

  for (const faults of [false, true]) {
    test(`channels - at random${faults ? ', with lost connections' : ''}: what is wanted decides (seed ${SEED})`, async () => {
      await using s = await scene({ proxy: true })
      const random = new Random(SEED)
      const names = Array.from({ length: 6 }, (_, at) => s.name(`c${at}`))
      const wanted = new Map(names.map((name) => [name, new Map<Recorder, () => void>()]))
      const ended: [Recorder, number][] = []
      for (let step = 0; step < 1500; step++) {
        const listeners = wanted.get(random.pick(names)) ?? assert.fail()
        const [last] = listeners
        if (last && random.chance(0.6)) {
          last[1]()
          listeners.delete(last[0])
          ended.push([last[0], last[0].events.length])
        } else {
          const recorder = new Recorder()
          const name = [...wanted].find(([, of]) => of === listeners)?.[0] ?? assert.fail()
          listeners.set(recorder, s.connection.subscribe(name, recorder))
        }
        if (random.chance(0.3)) await turn()
        if (random.chance(0.05)) await new Promise(setImmediate)
        if (random.chance(0.01)) await sleep(random.below(5))
        if (faults && random.chance(0.005)) s.t.proxy.cut(onSubscription)
      }
      for (const [name, listeners] of wanted) {
        await upAgain(...listeners.keys())
        await hears(s.t, name, ...listeners.keys())
        await until(async () => (await receivers(s.t, name)) === (listeners.size > 0 ? 1 : 0), {
          what: `the server to agree about ${name}`,
        })
        for (const { events } of listeners.keys()) {
          const changes = events.filter((event) => event === 'up' || event === 'down')
          assert.deepEqual(
            changes,
            changes.map((_, at) => (at % 2 === 0 ? 'up' : 'down')),
          )
          if (!faults) assert.equal(changes.length, 1)
        }
      }
      for (const [{ events }, length] of ended) assert.equal(events.length, length)
    })
  }
})

describe('channels - lost subscription', () => {
  test('channels - CLIENT KILL: down, and up again by one SUBSCRIBE with the inbox, after its own up', async () => {
    await using s = await scene()
    const [one, two] = [new Recorder(), new Recorder()]
    s.connection.subscribe(s.name('a'), one)
    s.connection.subscribe(s.name('b'), two)
    await upAgain(one, two)
    s.connection.listen({
      up: () => one.events.push('inbox up'),
      down: () => one.events.push('inbox down'),
      broadcast: () => {},
    })
    await using monitor = await s.t.server.monitor()
    await killSubscriptions(s.t)
    await until(() => one.events.filter((event) => event === 'up').length === 2, { what: 'a reconnection' })
    assert.deepEqual(one.events, ['up', 'down', 'inbox down', 'inbox up', 'up'])
    assert.deepEqual(two.events, ['up', 'down', 'up'])
    const { inboxChannel, broadcastChannel } = s.connection
    assert.deepEqual(
      (await monitor.lines()).filter(({ command }) => command === 'subscribe').map(({ args }) => args),
      [[inboxChannel, broadcastChannel, s.name('a'), s.name('b')]],
    )
    await hears(s.t, s.name('a'), one)
    assert.equal((await s.t.server.connectedClients()).length, 1)
  })

  test('channels - a black hole: down within 2 s, and up again', async () => {
    await using s = await scene({ proxy: true })
    const [before, within] = [new Recorder(), new Recorder()]
    s.connection.subscribe(s.name('a'), before)
    await upAgain(before)
    const [hole] = s.t.proxy.connections.filter(onSubscription)
    s.t.proxy.blackhole(true, (connection) => connection === hole)
    // Its SUBSCRIBE gets no reply.
    s.connection.subscribe(s.name('b'), within)
    const ms = await took(() => until(() => !before.isUp, { what: 'the loss to be detected' }))
    assert.ok(ms < DETECTED + EPSILON, `it took ${ms} ms`)
    await upAgain(before, within)
    assert.deepEqual([before.events, within.events], [['up', 'down', 'up'], ['up']])
    await hears(s.t, s.name('a'), before)
    await hears(s.t, s.name('b'), within)
  })

  test('channels - added and removed while the connection is lost', async () => {
    await using s = await scene({ proxy: true })
    const [kept, removed, added] = [new Recorder(), new Recorder(), new Recorder()]
    s.connection.subscribe(s.name('kept'), kept)
    const stop = s.connection.subscribe(s.name('removed'), removed)
    await upAgain(kept, removed)
    await s.t.proxy.refuse(true)
    s.t.proxy.cut()
    await until(() => !kept.isUp && !removed.isUp, { what: 'the loss to be detected' })
    stop()
    s.connection.subscribe(s.name('added'), added)
    await turn()
    await s.t.proxy.refuse(false)
    await upAgain(kept, added)
    assert.deepEqual(
      await Promise.all(['kept', 'removed', 'added'].map((n) => receivers(s.t, s.name(n)))),
      [1, 0, 1],
    )
    assert.deepEqual([removed.events, added.events], [['up', 'down'], ['up']])
  })

  test('channels - removed while the SUBSCRIBE with the inbox is under way', async () => {
    await using s = await scene({ proxy: true })
    const [kept, removed] = [new Recorder(), new Recorder()]
    s.connection.subscribe(s.name('kept'), kept)
    const stop = s.connection.subscribe(s.name('removed'), removed)
    await upAgain(kept, removed)
    // Only the reply is held back: the server is subscribed already.
    s.t.proxy.delay(300, { direction: 'down', only: onSubscription })
    await killSubscriptions(s.t)
    await until(() => !kept.isUp, { what: 'the loss to be detected' })
    await until(async () => (await receivers(s.t, s.name('removed'))) === 1, { what: 'the new SUBSCRIBE' })
    assert.equal(s.connection.subscribed, false)
    stop()
    await upAgain(kept)
    await until(async () => (await receivers(s.t, s.name('removed'))) === 0, { what: 'the UNSUBSCRIBE' })
    assert.deepEqual(removed.events, ['up', 'down'])
  })

  test('channels - 2,000 of them, also after a reconnection', async () => {
    await using s = await scene()
    const names = Array.from({ length: 2000 }, (_, at) => s.name(`c${at}`))
    const recorders = names.map(() => new Recorder())
    await using monitor = await s.t.server.monitor()
    for (const [at, name] of names.entries()) s.connection.subscribe(name, recorders[at] as Recorder)
    const publishAll = async (message: string) => {
      await upAgain(...recorders)
      await Promise.all(names.map((name) => s.t.server.call('PUBLISH', name, message)))
      await until(() => recorders.every(({ events }) => events.at(-1) === `message ${message}`), {
        what: 'all messages',
      })
    }
    await publishAll('1')
    await killSubscriptions(s.t)
    await until(() => recorders.every(({ events }) => events.includes('down')), { what: 'the loss' })
    await publishAll('2')
    for (const { events } of recorders)
      assert.deepEqual(events, ['up', 'message 1', 'down', 'up', 'message 2'])
    const sizes = (await monitor.lines()).filter(({ command }) => command === 'subscribe')
    assert.deepEqual(
      sizes.map(({ args }) => args.length),
      [1000, 1000, 1002, 1000],
    )
  })
})

describe('channels - permissions', () => {
  const ALLOWED = ['+@connection', '+info', '+subscribe', '+unsubscribe', '+publish']

  /** A connection of a user with these rules. */
  async function restricted(...rules: string[]) {
    const t = await setup()
    await t.server.call('ACL', 'SETUSER', 'user', 'on', '>right', ...rules)
    const connection = new Connection({ ...t.redis, username: 'user', password: 'right' })
    connection.open()
    const name = (name: string) => `${connection.channelPrefix}:${name}`
    return {
      t,
      connection,
      name,
      async [Symbol.asyncDispose]() {
        await connection.close()
        await t[Symbol.asyncDispose]()
      },
    }
  }

  test('channels - an ACL of one pattern, that of the connection, is enough', async () => {
    await using s = await restricted(...ALLOWED, '&soloflight:*')
    const recorder = new Recorder()
    const stop = s.connection.subscribe(s.name('any name:{b}/1'), recorder)
    await upAgain(recorder)
    await hears(s.t, s.name('any name:{b}/1'), recorder)
    stop()
    await until(async () => (await receivers(s.t, s.name('any name:{b}/1'))) === 0, {
      what: 'the UNSUBSCRIBE',
    })
    assert.doesNotMatch(String(await s.t.server.call('ACL', 'LOG')), /,(un)?subscribe,|,channel,/)
  })

  test('channels - NOPERM of one: the others and the inbox work; it is tried again at a reconnection', async () => {
    const own = ['&soloflight:1:inbox:*', '&soloflight:1:all', '&soloflight:1:ok*']
    await using s = await restricted(...ALLOWED, ...own)
    await subscribed(s.connection)
    let downs = 0
    s.connection.listen({ up: () => {}, down: () => downs++, broadcast: () => {} })
    const names = ['ok1', 'ok2', 'no', 'ok3', 'ok4'].map(s.name)
    const recorders = names.map(() => new Recorder())
    for (const [at, name] of names.entries()) s.connection.subscribe(name, recorders[at] as Recorder)
    const [refused] = recorders.splice(2, 1) as [Recorder]
    await upAgain(...recorders)
    await until(() => refused.events.length > 0, { what: 'the refusal' })
    assert.match(refused.events.join(), /^refused Redis refused: NOPERM/)
    const joined = new Recorder()
    s.connection.subscribe(s.name('no'), joined)
    await until(() => joined.events.length > 0, { what: 'the refusal' })
    assert.deepEqual([downs, s.connection.subscribed, s.connection.lastError], [0, true, undefined])

    // Refused again: it is not told twice.
    for (const round of [1, 2]) {
      await killSubscriptions(s.t)
      await until(() => downs === round && s.connection.subscribed, { what: 'a reconnection' })
      await upAgain(...recorders)
      await hears(s.t, s.name('ok4'), ...recorders.slice(-1))
    }
    assert.deepEqual([refused.events.length, joined.events.length], [1, 1])

    await s.t.server.call('ACL', 'SETUSER', 'user', '&soloflight:1:no')
    await killSubscriptions(s.t)
    await upAgain(refused, joined)
    await hears(s.t, s.name('no'), refused, joined)
    // Redis ends the connections that have a channel which they may not have any more.
    await s.t.server.call('ACL', 'SETUSER', 'user', 'resetchannels', ...own)
    await until(() => refused.events.length === 5, { what: 'the next refusal' })
    assert.deepEqual(
      refused.events.map((event) => event.split(' ')[0]),
      ['refused', 'up', 'message', 'down', 'refused'],
    )
    await upAgain(...recorders)
  })

  test('channels - a refused channel that is wanted anew is sent anew', async () => {
    await using s = await restricted(...ALLOWED, '&soloflight:1:inbox:*', '&soloflight:1:all')
    const [one, two] = [new Recorder(), new Recorder()]
    const stop = s.connection.subscribe(s.name('a'), one)
    await until(() => one.events.length === 1, { what: 'the refusal' })
    stop()
    await turn()
    await s.t.server.call('ACL', 'SETUSER', 'user', '&soloflight:1:a')
    s.connection.subscribe(s.name('a'), two)
    await upAgain(two)
    assert.deepEqual(two.events, ['up'])
  })

  test('channels - without permission for UNSUBSCRIBE no more messages are heard, and a new listener is', async () => {
    await using s = await restricted(...ALLOWED, '&soloflight:*', '-unsubscribe')
    const [one, two, other] = [new Recorder(), new Recorder(), new Recorder()]
    const stop = s.connection.subscribe(s.name('a'), one)
    s.connection.subscribe(s.name('b'), other)
    await upAgain(one, other)
    stop()
    await turn()
    await s.t.server.call('PUBLISH', s.name('a'), 'x')
    await hears(s.t, s.name('b'), other)
    assert.deepEqual(one.events, ['up'])
    s.connection.subscribe(s.name('a'), two)
    await upAgain(two)
    await hears(s.t, s.name('a'), two)
    assert.deepEqual(other.events.slice(0, 1), ['up'])
  })

  test('channels - a server that is busy refuses nothing: it is tried again', async () => {
    await using s = await scene({ args: ['--busy-reply-threshold', '10'] })
    const recorder = new Recorder()
    const client = await s.t.client()
    const script = client.eval('while true do end', 0).catch(() => {})
    await until(() => s.t.server.call('PING').then(...[() => false, () => true]), { what: 'BUSY' })
    s.connection.subscribe(s.name('a'), recorder)
    await until(() => /BUSY/.test(String(s.connection.lastError)), { what: 'SUBSCRIBE to fail' })
    await s.t.server.call('SCRIPT', 'KILL')
    await script
    await upAgain(recorder)
    assert.deepEqual(recorder.events, ['up'])
    assert.ok(s.connection.subscribed)
  })
})

describe('channels - on a client of their own', () => {
  /** A client that replies when the test says so. */
  class FakeClient {
    readonly commands: { name: string; channels: string[]; reply: pDefer.DeferredPromise<unknown> }[] = []

    #send(name: string, channels: string[]): Promise<unknown> {
      const reply = pDefer<unknown>()
      this.commands.push({ name, channels, reply })
      return reply.promise
    }

    subscribe(...channels: string[]): Promise<unknown> {
      return this.#send('subscribe', channels)
    }

    unsubscribe(...channels: string[]): Promise<unknown> {
      return this.#send('unsubscribe', channels)
    }

    reply(index: number): void {
      this.commands[index]?.reply.resolve(1)
    }
  }

  async function connected(channels: Channels) {
    const client = new FakeClient()
    const server = client as unknown as RedisServerClient
    const ready = channels.connect(server, ['own'])
    return { client, server, ready }
  }

  test('channels - a late reply on an earlier connection does not count', async () => {
    const channels = new Channels(() => assert.fail())
    const recorder = new Recorder()
    const old = await connected(channels)
    old.client.reply(0)
    await old.ready
    channels.onUp(old.server)
    channels.subscribe('a', recorder)
    await turn()
    assert.deepEqual(old.client.commands[1]?.channels, ['a'])
    channels.onDown()
    const next = await connected(channels)
    old.client.reply(1)
    await sleep(0)
    assert.deepEqual(recorder.events, [])
    assert.deepEqual(next.client.commands[0]?.channels, ['own', 'a'])
    next.client.reply(0)
    await next.ready
    assert.deepEqual(recorder.events, [])
    channels.onUp(next.server)
    assert.deepEqual(recorder.events, ['up'])
  })

  test('channels - removed, lost and added within one tick', async () => {
    const channels = new Channels(() => assert.fail())
    const [one, two] = [new Recorder(), new Recorder()]
    const stop = channels.subscribe('a', one)
    await turn()
    stop()
    channels.onDown()
    channels.subscribe('a', two)
    await turn()
    const { client, server, ready } = await connected(channels)
    assert.deepEqual(client.commands[0]?.channels, ['own', 'a'])
    client.reply(0)
    await ready
    channels.onUp(server)
    channels.deliver('a', Buffer.from('x'))
    assert.deepEqual([one.events, two.events], [[], ['up', 'message x']])
  })
})

test('channels - of a cluster: what is published on any node arrives', async () => {
  await using cluster = await RedisCluster.start()
  await using connection = new Connection(await cluster.client())
  const recorder = new Recorder()
  const name = `${connection.channelPrefix}:a`
  connection.subscribe(name, recorder)
  await upAgain(recorder)
  for (const server of cluster.nodes) await hears({ server }, name, recorder)
  assert.equal(recorder.events.length, 1 + cluster.nodes.length)
})
