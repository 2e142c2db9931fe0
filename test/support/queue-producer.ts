// What a producer of the campaign does: all kinds of jobs, by a seed.

import { setTimeout as sleep } from 'node:timers/promises'
import { Random } from '../simulation/random.ts'
import type { ChildSubmitOptions, Handed, QueueEntry, Task } from './queue-protocol.ts'

/** What a producer uses of its process. */
export interface Producer {
  submit(task: Task, options: ChildSubmitOptions): Promise<QueueEntry>
  enqueue(task: Task, options: ChildSubmitOptions, waits: boolean): Promise<Handed>
  result(name: string, handed: Handed): Promise<QueueEntry>
  cancel(name: string, id: string): Promise<boolean | undefined>
}

/** Between two jobs, ms. */
const EVERY = 40

/** Jobs that are the same in all producers share a name and what they do; so these are few, and by number. */
const SHARED = 60

/** Hands jobs in for so long, and returns when all that is waited for is settled. */
export async function produce(producer: Producer, seed: number, ms: number): Promise<void> {
  const random = new Random(seed)
  const underWay: Promise<unknown>[] = []
  const end = performance.now() + ms
  for (let number = 0; performance.now() < end; number += 1) {
    underWay.push(one(producer, random, `${process.pid}-${number}`, (number / SHARED) | 0))
    await sleep(random.exponential(EVERY))
  }
  await Promise.all(underWay)
}

async function one(producer: Producer, random: Random, own: string, round: number): Promise<unknown> {
  const kind = random.weighted({
    plain: 4,
    shared: 4,
    failing: 1,
    retried: 2,
    delayed: 2,
    cancelled: 2,
    left: 2,
  })
  const ms = Math.round(random.between(1, 120))
  const single = { dedupe: false } as const
  const retried = { attempts: 3, backoff: 50 }
  switch (kind) {
    case 'plain':
      return producer.submit({ name: `plain ${own}`, ms }, single)
    case 'shared':
      return shared(producer, random, round)
    case 'failing':
      return producer.submit(
        { name: `failing ${own}`, ms, fails: 99 },
        { ...single, ...retried, attempts: 2 },
      )
    case 'retried':
      return producer.submit({ name: `retried ${own}`, ms, fails: 1 }, { ...single, ...retried })
    case 'delayed':
      return producer.submit(
        { name: `delayed ${own}`, ms },
        { ...single, delay: Math.round(random.between(20, 600)) },
      )
    case 'cancelled':
      return cancelled(producer, random, { name: `cancelled ${own}`, ms: 3 * ms })
    case 'left':
      // Nobody waits for it.
      return producer.enqueue({ name: `left ${own}`, ms }, single, false).catch(() => {})
  }
}

/** One that others hand in as well, in this process and in others. Its result is kept for longer than all this takes. */
async function shared(producer: Producer, random: Random, round: number): Promise<unknown> {
  const number = random.below(8)
  const task = { name: `shared ${round}.${number}`, ms: 15 * number }
  if (random.chance(0.4)) return producer.submit(task, {})
  const handed = await producer.enqueue(task, {}, true).catch(() => undefined)
  return handed && producer.result(task.name, handed)
}

async function cancelled(producer: Producer, random: Random, task: Task): Promise<unknown> {
  const handed = await producer.enqueue(task, { dedupe: false }, true).catch(() => undefined)
  if (!handed) return undefined
  const result = producer.result(task.name, handed)
  await sleep(random.between(0, 200))
  await producer.cancel(task.name, handed.id)
  return result
}
