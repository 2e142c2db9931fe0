// A worker: does jobs until it is told to end. Start several, and examples/producer.ts beside them.
//   npx tsx examples/worker.ts --redis redis://localhost:6379
// In your program: import { RedisQueue } from 'soloflight'
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisQueue } from '../src/index.ts'
import { redisUrlOrExit } from './queue/place.ts'
import { QUEUE, type Reports } from './queue/reports.ts'

const STEPS = 10
const queue = new RedisQueue<Reports>(QUEUE, { redis: redisUrlOrExit() })
const me = `worker ${process.pid}`

queue.process(
  'report',
  async ({ month }, job) => {
    console.log(`${me} begins with month ${month}`)
    for (let step = 1; step <= STEPS; step++) {
      // The signal stops it when the grace is over, or when the job was cancelled or lost.
      await sleep(month * 25, undefined, { signal: job.signal })
      job.progress({ month, step, of: STEPS })
    }
    return `month ${month} by ${me}`
  },
  { concurrency: 2 },
)

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, async () => {
    console.log(`${me}: ${signal}, no new jobs; what runs has half a second to finish`)
    // What is not finished then goes to another worker at once; nobody waits for a lease to end.
    await queue.close({ grace: 500 })
    console.log(`${me} is closed; the process ends by itself`)
  })
}

console.log(`${me} is ready; SIGTERM or Ctrl-C ends it`)
