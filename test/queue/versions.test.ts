import assert from 'node:assert/strict'
import { cp, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { register } from 'tsx/esm/api'
import { Connection, type QueueOptions, RedisQueue } from '../../src/index.ts'
import { temporaryFolder } from '../support/lifeline.ts'
import { LONG } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { idle, keysOf, loadQueueScripts, NAME, over, Runs, subscribed, wired } from '../support/queue-wire.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

// The changed sources are imported.
register()

/** The package with another FORMAT of records and messages. */
async function nextVersion(): Promise<typeof import('../../src/index.ts')> {
  const folder = await temporaryFolder()
  const root = fileURLToPath(new URL('../..', import.meta.url))
  await cp(join(root, 'src'), join(folder, 'src'), { recursive: true })
  await cp(join(root, 'package.json'), join(folder, 'package.json'))
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  const keys = join(folder, 'src', 'kernel', 'keys.ts')
  const text = await readFile(keys, 'utf8')
  const changed = text.replace(/^export const FORMAT = '1'$/m, "export const FORMAT = '2'")
  assert.notEqual(changed, text)
  await writeFile(keys, changed)
  return import(pathToFileURL(join(folder, 'src', 'index.ts')).href)
}

describe('two versions of the package side by side', () => {
  test('queue versions - neither sees jobs, messages or workers of the other', async () => {
    const next = await nextVersion()
    await using t = await setup()
    const options: QueueOptions = { redis: t.redis, lease: LONG, timeout: 10_000 }
    await using one = new RedisQueue(NAME, options)
    await using two = new next.RedisQueue(NAME, options)
    await subscribed(one)
    await two.paused()
    const [runs, others] = [new Runs(), new Runs()]
    const heard: unknown[] = []
    const unwatch = await one.watch((event) => {
      if (event.event === 'completed') heard.push(event)
    })

    one.process('work', runs.handler(), { concurrency: 3 })
    await idle(t.server, 3)
    const waiting = await two.enqueue('work', 'same')
    assert.equal(await one.submit('work', 'same'), 'same')
    assert.equal((await waiting.status())?.state, 'waiting')
    assert.equal((await one.counts()).waiting, 0)
    assert.deepEqual(
      [await two.counts()].map(({ active, delayed }) => active + delayed),
      [0],
    )
    const mine = await one.enqueue('nobody', 1)
    assert.equal(await two.job(mine.id), undefined)
    assert.equal(await two.cancel(mine.id), false)
    await one.pause()
    assert.deepEqual(await two.paused(), [])
    two.process('work', others.handler(), { concurrency: 2 })
    assert.equal(await waiting.result(), 'same')
    await one.resume()

    const payloads = Array.from({ length: 100 }, (_, index) => index)
    const results = await Promise.all(
      [one, two].map((queue) => Promise.all(payloads.map((each) => queue.submit('work', each)))),
    )
    assert.deepEqual(results, [payloads, payloads])
    assert.deepEqual(runs.payloads.toSorted(), ['same', ...payloads].toSorted())
    assert.deepEqual(others.payloads.toSorted(), ['same', ...payloads].toSorted())
    for (const queue of [two, one]) assert.equal(await queue.submit('work', 'last'), 'last')
    await until(() => heard.length >= runs.all.length, { what: 'all events of the one' })
    assert.equal(heard.length, runs.all.length)
    for (const key of (await keysOf(t.server)).keys()) {
      assert.match(key, /^soloflight:[12]:(?:\{wired\}|queues$)/)
    }
    for (const queue of [one, two]) {
      assert.deepEqual((({ lost, stalled, failed }) => lost + stalled + failed)(queue.stats()), 0)
    }
    unwatch()
  })
})

describe('what a queue costs', { concurrency: 3 }, () => {
  for (const [concurrency, commands] of [
    [1, 19],
    // While another slot is free, no script looks for a waiting job.
    [5, 17],
  ] as const) {
    test(`queue commands - a job for an idle worker with ${concurrency}: ${commands} commands in scripts, 2 from clients`, async () => {
      await using t = await setup()
      await loadQueueScripts(t.server)
      const options: QueueOptions = { redis: t.redis, lease: LONG }
      await using worker = new RedisQueue(NAME, options)
      await using producer = new RedisQueue(NAME, options)
      const runs = new Runs()
      // First, so that the worker announces its capacity only once.
      await subscribed(worker, producer)
      worker.process('work', runs.handler(), { concurrency })
      await idle(t.server, concurrency, { exactly: true })
      // A worker accepts each delivery first, until some handlers in a row did not block the event loop.
      for (let warm = 0; warm < 30; warm += 1) await producer.submit('work', warm, { dedupe: false })
      await idle(t.server, concurrency, { exactly: true })
      await t.server.resetStats()
      await producer.submit('work', { items: [2, 3, 4] }, { dedupe: false })
      await until(() => worker.stats().completed === 31, { what: 'the worker to know' })
      // PING is sent by the subscriptions; the others are sent by this test.
      const { evalsha, ping, info, 'config|resetstat': reset, ...inside } = await t.server.commandStats()
      const count = Object.values(inside).reduce((sum, calls) => sum + calls, 0)
      assert.equal(evalsha, 2)
      assert.equal(count, commands, JSON.stringify(inside))
    })
  }

  test('queue commands - an idle process with 10 queues and workers: 2 connections, at most 30 commands in 10 s', async () => {
    await using t = await setup()
    await using connection = new Connection(t.url)
    const queues = Array.from(
      { length: 10 },
      (_, index) => new RedisQueue(`q${index}`, { redis: connection }),
    )
    for (const [index, queue] of queues.entries()) {
      queue.process('work', () => 1)
      await subscribed(queue)
      await idle(t.server, 1, { queue: `q${index}` })
    }
    assert.equal((await t.server.connectedClients()).length, 2)
    await t.server.resetStats()
    await new Promise((resolve) => setTimeout(resolve, 10_000))
    const { info, 'config|resetstat': reset, ...calls } = await t.server.commandStats()
    const count = Object.values(calls).reduce((sum, each) => sum + each, 0)
    assert.ok(count <= 30, `${count} commands: ${JSON.stringify(calls)}`)
    assert.equal((await t.server.connectedClients()).length, 2)
    for (const queue of queues) assert.equal(await queue.submit('work'), 1)
    for (const queue of queues) await queue.close()
  })
})

describe('what is left when all is over', { concurrency: 3 }, () => {
  test('L5 queue - every key that is left has an end, and no line, place, worker or time is left', async () => {
    await using s = await wired({ lease: 300, ttl: 50, attempts: 2, maxStalls: 1 })
    const runs = new Runs()
    s.other.process('work', runs.handler(), { concurrency: 4 })
    s.other.process('failed', () => Promise.reject(new Error('no paper')))
    s.other.process('held', (_, { signal, log, progress }) => {
      log('a line')
      progress('half')
      return new Promise((resolve) => signal.addEventListener('abort', resolve))
    })
    const payloads = Array.from({ length: 30 }, (_, index) => index)
    await Promise.all(payloads.map((each) => s.queue.submit('work', each, { priority: each % 3 })))
    await Promise.all(payloads.map((each) => s.queue.submit('work', each, { dedupe: false, delay: 20 })))
    await assert.rejects(s.queue.submit('failed'), { code: 'E_REMOTE' })
    const held = await s.queue.enqueue('held')
    await until(async () => (await s.queue.logs(held.id)).length === 1, { what: 'the line' })
    await held.cancel()
    const gone = new AbortController()
    const left = s.queue.submit('nobody', 1, { abortUnwanted: true, signal: gone.signal }).catch(() => {})
    const waiting = await s.queue.enqueueMany(
      [1, 2, 3].map((payload) => ({
        command: 'never',
        payload,
        options: payload === 3 ? { delay: 60_000 } : { priority: payload - 1 },
      })),
    )
    gone.abort()
    await left
    await s.queue.drain({ delayed: true })
    for (const job of waiting) assert.equal((await job.status())?.state, 'removed')
    await over(s.queue)
    await Promise.all([s.queue.close(), s.other.close()])
    const keys = await keysOf(s.t.server)
    assert.ok(keys.size > 30, 'nothing is left to look at')
    for (const [key, life] of keys) assert.ok(life > 0, `${key} has no end`)
    const base = 'soloflight:1:{wired}'
    for (const name of ['t', 'd', 'w/', 'i/', 'r/', 'z/']) {
      assert.deepEqual(
        [...keys.keys()].filter((key) => key.startsWith(base + name)),
        [],
        name,
      )
    }
  })

  test('L5 queue - records end: of what was not kept within the time for those who waited', async () => {
    await using s = await wired({ lease: 1000, ttl: 50, retain: { failed: false } })
    s.other.process('work', () => 1)
    await s.queue.submit('work')
    await Promise.all([s.queue.close(), s.other.close()])
    for (const [key, life] of await keysOf(s.t.server)) {
      if (key.includes('}j/')) assert.ok(life > 0 && life <= 15_000 + EPSILON, `${key}: ${life} ms`)
    }
    // Keys without a job expire after the longest ttl. The test shortens it.
    for (const key of (await keysOf(s.t.server)).keys()) await s.t.server.call('PEXPIRE', key, 1)
    await until(async () => (await keysOf(s.t.server)).size === 0, { what: 'nothing to be left' })
  })

  test('L5 queue - that a queue is paused is known for long, and not for ever', async () => {
    await using s = await wired({ lease: 1000 })
    s.other.process('work', () => 1)
    await s.queue.submit('work')
    await s.queue.pause()
    await s.queue.pause('work')
    await Promise.all([s.queue.close(), s.other.close()])
    const lives = await keysOf(s.t.server)
    assert.ok((lives.get('soloflight:1:{wired}s') ?? 0) > 30 * 24 * 60 * 60_000)
    assert.deepEqual(
      [...lives].filter(([, life]) => life === -1),
      [],
    )
  })
})
