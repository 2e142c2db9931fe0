// Topics of a bus while connections are cut, and while the server is restarted, emptied, frozen and lied about.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bus, type BusOptions, type Pubsub, type PubsubOptions } from '../../src/bus/index.ts'
import { UnavailableError } from '../../src/errors.ts'
import { numbers, recorded } from '../support/bus-client.ts'
import { type Setup, type SetupOptions, setup } from '../support/setup.ts'
import { timed, until } from '../support/wait.ts'

interface Scene extends AsyncDisposable {
  readonly t: Setup
  readonly publisher: Pubsub<number>
  /** What each subscriber has received. */
  readonly logs: (number | string)[][]
  readonly subscribers: Pubsub<number>[]
  /** Ends all connections that subscribe. */
  cut(): Promise<void>
}

/** A publisher and two subscribers of a topic, each with a bus of its own. */
async function scene(
  options: PubsubOptions & { server?: SetupOptions; bus?: BusOptions } = {},
): Promise<Scene> {
  const { server = {}, bus = {}, ...topic } = options
  const t = await setup(server)
  const buses = Array.from({ length: 3 }, () => new Bus({ redis: t.redis, ...bus }))
  const [publisher = assert.fail(), ...subscribers] = buses.map((each) => each.pubsub<number>('t', topic))
  const logs = subscribers.map(recorded)
  await Promise.all(subscribers.map((each) => each.subscribe()))
  return {
    t,
    publisher,
    logs,
    subscribers,
    cut: async () => void (await t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')),
    async [Symbol.asyncDispose]() {
      await Promise.all(buses.map((each) => each.disconnect({ grace: 1000 })))
      await t[Symbol.asyncDispose]()
    },
  }
}

const sum = (log: readonly (number | string)[]): number =>
  log.reduce<number>((total, entry) => total + (typeof entry === 'number' ? 1 : Number(entry.slice(4))), 0)

const messagesOf = (log: readonly (number | string)[]): number[] =>
  log.filter((entry) => typeof entry === 'number')

/** Publishes up to `count`, and cuts the subscribers again and again meanwhile. */
async function publishWhileCut({ publisher, cut }: Scene, count: number): Promise<void> {
  for (let n = 1; n <= count; n++) {
    if (n % 100 === 50) await Promise.all([cut(), publisher.publish(n)])
    else await publisher.publish(n)
  }
}

test('B5 with `keep`: subscribers that are cut off again and again receive all messages, in order, once', async () => {
  await using s = await scene({ keep: 1000 })
  await publishWhileCut(s, 1000)
  for (const log of s.logs) {
    await until(() => log.length >= 1000, { what: 'all messages', timeout: 20_000 })
    assert.deepEqual(log, numbers(1, 1000))
  }
})

test('B5 without `keep`: messages and the numbers of the gaps are all messages, in order', async () => {
  await using s = await scene()
  await publishWhileCut(s, 1000)
  for (const log of s.logs) {
    await until(() => sum(log) >= 1000, { what: 'all messages and gaps', timeout: 20_000 })
    assert.equal(sum(log), 1000)
    let next = 1
    for (const entry of log) {
      if (typeof entry === 'number') assert.equal(entry, next++)
      else next += Number(entry.slice(4))
    }
  }
  assert.ok(s.logs.some((log) => log.length > messagesOf(log).length, 'no subscriber has missed anything'))
})

test('B5 Redis was down and has lost everything: a gap without number, and messages arrive again, once each', async () => {
  await using s = await scene()
  await s.publisher.publish(1)
  for (const log of s.logs) await until(() => log.length === 1, { what: 'the message' })
  await s.t.server.restart()
  for (const log of s.logs)
    await until(() => log.includes('gap undefined'), { what: 'the gap', timeout: 20_000 })
  await s.publisher.publish(2)
  await s.publisher.publish(3)
  for (const log of s.logs) {
    await until(() => log.includes(3), { what: 'the message after it' })
    assert.deepEqual(log, [1, 'gap undefined', 2, 3])
  }
})

test('B5 Redis was down and has lost nothing: what is kept arrives, and no gap is told', async () => {
  await using s = await scene({ keep: 10, server: { persistence: true } })
  await s.publisher.publish(1)
  for (const log of s.logs) await until(() => log.length === 1, { what: 'the message' })
  await s.t.server.restart()
  await until(() => s.publisher.publish(2).then(() => true), { what: 'a publish', timeout: 20_000 })
  await s.publisher.publish(3)
  for (const log of s.logs) {
    await until(() => log.includes(3), { what: 'all messages', timeout: 20_000 })
    assert.deepEqual(
      messagesOf(log).filter((n) => n !== 2),
      [1, 3],
    )
    assert.equal(messagesOf(log).length, log.length)
  }
})

test('B5 FLUSHALL: the next message shows it, a gap without number is told, and it arrives', async () => {
  await using s = await scene({ keep: 10 })
  await s.publisher.publish(1)
  for (const log of s.logs) await until(() => log.length === 1, { what: 'the message' })
  await s.t.server.call('FLUSHALL')
  await s.publisher.publish(2)
  await s.publisher.publish(3)
  for (const log of s.logs) {
    await until(() => log.includes(3), { what: 'the messages after it' })
    assert.deepEqual(log, [1, 'gap undefined', 2, 3])
  }
})

test('a frozen server: publish and subscribe reject in time; afterwards all goes on by itself', async () => {
  await using s = await scene({ keep: 10, bus: { unavailableAfter: 500 } })
  await s.publisher.publish(1)
  await s.t.server.freeze()
  const { error, ms } = await timed(() => s.publisher.publish(2))
  assert.ok(error instanceof UnavailableError)
  assert.ok(ms < 1000, `${ms} ms`)
  const [subscriber = assert.fail()] = s.subscribers
  await subscriber.unsubscribe()
  const again = await timed(() => subscriber.subscribe())
  assert.ok(again.error instanceof UnavailableError)
  assert.ok(again.ms < 1500, `${again.ms} ms`)
  s.t.server.thaw()
  await until(() => s.publisher.publish(3).then(() => true), { what: 'a publish' })
  const [, log = []] = s.logs
  await until(() => log.includes(3), { what: 'the message' })
  assert.equal(log.includes(2) ? log.length : log.length + 1, 3, log.join())
  await subscriber.subscribe()
})

test('B5 forged messages on the channel neither stop nor flood a subscriber', async () => {
  await using s = await scene()
  const [channel = ''] = ((await s.t.server.call('PUBSUB', 'CHANNELS', '*:p:*')) as string[]).map(String)
  assert.match(channel, /t$/)
  await s.t.server.resetStats()
  const life = 'x'.repeat(22)
  const forger = await s.t.client()
  for (let n = 1; n <= 200; n++) {
    for (const text of [
      '',
      'garbage',
      `1${life} 1\n2:j1`,
      `1${life} ${2 ** 52}\n2:j1`,
      `1${life} 1\n9999999:j1`,
    ])
      await forger.publish(channel, text)
    await s.publisher.publish(n)
  }
  for (const log of s.logs) {
    await until(() => log.length >= 200, { what: 'all messages' })
    assert.deepEqual(log, numbers(1, 200))
  }
  const { evalsha = 0 } = await s.t.server.commandStats()
  // Two subscribers ask at most four times a second.
  assert.ok(evalsha < 200 + 100, `${evalsha} scripts`)
})
