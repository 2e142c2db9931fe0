// Large numbers of jobs, slots and bytes: nothing is lost, and no job waits while a slot is free.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Connection, RedisQueue } from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import { RedisQueueStore } from '../../src/queue/store/redis/redis-store.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const WITHIN = 2000
const UNHEARD = {
  onDelivery: () => {},
  onCancelled: () => {},
  onDue: () => {},
  onCapacityRequested: () => {},
}

function numbers(count: number, command: string): { command: string; payload: number }[] {
  return Array.from({ length: count }, (_, payload) => ({ command, payload }))
}

test('Q1 bounds - thousands of jobs of several commands are delivered by one step', async () => {
  await using t = await setup()
  await using queue = new RedisQueue('queue', { redis: t.redis })
  const commands = ['a', 'b', 'c', 'd', 'e']
  let runs = 0
  await queue.pause()
  for (const command of commands) queue.process(command, () => ++runs, { concurrency: 1000 })
  for (const command of commands) await queue.enqueueMany(numbers(1000, command))
  await queue.pause()
  await queue.resume()
  await until(() => runs === 5000, { what: 'all to run', timeout: 20_000 })
  await until(async () => (await queue.counts()).active === 0, { what: 'all to be over' })
  assert.equal((await queue.counts()).waiting, 0)
})

test('Q1 bounds - more slots than one step fills are all used', async () => {
  await using t = await setup()
  await using queue = new RedisQueue('queue', { redis: t.redis })
  await queue.enqueueMany(numbers(6000, 'work'))
  let runs = 0
  queue.process('work', () => ++runs, { concurrency: 1200 })
  await until(() => runs === 6000, { what: 'all to run', timeout: 20_000 })
})

test('Q1 bounds - payloads that would flood a subscription are read one by one', async () => {
  await using t = await setup()
  await using queue = new RedisQueue<{ size: (text: string) => number }>('queue', { redis: t.redis })
  const size = 1_000_000
  const letters = Array.from({ length: 40 }, (_, index) => String.fromCharCode(0x30 + index))
  await queue.enqueueMany(
    letters.map((letter) => ({ command: 'size' as const, payload: letter.repeat(size) })),
  )
  const seen = new Set<string | undefined>()
  queue.process('size', (text) => seen.add(text.at(-1)) && text.length, { concurrency: 40 })
  await until(async () => queue.stats().completed === letters.length, { what: 'all to run', timeout: 30_000 })
  assert.equal(seen.size, letters.length)
  assert.equal(queue.stats().lost, 0, 'the subscription was not lost')
})

test('Q1 bounds - a job that finds only dead workers waits for a living one', async () => {
  await using t = await setup()
  const gone = new Connection(t.redis)
  const dead = new RedisQueueStore(gone, 'soloflight', 'queue')
  await dead.counts(WITHIN)
  await until(() => dead.subscribed, { what: 'the subscription' })
  for (let n = 0; n < 70; n++)
    await dead.setCapacity({ nonce: newId(), command: 'work' }, () => 1, UNHEARD, WITHIN)
  dead.close()
  await gone.close()
  await until(async () => (await t.server.connectedClients()).length === 0, { what: 'it to be gone' })
  await using queue = new RedisQueue('queue', { redis: t.redis })
  const result = queue.submit('work', 1)
  await until(async () => (await queue.counts()).waiting + (await queue.counts()).active > 0, {
    what: 'the job',
  })
  queue.process('work', (n) => n + 1)
  assert.equal(await result, 2)
})

test('Q1 bounds - a delayed job of a command that nobody does is seen when its moment has come', async () => {
  await using t = await setup()
  await using queue = new RedisQueue('queue', { redis: t.redis })
  queue.process('known', () => {})
  const job = await queue.enqueue('unknown', 1, { delay: 100 })
  await until(async () => (await queue.counts()).waiting === 1, { what: 'it to wait' })
  assert.deepEqual(
    (await queue.jobs('waiting')).jobs.map(({ id }) => id),
    [job.id],
  )
  assert.equal(await queue.drain(), 1)
})

test('L5 bounds - dead letters whose time is over hide no others', async () => {
  await using t = await setup()
  const fail = () => {
    throw new Error('no')
  }
  await using brief = new RedisQueue('queue', {
    redis: t.redis,
    retain: { failed: { count: 1000, age: 1 } },
  })
  brief.process('brief', fail, { concurrency: 50 })
  await using queue = new RedisQueue('queue', { redis: t.redis })
  queue.process('long', fail)
  await assert.rejects(queue.submit('long', 1))
  await Promise.allSettled(numbers(120, 'brief').map(({ payload }) => brief.submit('brief', payload)))
  await until(async () => (await queue.counts()).failed === 1, { what: 'the others to be forgotten' })
  assert.equal((await queue.jobs('failed')).jobs.length, 1)
  assert.equal(await queue.redrive(), 1)
})

test('L5 bounds - a handler that ends while its worker closes leaves no slot of it', async () => {
  await using t = await setup()
  await using producer = new RedisQueue('queue', { redis: t.redis })
  for (let turns = 0; turns < 14; turns++) {
    const worker = new RedisQueue('queue', { redis: t.redis })
    const [begun, gate] = [pDefer<void>(), pDefer<void>()]
    worker.process('x', async () => {
      begun.resolve()
      await gate.promise
    })
    const submitted = producer.submit('x', turns)
    await begun.promise
    gate.resolve()
    // The delay varies, so that `close` falls into every step between the end of the handler and its report.
    for (let turn = 0; turn < turns; turn++) await undefined
    await worker.close()
    await submitted
    const lists = (await t.server.call('KEYS', '*}i/*')) as string[]
    const slots = await Promise.all(lists.map((list) => t.server.call('LLEN', list)))
    assert.deepEqual(
      slots.filter((count) => Number(count) > 0),
      [],
      `after ${turns} turns`,
    )
  }
})
