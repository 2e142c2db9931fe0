import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Redis } from 'ioredis'
import { Redis as Redis5 } from 'ioredis5'
import { Locker, type LockerOptions, RedisQueue, UnavailableError } from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { onCommands } from '../support/locker-scene.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** Creates the client of a locker. */
const CLIENTS: Record<string, (t: Setup, made: Set<{ disconnect(): void }>) => LockerOptions['redis']> = {
  'our own': (t) => t.redis,
  borrowed: (t, made) => keep(new Redis({ ...t.redis }), made),
  'borrowed of ioredis 5': (t, made) => keep(new Redis5({ ...t.redis }), made),
}

function keep<C extends Redis | Redis5>(client: C, made: Set<{ disconnect(): void }>): C {
  client.on('error', () => {})
  made.add(client)
  return client
}

/** Runs other keys one after another until `end` is settled, and 20 more. Resolves to their outcomes. */
async function others(locker: Locker, end: Promise<unknown>): Promise<unknown[]> {
  const failures: unknown[] = []
  let left = Number.POSITIVE_INFINITY
  void end.finally(() => {
    left = 20
  })
  for (let index = 0; left > 0; index += 1, left -= 1) {
    await locker.run(`other ${index}`, () => index).catch((error: unknown) => failures.push(error))
  }
  return failures
}

const settled = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'result',
    (error: unknown) => error,
  )

for (const [name, client] of Object.entries(CLIENTS)) {
  describe(`large values on a slow connection - a client that is ${name}`, () => {
    const made = new Set<{ disconnect(): void }>()
    const started = async (t: Setup, options: LockerOptions = {}) => {
      const locker = new Locker({ redis: client(t, made), cache: false, ...options })
      await locker.run('warm', () => 1)
      return locker
    }

    test('L1 slow link - a result that takes five seconds to send is accepted, and all other calls are served', async () => {
      await using t = await setup({ proxy: true })
      await using locker = await started(t)
      const connections = t.proxy.connections.filter(onCommands).length
      t.proxy.throttle(125_000, { direction: 'up' })
      const large = locker.run('large', () => 'x'.repeat(600_000))
      await until(() => locker.stats().works === 2, { what: 'the work to have ended' })
      const calls = Array.from({ length: 24 }, (_, index) => locker.run(`small ${index}`, () => index))
      assert.deepEqual(
        await Promise.all(calls),
        calls.map((_, index) => index),
      )
      assert.equal((await large).length, 600_000)
      assert.equal(t.proxy.connections.filter(onCommands).length, connections)
      await locker.close()
      for (const each of made) each.disconnect()
    })

    test('L1 slow link - a result that takes five seconds to arrive is received, and all other calls are served', async () => {
      await using t = await setup({ proxy: true })
      await using other = new Locker({ redis: t.server.options, cache: false })
      await other.run('large', () => 'x'.repeat(600_000))
      await using locker = await started(t)
      const connections = t.proxy.connections.filter(onCommands).length
      t.proxy.throttle(125_000, { direction: 'down' })
      const large = locker.run('large', () => 'anew')
      await until(() => locker.stats().pendingCommands > 0, { what: 'the claim to be sent' })
      const calls = Array.from({ length: 24 }, (_, index) => locker.run(`small ${index}`, () => index))
      assert.deepEqual(
        await Promise.all(calls),
        calls.map((_, index) => index),
      )
      assert.equal(String(await large).length, 600_000)
      assert.equal(t.proxy.connections.filter(onCommands).length, connections)
      await locker.close()
      for (const each of made) each.disconnect()
    })

    test('L1 large reply - a caller whose reply ends every connection fails, and all others are served', async () => {
      await using t = await setup({ proxy: true })
      await using other = new Locker({ redis: t.server.options, cache: false })
      await other.run('large', () => 'x'.repeat(3_000_000))
      await using locker = await started(t)
      await t.server.call('CONFIG', 'SET', 'client-output-buffer-limit', 'normal 1mb 0 0')
      const before = t.proxy.accepted
      const reading = settled(locker.run('large', () => 'anew'))
      const failures = await others(locker, reading)
      const error = await reading
      assert.ok(error instanceof UnavailableError, String(error))
      assert.equal(error.lostConnections, 3)
      assert.match(error.message, /3 connections that each ended/)
      assert.deepEqual(failures, [])
      assert.ok(t.proxy.accepted - before <= 10, `${t.proxy.accepted - before} connections`)
      await locker.close()
      for (const each of made) each.disconnect()
    })

    test('L1 large reply - read together with others, it fails alone', async () => {
      await using t = await setup({ proxy: true })
      await using other = new Locker({ redis: t.server.options, cache: false })
      await other.run('large', () => 'x'.repeat(3_000_000))
      await using locker = await started(t, { unavailableAfter: 4000 })
      await t.server.call('CONFIG', 'SET', 'client-output-buffer-limit', 'normal 1mb 0 0')
      const keys = ['a', 'b', 'c', 'd', 'e', 'large', 'f', 'g', 'h']
      const outcomes = await Promise.all(keys.map((key) => settled(locker.run(key, () => key))))
      for (const [index, outcome] of outcomes.entries()) {
        if (keys[index] === 'large') assert.ok(outcome instanceof UnavailableError, String(outcome))
        else assert.equal(outcome, 'result', keys[index])
      }
      await locker.close()
      for (const each of made) each.disconnect()
    })
  })
}

describe('commands without a caller', () => {
  test('S6 lost - a command whose caller has left is not sent again', async () => {
    await using t = await setup({ proxy: true })
    const given = await t.client()
    for (const redis of [t.redis, given]) {
      await using locker = new Locker({ redis, cache: false, unavailableAfter: 300 })
      await locker.run('warm', () => 1)
      t.proxy.stall(true, onCommands)
      await assert.rejects(
        locker.run('given up', () => 1),
        UnavailableError,
      )
      t.proxy.cut(onCommands)
      t.proxy.stall(false)
      const served = () => locker.run('later', () => true)
      assert.ok(await until(served, { what: 'the connection to be back' }))
      assert.equal(await t.server.call('EXISTS', recordKey('soloflight', 'given up')), 0)
      await locker.close()
    }
  })
})

describe('a queue', () => {
  test('Q1 large result - a result that ends every connection fails its job, and other jobs go on', async () => {
    await using t = await setup({ proxy: true })
    await using queue = new RedisQueue('large', { redis: t.redis, timeout: 20_000 })
    queue.process('work', (size) => 'x'.repeat(Number(size)), { concurrency: 10 })
    assert.equal(await queue.submit('work', 1), 'x')
    // Ends each connection that carries a large message.
    t.proxy.cutAfter(500_000, 'up', { only: onCommands, times: 1000 })
    const large = settled(queue.submit('work', 900_000))
    const small = Array.from({ length: 20 }, (_, index) => queue.submit('work', index + 2))
    assert.equal((await Promise.all(small)).length, 20)
    const error = await large
    assert.ok(error instanceof Error)
    assert.match(error.message, /cannot be sent: .* 3 connections/)
    await t.proxy.clear()
  })
})
