// U4: every key has an expiry, whichever process dies at whatever moment.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MixedHandlers } from '../support/mixed-child.ts'
import { Child } from '../support/process.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const FILE = new URL('../support/mixed-child.ts', import.meta.url)

type Mixed = Child<MixedHandlers>

/** All keys of a server, and those of them that have no expiry. */
async function keysOf(server: RedisServer): Promise<{ all: string[]; eternal: string[] }> {
  const all = new Set<string>()
  let cursor = '0'
  do {
    const [next, keys] = (await server.call('SCAN', cursor, 'COUNT', 1000)) as [unknown, unknown[]]
    cursor = String(next)
    for (const key of keys) all.add(String(key))
  } while (cursor !== '0')
  const isEternal = await Promise.all(Array.from(all, async (key) => (await server.call('PTTL', key)) === -1))
  return { all: [...all], eternal: [...all].filter((_, index) => isEternal[index]) }
}

/** Parts of key names, one for each kind of key that must have existed: otherwise the test would prove nothing. */
function has(all: readonly string[], ...kinds: RegExp[]): void {
  for (const kind of kinds)
    assert.ok(
      all.some((key) => kind.test(key)),
      `no ${kind} among ${all.join('\n')}`,
    )
}

/** Child processes on one server, which the test kills. */
async function onServer(
  count: number,
  body: (children: Mixed[], server: RedisServer) => Promise<void>,
): Promise<string[]> {
  await using t = await setup()
  const children = await Promise.all(Array.from({ length: count }, () => Child.fork<MixedHandlers>(FILE)))
  try {
    await Promise.all(children.map((child) => child.call('open', t.redis)))
    await body(children, t.server)
    await Promise.all(children.map((child) => child.kill()))
    const { all, eternal } = await keysOf(t.server)
    assert.deepEqual(eternal, [], 'keys without expiry')
    return all
  } finally {
    await Promise.all(children.map((child) => child.kill()))
  }
}

describe('U4 expiry of keys', () => {
  test('U4 a key without expiry is found', async () => {
    await using t = await setup()
    const mortals = Array.from({ length: 2000 }, (_, number) => `mortal ${number}`)
    await Promise.all(mortals.map((key) => t.server.call('SET', key, 1, 'EX', 60)))
    await t.server.call('RPUSH', 'soloflight:1:{q}i/work', 'a worker')
    const { all, eternal } = await keysOf(t.server)
    assert.equal(all.length, 2001)
    assert.deepEqual(eternal, ['soloflight:1:{q}i/work'])
  })

  test('U4 a process that has done everything dies while it is idle', async () => {
    const all = await onServer(1, async ([child]) => {
      await child?.call('process', 1)
      await child?.call('round', 'one')
      await child?.call('round', 'two')
    })
    has(all, /}i\/work/, /}r\/work/, /}j\//, /}l\//, /}c$/, /}x$/, /}q$/, /:k\//, /:x/, /:t/)
  })

  test('U4 a worker dies while a job runs, others wait, and others are delayed', async () => {
    const all = await onServer(2, async ([worker, submitter]) => {
      await worker?.call('process', 3)
      await submitter?.call('fill', 'all')
      await worker?.next('running')
    })
    has(all, /}w\/./, /}z\/./, /}t$/, /}d$/, /}j\//)
  })

  test('U4 all die while a queue is paused', async () => {
    const all = await onServer(1, async ([child]) => {
      await child?.call('process', 3)
      await child?.call('round', 'one')
      await child?.call('pause')
      await child?.call('fill', 'all')
    })
    has(all, /}s$/, /}i\/work/, /}w\/work/)
  })

  test('U4 holders die amid their works, and those who wait for them', async () => {
    const all = await onServer(2, async ([holder, waiter], server) => {
      await holder?.call('hold')
      for (const key of ['held', 'refreshed']) await holder?.next('holding', (held) => held === key)
      await waiter?.call('wait')
      const parked = async () => {
        const { all } = await keysOf(server)
        const fields = await Promise.all(all.map((key) => server.call('HLEN', key).catch(() => 0)))
        return fields.some((count) => Number(count) > 5)
      }
      await until(parked, { what: 'one who waits' })
    })
    has(all, /:k\/held/)
  })

  test('U4 a producer dies mid-stream, and its reader in another process', async () => {
    const all = await onServer(2, async ([producer, reader]) => {
      await producer?.call('stream')
      await producer?.next('reading')
      await reader?.call('stream')
      await reader?.next('reading')
    })
    has(all, /:x\//)
  })

  for (const round of [1, 2, 3]) {
    test(`U4 all die at any moment of all that they do, ${round}`, async () => {
      await onServer(3, async (children) => {
        for (const child of children) {
          await child.call('process', 3)
          await child.call('hold')
          await child.call('stream')
          await child.call('rounds')
        }
        for (const child of children) {
          await sleep(50 + Math.random() * 200)
          await child.kill()
        }
      })
    })
  }
})
