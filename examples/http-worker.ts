// A worker over HTTP: takes numbers from a queue of a gateway, and finishes each with its square. SIGTERM ends it after its job.
//   TOKEN=secret npx tsx examples/http-worker.ts http://127.0.0.1:5000 squares
// In your program: import { HttpWorker } from 'soloflight/worker'
import { HttpWorker } from '../src/worker/index.ts'

const [url = 'http://127.0.0.1:5000', queue = 'squares'] = process.argv.slice(2)

const worker = new HttpWorker<number, number>({
  url,
  queues: queue,
  token: process.env['TOKEN'],
  concurrency: 4,
  logger: console,
  stopOn: ['SIGTERM', 'SIGINT'],
  work(number, { log }) {
    if (typeof number !== 'number') throw new TypeError('not a number')
    log(`${number} is multiplied by itself`)
    return number * number
  },
  fail: (job, reason) => console.error('given up:', job, String(reason)),
})

await worker.run()
