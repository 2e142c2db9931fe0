// A producer: hands jobs in, and waits for their results, whichever workers make them and whatever becomes of these.
//   npx tsx examples/producer.ts --redis redis://localhost:6379
// In your program: import { RedisQueue } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { RedisQueue } from '../src/index.ts'
import { redisUrlOrExit } from './queue/place.ts'
import { QUEUE, type Reports } from './queue/reports.ts'

const run = randomUUID() // part of every job: so a second run makes its own
await using queue = new RedisQueue<Reports>(QUEUE, { redis: redisUrlOrExit() })

const months = Array.from({ length: 8 }, (_, index) => index + 1)
const jobs = await queue.enqueueMany(
  // The short ones first; a report of the same run and month is made once, however often it is asked for.
  months.map((month) => ({
    command: 'report' as const,
    payload: { run, month },
    options: { priority: 100 - month },
  })),
)
console.log(`${jobs.length} jobs are handed in: ${jobs.map(({ disposition }) => disposition).join(', ')}`)

const results = jobs.map(async (job, index) => {
  const result = await job.result()
  const { retries = 0, stalls = 0 } = (await job.status()) ?? {}
  console.log(`report ${index + 1}: ${result}; retries ${retries}, stalls ${stalls}`)
})
await Promise.all(results)
console.log('all reports are there')
