// State machines: an event that is illegal in the present state is refused by an internal error.

import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import { AsyncContext } from '../../src/kernel/time.ts'
import { EventReporter } from '../../src/queue/events.ts'
import { MemoryQueueStore } from '../../src/queue/index.ts'
import { type QueueContext, resolveQueueOptions } from '../../src/queue/options.ts'
import { Registration } from '../../src/queue/registration.ts'
import type { Delivery, QueueStore } from '../../src/queue/store/store.ts'
import { Attempt } from '../../src/queue/working/attempt.ts'
import { DuePoller } from '../../src/queue/working/due-poller.ts'
import { Worker } from '../../src/queue/working/worker.ts'

const ILLEGAL = /Illegal transition/

const DELIVERY: Delivery = {
  ...{ id: 'id', fence: 1, generation: 1, failures: 0, stalls: 0 },
  ...{ leaseLeft: 5_000, options: '', payload: '1' },
}

function queueContext(): QueueContext {
  const memory = new MemoryQueueStore()
  const store: QueueStore = memory.connect('q')
  const options = resolveQueueOptions({})
  const { clock } = memory
  const registration = new Registration(store, clock, 100)
  return { queue: 'q', store, clock, options, within: 100, connection: undefined, registration }
}

test('states - an attempt runs once', async () => {
  const worker = { nonce: 'w', command: 'c' }
  const attempt = new Attempt(DELIVERY, { ...queueContext(), worker, context: new AsyncContext() })
  assert.equal((await attempt.run((payload) => payload)).kind, 'value')
  await assert.rejects(
    attempt.run((payload) => payload),
    ILLEGAL,
  )
})

test('states - a worker stops before it closes, and a poller closes once', async () => {
  const context = queueContext()
  const events = new EventReporter('q', new EventEmitter(), context.store)
  const hooks = { dueIn() {}, announcementsFail() {} }
  const worker = new Worker('c', (payload) => payload, 1, context, events, hooks)
  await assert.rejects(worker.cancelAndRequeue(), ILLEGAL)
  await worker.stopDeliveries()
  await worker.cancelAndRequeue()
  const stallPolicy = {
    ...{ maxStalls: 1, failure: Buffer.alloc(0), errorTtl: 0, outcomeRetention: 0 },
    retain: { count: 0, age: 0 },
  }
  const poller = new DuePoller(context, stallPolicy, { takesJobs: () => true, onProcessed() {} })
  poller.close()
  assert.throws(() => poller.close(), ILLEGAL)
})
