import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { describe, test } from 'node:test'
import { Redis } from 'ioredis'
import { Redis as Redis5 } from 'ioredis5'
import { Locker, RedisQueue } from '../../src/index.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** Runs a function. Returns the process warnings that were emitted meanwhile. */
async function warningsOf(run: () => Promise<void>): Promise<string[]> {
  const warnings: string[] = []
  const note = (warning: Error) => warnings.push(`${warning.name} ${warning.message}`)
  process.on('warning', note)
  try {
    await run()
    await new Promise((resume) => setImmediate(resume))
  } finally {
    process.off('warning', note)
  }
  return warnings
}

const LAYERS = 30

describe('one listener', () => {
  for (const [version, make] of [
    ['ioredis 6', (path: string) => new Redis({ path, lazyConnect: true })],
    ['ioredis 5.10', (path: string) => new Redis5({ path, lazyConnect: true })],
  ] as const) {
    test(`one listener - dozens of lockers and queues on a client of ${version} open one subscription`, async () => {
      await using t = await setup()
      const client = make(t.server.path)
      const before = client.eventNames().map((event) => [event, client.listenerCount(event)])
      const warnings = await warningsOf(async () => {
        const lockers = Array.from(
          { length: LAYERS },
          (_, at) => new Locker({ redis: client, prefix: `p${at}` }),
        )
        const queues = Array.from({ length: LAYERS }, (_, at) => new RedisQueue(`q${at}`, { redis: client }))
        for (const queue of queues) queue.process('work', () => 'done')
        await Promise.all(lockers.map((locker, at) => locker.run(`key ${at}`, () => at)))
        assert.deepEqual(
          new Set(await Promise.all(queues.map((queue) => queue.submit('work')))),
          new Set(['done']),
        )
        assert.equal((await t.server.connectedClients()).length, 2)
        // A connection that others use stays open when one of them closes.
        const [last, ...others] = [...lockers, ...queues]
        await Promise.all(others.map((layer) => layer.close({ grace: 0 })))
        assert.ok(last instanceof Locker)
        assert.equal(await last.run('still open', () => 1), 1)
        await last.close()
        await until(async () => (await t.server.connectedClients()).length === 1, {
          what: 'the subscription to end',
        })
        // Another one opens it again.
        await using again = new Locker({ redis: client, cache: false })
        assert.equal(await again.run('again', () => 2), 2)
      })
      assert.deepEqual(warnings, [])
      assert.deepEqual(
        client.eventNames().map((event) => [event, client.listenerCount(event)]),
        before,
      )
      client.disconnect()
    })
  }

  for (const place of ['memory', 'redis'] as const) {
    test(`one listener - many calls with one AbortSignal do not warn, and all abort, on ${place}`, async () => {
      await using t = place === 'redis' ? await setup() : undefined
      const redis = t?.redis ?? null
      await using locker = new Locker({ redis })
      await using queue = new RedisQueue('queue', { redis })
      const { signal, abort } = controller()
      const never = () => new Promise<never>(() => {})
      const warnings = await warningsOf(async () => {
        for (let round = 0; round < LAYERS; round++) await locker.run(`quick ${round}`, () => 1, { signal })
        assert.equal(getEventListeners(signal, 'abort').length, 0)
        const calls = Array.from({ length: LAYERS }, (_, at) => [
          locker.run(`key ${at}`, never, { signal }),
          locker.runMany([`a ${at}`, `b ${at}`], never, { signal }),
          locker.stream(`stream ${at}`, never as never, { signal }).next(),
          queue.submit('nobody', at, { signal }),
        ]).flat()
        await until(() => locker.stats().waiters >= LAYERS, { what: 'all to wait' })
        assert.ok(getEventListeners(signal, 'abort').length <= 1)
        abort()
        for (const call of await Promise.allSettled(calls)) {
          assert.equal(call.status, 'rejected')
          assert.equal((call as PromiseRejectedResult).reason.code, 'E_ABORTED')
        }
        assert.equal(getEventListeners(signal, 'abort').length, 0)
        await Promise.all([locker, queue].map((layer) => layer.close({ grace: 0 })))
      })
      assert.deepEqual(warnings, [])
    })
  }
})

function controller(): { signal: AbortSignal; abort: () => void } {
  const own = new AbortController()
  return { signal: own.signal, abort: () => own.abort() }
}
