// Memory of processes, measured in child processes.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pDefer from 'p-defer'
import { Locker, MemoryQueueStore, MemoryStore, RedisQueue } from '../../src/index.ts'
import { ownedBytes } from '../../src/kernel/codec/binary.ts'
import { MemoryBudget } from '../../src/kernel/in-memory-store.ts'
import { compiled } from '../support/compiled.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const MIB = 2 ** 20
const CHILD = fileURLToPath(new URL('../support/memory-child.ts', import.meta.url))
/** The bounds of an embedded locker: of its store, and of its in-process cache. */
const EMBEDDED = (256 + 64) * MIB

const run = promisify(execFile)

/** The memory of a process after a scenario, and the size that its in-process cache reports. */
async function measured(
  scenario: string,
  count: number,
  path = '',
): Promise<{ held: number; counted: number }> {
  const args = ['--expose-gc', await compiled(CHILD), scenario, String(count), path]
  const { stdout } = await run(process.execPath, args)
  return JSON.parse(stdout)
}

describe('L5 memory', () => {
  for (const scenario of ['locker', 'queue', 'streams'] as const) {
    test(`of an embedded ${scenario}: 600 results of 1 MiB stay within the bound`, async () => {
      const { held } = await measured(scenario, 600)
      assert.ok(held < 1.25 * EMBEDDED, `${Math.round(held / MIB)} MiB`)
    })
  }

  test('small results hold no memory of others', async () => {
    const { held } = await measured('small', 20_000)
    assert.ok(held < 60 * MIB, `${Math.round(held / MIB)} MiB`)
  })

  test('the in-process cache retains as much as it counts, and no other received bytes', async () => {
    await using t = await setup()
    const { held, counted } = await measured('cache', 600, t.url)
    assert.ok(counted < 4 * MIB, `${counted} bytes`)
    assert.ok(held < 12 * MIB, `${Math.round(held / MIB)} MiB for ${Math.round(counted / MIB)} MiB`)
  })
})

describe('L5 the embedded store', () => {
  test('evicts the oldest results first, never keys with a running work or waiters', async () => {
    const store = new MemoryStore({ maxBytes: 10 * MIB })
    await using locker = new Locker({ store, cache: false })
    await using other = new Locker({ store, cache: false })
    const gate = pDefer<string>()
    const running = locker.run('running', () => gate.promise)
    const waiting = other.run('running', () => 'twice')
    await until(async () => (await other.peek('running')).lock?.parked === 1, { what: 'the park' })
    for (let i = 0; i < 30; i++) await locker.run(`key${i}`, () => Buffer.alloc(MIB))
    assert.ok(store.bytes <= 10 * MIB, `${store.bytes} bytes`)
    const kept = []
    for (let i = 0; i < 30; i++) if ((await locker.peek(`key${i}`)).status === 'done') kept.push(i)
    assert.deepEqual(kept, [21, 22, 23, 24, 25, 26, 27, 28, 29])
    gate.resolve('once')
    assert.deepEqual(await Promise.all([running, waiting]), ['once', 'once'])
  })

  test('gives a result that is larger than its bound to all waiters, and does not keep it', async () => {
    const store = new MemoryStore({ maxBytes: MIB })
    await using locker = new Locker({ store, cache: false })
    await using other = new Locker({ store, cache: false })
    await locker.run('small', () => 'kept')
    const gate = pDefer<Buffer>()
    const running = locker.run('large', () => gate.promise)
    const waiting = other.run('large', () => Buffer.alloc(1))
    await until(async () => (await other.peek('large')).lock?.parked === 1, { what: 'the park' })
    gate.resolve(Buffer.alloc(2 * MIB))
    const results = await Promise.all([running, waiting])
    assert.deepEqual(
      results.map(({ length }) => length),
      [2 * MIB, 2 * MIB],
    )
    assert.equal((await locker.peek('large')).status, 'free')
    assert.equal(await locker.run('small', () => 'anew'), 'kept')
  })

  test('refuses new keys when running works fill it', async () => {
    const store = new MemoryStore({ maxBytes: 10 * 1024 })
    await using locker = new Locker({ store })
    const gate = pDefer<string>()
    const runs = Array.from({ length: 100 }, (_, i) => locker.run(`key${i}`, () => gate.promise))
    const settled = Promise.allSettled(runs)
    await assert.rejects(
      locker.run('one more', () => 1),
      { code: 'E_OVERLOADED', key: 'one more' },
    )
    const joined = locker.run('key0', () => 'twice')
    gate.resolve('done')
    const codes = (await settled).map((result) =>
      result.status === 'fulfilled' ? result.value : result.reason.code,
    )
    assert.deepEqual([...new Set(codes)], ['done', 'E_OVERLOADED'])
    assert.equal(await joined, 'done')
    assert.equal(await locker.run('one more', () => 'then'), 'then')
    assert.equal(locker.stats().unavailable, 0)
  })
})

describe('L5 the embedded queue', () => {
  test('evicts the oldest results first, never waiting jobs, which are refused beyond the bound', async () => {
    const store = new MemoryQueueStore({ maxBytes: 10 * MIB })
    await using queue = new RedisQueue<{ work: (data: string) => string }>('queue', { store })
    await using worker = new RedisQueue<{ work: (data: string) => string }>('queue', { store })
    const text = (i: number) => `${i}`.padEnd(MIB / 2)
    worker.process('work', (data) => data)
    for (let i = 0; i < 30; i++) await queue.submit('work', text(i))
    await worker.close()
    const jobs = []
    for (let i = 100; i < 110; i++) jobs.push(await queue.enqueue('work', text(i)))
    assert.equal((await queue.enqueue('work', text(29))).disposition, 'cached', 'the newest is there')
    assert.equal((await queue.enqueue('work', text(0))).disposition, 'created', 'the oldest is not')
    await assert.rejects(
      async () => {
        for (let i = 200; i < 230; i++) await queue.enqueue('work', text(i))
      },
      { code: 'E_OVERLOADED' },
    )
    await assert.rejects(queue.submit('work', text(300)), { code: 'E_OVERLOADED' })
    await using another = new RedisQueue<{ work: (data: string) => string }>('queue', { store })
    another.process('work', (data) => data)
    for (const job of jobs) assert.equal(((await job.result()) as string).length, MIB / 2)
  })
})

describe('memory - parts', () => {
  test('a small part of a large memory is copied, all of it is not', () => {
    const large = Buffer.alloc(64 * 1024, 7)
    const part = ownedBytes(large.subarray(100, 200))
    assert.deepEqual([part.length, part.buffer.byteLength, part[0]], [100, 100, 7])
    assert.equal(ownedBytes(large), large)
    const most = large.subarray(0, 60 * 1024)
    assert.equal(ownedBytes(most), most)
  })

  test('a budget evicts unused entries, the oldest first', () => {
    const budget = new MemoryBudget<{ name: string }>(100)
    const forgotten: string[] = []
    const entry = (name: string, bytes: number, idle = true) => {
      const made = { name }
      budget.set(made, bytes, idle ? () => forgotten.push(name) : undefined)
      return made
    }
    const a = entry('a', 40)
    entry('used', 40, false)
    const b = entry('b', 20)
    assert.deepEqual([budget.bytes, forgotten], [100, []])
    budget.set(a, 40, () => forgotten.push('a'))
    entry('c', 10)
    assert.deepEqual([budget.bytes, forgotten], [90, ['b']])
    entry('too large', 101)
    assert.deepEqual([budget.bytes, forgotten], [90, ['b', 'too large']])
    budget.set(b, 60, undefined)
    assert.deepEqual([budget.bytes, forgotten], [100, ['b', 'too large', 'a', 'c']])
    assert.deepEqual([budget.fits(0), budget.fits(1)], [true, false])
  })
})
