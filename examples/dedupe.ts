// Several processes submit the same job at the same moment: it runs once, and all receive the result.
//   npx tsx examples/dedupe.ts                                      queues in this process, nothing else needed
//   npx tsx examples/dedupe.ts --redis redis://localhost:6379       processes of their own
// In your program: import { RedisQueue } from 'soloflight'
import { type ChildProcess, fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { MemoryQueueStore } from '../src/index.ts'
import { openPages, submitLate, submitTogether } from './queue/pages.ts'
import { redisUrl } from './queue/place.ts'

const COUNT = 4
const run = randomUUID() // part of the job, so that a second run does not find the result of the first

/** Queues that share a memory store stand for processes, as in tests. */
async function inOneProcess(): Promise<void> {
  const store = new MemoryQueueStore()
  const names = Array.from({ length: COUNT }, (_, index) => `queue ${index + 1}`)
  const queues = names.map((name) => openPages({ store }, name))
  await Promise.all(queues.map((queue, index) => submitTogether(queue, names[index] ?? '', run)))
  if (queues[0]) await submitLate(queues[0], run)
  await Promise.all(queues.map((queue) => queue.close()))
}

/** Tells all processes to go on, and waits until each has answered in its own way. */
async function told(processes: readonly ChildProcess[], answer: 'message' | 'exit'): Promise<void> {
  await Promise.all(
    processes.map((one) => {
      one.send('go on')
      return once(one, answer)
    }),
  )
}

async function inSeveralProcesses(redis: string): Promise<void> {
  const file = fileURLToPath(new URL('./queue/submitter.ts', import.meta.url))
  const env = { ...process.env, REDIS_URL: redis, RUN: run }
  const processes = Array.from({ length: COUNT }, () => fork(file, { env }))
  await Promise.all(processes.map((one) => once(one, 'message')))
  await told(processes, 'message')
  await using queue = openPages({ redis }, `process ${process.pid}`)
  await submitLate(queue, run)
  await told(processes, 'exit')
}

const redis = redisUrl()
await (redis === undefined ? inOneProcess() : inSeveralProcesses(redis))
