// Some process always has a timer for a delayed job.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Connection, MemoryQueueStore, RedisQueue } from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import { RedisQueueStore } from '../../src/queue/store/redis/redis-store.ts'
import type { QueueStore, Submission, SubmitReply } from '../../src/queue/store/store.ts'
import { onSubscription } from '../support/locker-scene.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const WITHIN = 2000
/** Of a worker, ms. It looks for jobs that it was not told of after 1.3 leases at the earliest. */
const LEASE = 10_000

function submit(store: QueueStore, command: string, delay: number): Promise<SubmitReply> {
  const submission: Submission = {
    ...{ id: newId(), nonce: newId(), command, delay, options: '', payload: '1' },
    ...{
      awaited: false,
      conflict: 'reject',
      priority: 0,
      lifo: false,
      abortUnwanted: false,
      requiresWorker: false,
    },
  }
  return new Promise((answered, failed) =>
    store.submit(submission, WITHIN, { onReply: answered, onError: failed, onNotice: () => {} }),
  )
}

/** A worker with one slot learns of every delayed job, whichever job is due before it. */
async function checkHints(store: QueueStore): Promise<void> {
  const told: number[] = []
  let deliveries = 0
  const listener = {
    ...{ onDelivery: () => deliveries++, onCancelled: () => {}, onCapacityRequested: () => {} },
    onDue: (ms: number) => told.push(ms),
  }
  await submit(store, 'nobody does it', 1000)
  await store.setCapacity({ nonce: newId(), command: 'work' }, () => 1, listener, WITHIN)
  await submit(store, 'work', 0)
  await until(() => deliveries === 1, { what: 'a job that runs, whose lease ends before' })
  await submit(store, 'work', 30_000)
  await until(() => told.length === 1, { what: 'a hint, behind a lease and a job of another command' })
  await submit(store, 'work', 20_000)
  await until(() => told.length === 2, { what: 'a hint of an earlier one' })
  assert.ok(told[0] && told[0] > 25_000 && told[1] && told[1] <= 20_000, `${told}`)
}

test('L3 timers - a worker is told of what is put off, in memory', async () => {
  await checkHints(new MemoryQueueStore().connect('queue'))
})

test('L3 timers - a worker is told of what is put off, on Redis', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  const store = new RedisQueueStore(connection, 'soloflight', 'queue')
  await store.counts(WITHIN)
  await until(() => store.subscribed, { what: 'the subscription' })
  await checkHints(store)
  store.close()
})

test('L3 timers - what was put off before messages reach a worker is on time', async () => {
  await using t = await setup({ proxy: true })
  t.proxy.delay(300, { only: onSubscription })
  await using there = new RedisQueue('queue', { redis: t.server.options })
  await there.ready()
  await using here = new RedisQueue('queue', { redis: t.redis, lease: LEASE })
  here.process('work', () => performance.now())
  const began = performance.now()
  await there.enqueue('work', 1, { delay: 1000 })
  assert.equal(here.stats().subscribed, false, 'nobody was told')
  const ms = ((await there.submit('work', 1)) as number) - began
  assert.ok(ms >= 999 && ms < LEASE, `it ran after ${ms} ms`)
})
