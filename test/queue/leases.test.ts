// The lease of an attempt, on a clock that the test advances.

import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import type { RunningJob } from '../../src/index.ts'
import { EventReporter } from '../../src/queue/events.ts'
import { MemoryQueueStore } from '../../src/queue/index.ts'
import { resolveQueueOptions } from '../../src/queue/options.ts'
import { Registration } from '../../src/queue/registration.ts'
import { Worker } from '../../src/queue/working/worker.ts'
import { ManualClock } from '../support/manual-clock.ts'

/** Delivers a job to a worker that gets no reply to its renewals. Returns when its handler began and was told to stop, ms. */
async function deliverUnanswered(
  lease: number,
  leaseLeft: number,
): Promise<{ begun?: number; told?: number }> {
  const clock = new ManualClock(0)
  const store = new MemoryQueueStore({ clock }).connect('q')
  store.renew = () => Promise.reject(new Error('no reply'))
  const options = resolveQueueOptions({ lease })
  const registration = new Registration(store, clock, 100)
  const context = { queue: 'q', store, clock, options, within: 100, connection: undefined, registration }
  const seen: { begun?: number; told?: number } = {}
  const handler = (_: unknown, { signal }: RunningJob) => {
    seen.begun = clock.now()
    return new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => {
        seen.told = clock.now()
        resolve()
      })
    })
  }
  const events = new EventReporter('q', new EventEmitter(), store)
  const worker = new Worker('c', handler, 1, context, events, { dueIn() {}, announcementsFail() {} })
  const attempt = { id: 'id', fence: 1, generation: 1, failures: 0, stalls: 0 }
  worker.onDelivery({ ...attempt, leaseLeft, options: '', payload: '1' })
  await clock.pass(lease)
  return seen
}

test('S5 leases - a handler that begins before Redis accepts its delivery is told to stop before the lease ends', async () => {
  for (const lease of [100, 200, 10_000]) {
    const whole = Math.min(2000, lease / 2)
    for (const leaseLeft of [0, 0.6, 1, 5, 9, 11, 19, 21, 50, 100, 150, 250, 1000, whole]) {
      if (leaseLeft > whole) continue
      const { begun, told } = await deliverUnanswered(lease, leaseLeft)
      const seen = `${leaseLeft} of ${lease}: begun ${begun}, told ${told}`
      if (begun !== undefined) assert.ok(told !== undefined && told < leaseLeft, seen)
      if (leaseLeft === whole) assert.notEqual(begun, undefined, seen)
    }
  }
})
