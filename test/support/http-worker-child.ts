import { setTimeout as sleep } from 'node:timers/promises'
import { HttpWorker } from '../../src/worker/index.ts'

// A worker in a process of its own, which takes jobs of the gateway whose URL is its argument until SIGTERM, and ends by itself
// then. A job is how long it takes, ms.

const [url = '', grace = '30000'] = process.argv.slice(2)

const worker = new HttpWorker<number, string>({
  ...{
    url,
    queues: ['jobs', 'more'],
    concurrency: 2,
    interval: 300,
    grace: Number(grace),
    stopOn: ['SIGTERM'],
  },
  logger: console,
  async work(ms, { signal }) {
    console.log(`begins ${ms}`)
    await sleep(ms, undefined, { signal })
    return `${ms} by ${process.pid}`
  },
})

console.log('takes jobs')
await worker.run()
console.log(`has stopped: ${JSON.stringify(worker.stats())}`)
