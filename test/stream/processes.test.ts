import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { EPSILON } from '../support/lockers.ts'
import { Child } from '../support/process.ts'
import { type Setup, setup } from '../support/setup.ts'
import type { ChildReading, StreamHandlers } from '../support/stream-child.ts'

const FILE = new URL('../support/stream-child.ts', import.meta.url)
const LEASE = 1_000
type Process = Child<StreamHandlers>

interface Team extends AsyncDisposable {
  t: Setup
  all: readonly [Process, Process, Process]
}

/** Three processes on one Redis. */
async function team(options: { takeover?: boolean } = {}): Promise<Team> {
  const t = await setup()
  const all = await Promise.all([1, 2, 3].map(() => Child.fork<StreamHandlers>(FILE)))
  await Promise.all(
    all.map((child) =>
      child.call('open', { redis: t.redis, lease: LEASE, cache: false, timeout: 20_000, ...options }),
    ),
  )
  return {
    t,
    all: all as [Process, Process, Process] & Process[],
    async [Symbol.asyncDispose]() {
      await Promise.all(all.map((child) => child[Symbol.asyncDispose]()))
      await t[Symbol.asyncDispose]()
    },
  }
}

function chunkOf(child: Process, id: string, chunk: unknown): Promise<unknown> {
  return child.next<{ id: string; chunk: unknown }>('chunk', (got) => got.id === id && got.chunk === chunk)
}

function ended(child: Process, id: string): Promise<ChildReading> {
  return child.next<ChildReading>('ended', (reading) => reading.id === id)
}

test('stream - kill -9 of the producer: readers that received chunks are interrupted within a lease', async () => {
  await using scene = await team()
  const [producer, ...others] = scene.all
  await producer.call('read', 'k', { id: 'p' })
  await producer.next('run')
  await producer.call('push', 'k', 'a', 'b')
  for (const other of others) {
    await other.call('read', 'k', { id: 'under way' })
    await chunkOf(other, 'under way', 'b')
  }
  const since = performance.now()
  await producer.kill()
  for (const other of others) {
    const { chunks, code, message } = await ended(other, 'under way')
    assert.deepEqual([chunks, code], [['a', 'b'], 'E_STREAM_INTERRUPTED'], message)
  }
  const ms = performance.now() - since
  assert.ok(ms < 2 * LEASE + EPSILON, `it took ${ms} ms`)
  // Every reader had received chunks, so no one produced again. The next caller does.
  const [one, two] = others
  await one.call('push', 'k', 'new')
  await one.call('end', 'k')
  await one.call('read', 'k', { id: 'again' })
  assert.deepEqual((await ended(one, 'again')).chunks, ['new'])
  await two.call('read', 'k', { id: 'again' })
  assert.deepEqual((await ended(two, 'again')).chunks, ['new'])
})

test('stream - kill -9 of the producer: one reader that received nothing produces for all of them', async () => {
  await using scene = await team()
  const [producer, ...others] = scene.all
  await producer.call('read', 'k', { id: 'p' })
  await producer.next('run')
  for (const other of others) for (const id of ['x', 'y']) await other.call('read', 'k', { id, count: 3 })
  await sleep(100)
  await producer.kill()
  const since = performance.now()
  for (const other of others) {
    for (const id of ['x', 'y']) {
      const { chunks, code } = await ended(other, id)
      assert.deepEqual(
        [chunks.map((chunk) => (chunk as { number: number }).number), code],
        [[0, 1, 2], undefined],
      )
    }
  }
  const ms = performance.now() - since
  assert.ok(ms < LEASE + 2 * EPSILON, `it took ${ms} ms`)
  const runs = await Promise.all(
    others.map((other) => other.next('run', () => true, 300).catch(() => undefined)),
  )
  assert.equal(runs.filter(Boolean).length, 1, 'one work in both processes')
})

test('stream - kill -9 of the producer, with takeover off: no reader replaces it', async () => {
  await using scene = await team({ takeover: false })
  const [producer, reader] = scene.all
  for (const key of ['begun', 'at 0']) {
    await producer.call('read', key, { id: 'p' })
    await producer.next('run')
  }
  await producer.call('push', 'begun', 'a')
  for (const key of ['begun', 'at 0']) await reader.call('read', key, { id: key, count: 1 })
  await chunkOf(reader, 'begun', 'a')
  await sleep(100)
  await producer.kill()
  assert.equal((await ended(reader, 'begun')).code, 'E_STREAM_INTERRUPTED')
  assert.equal((await ended(reader, 'at 0')).code, 'E_LOCK_TIMEOUT')
})

test('stream - a producer that was replaced reaches no reader: its own are interrupted, its successor goes on', async () => {
  await using scene = await team()
  const [late, successor, witness] = scene.all
  await late.call('read', 'k', { id: 'own' })
  await late.next('run')
  await late.call('push', 'k', 'old')
  await chunkOf(late, 'own', 'old')
  await witness.call('read', 'k', { id: 'under way' })
  await chunkOf(witness, 'under way', 'old')
  await late.freeze()
  assert.equal((await ended(witness, 'under way')).code, 'E_STREAM_INTERRUPTED')
  await successor.call('read', 'k', { id: 's' })
  await successor.next('run')
  await successor.call('push', 'k', 'new')
  await chunkOf(successor, 's', 'new')
  late.thaw()
  await late.call('push', 'k', 'too late')
  await late.call('end', 'k')
  const own = await ended(late, 'own')
  assert.equal(own.code, 'E_STREAM_INTERRUPTED')
  await witness.call('read', 'k', { id: 'joins' })
  await chunkOf(witness, 'joins', 'new')
  await successor.call('push', 'k', 'end')
  await successor.call('end', 'k')
  for (const [child, id] of [
    [successor, 's'],
    [witness, 'joins'],
  ] as const)
    assert.deepEqual((await ended(child, id)).chunks, ['new', 'end'])
})

test('stream - a chunk costs one command, however many processes follow', async () => {
  await using scene = await team()
  const [producer, ...others] = scene.all
  const COUNT = 100
  // Loads all scripts into the server.
  await producer.call('read', 'warm', { id: 'warm', count: 1 })
  await ended(producer, 'warm')
  await using monitor = await scene.t.server.monitor()
  await producer.call('read', 'k', { id: 'p', count: COUNT, every: 10 })
  await producer.next('run', ({ key }: { key: string }) => key === 'k')
  for (const other of others) await other.call('read', 'k', { id: 'r' })
  const readings = await Promise.all([ended(producer, 'p'), ...others.map((other) => ended(other, 'r'))])
  for (const { chunks, code } of readings) assert.deepEqual([chunks.length, code], [COUNT, undefined])
  const lines = (await monitor.lines()).filter(
    ({ command, fromScript }) => command.startsWith('eval') && !fromScript,
  )
  // Beside the appends: claims, progress, renewals, first reads and polls, the end.
  assert.ok(lines.length <= COUNT + 30, `${lines.length} commands for ${COUNT} chunks`)
})

test('stream - a chunk reaches a reader in another process within milliseconds', async () => {
  await using scene = await team()
  const [producer, reader] = scene.all
  await producer.call('read', 'k', { id: 'p', count: 100, every: 5 })
  await producer.next('run')
  await reader.call('read', 'k', { id: 'r' })
  const delays: number[] = []
  for (let number = 20; number < 100; number++) {
    const { chunk, at } = await reader.next<{ chunk: { number: number; at: number }; at: number }>(
      'chunk',
      (got) => (got as { chunk: { number: number } }).chunk.number === number,
    )
    delays.push(at - chunk.at)
  }
  delays.sort((a, b) => a - b)
  const median = delays[40] as number
  // Well below 50 ms, the interval of progress messages.
  assert.ok(median < 20, `a median of ${median} ms`)
})
