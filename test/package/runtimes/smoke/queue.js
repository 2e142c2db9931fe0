// Jobs of a producer run by a worker on another connection: results, failures, retries, deduplication, cancelling.

import assert from 'node:assert/strict'
import { RedisQueue } from 'soloflight/queue'

const redis = process.env['REDIS_URL'] ?? ''

for (const options of [{}, { redis, prefix: `smoke-${process.pid}` }]) {
  const producer = new RedisQueue('jobs', options)
  const worker = 'redis' in options ? new RedisQueue('jobs', options) : producer
  let runs = 0
  worker.process(
    'double',
    async ({ number }, job) => {
      runs += 1
      job.progress('half')
      await new Promise((resolve) => setTimeout(resolve, 10))
      return { double: number * 2 }
    },
    { concurrency: 10 },
  )
  worker.process('fail', (_, { attempt }) => {
    throw Object.assign(new Error(`attempt ${attempt}`), { code: 'E_NO' })
  })

  const results = await Promise.all(
    Array.from({ length: 50 }, (_, number) => producer.submit('double', { number })),
  )
  assert.deepEqual(
    results,
    Array.from({ length: 50 }, (_, number) => ({ double: number * 2 })),
  )
  assert.equal(runs, 50)

  const same = Array.from({ length: 10 }, () => producer.submit('double', { number: 1000 }))
  assert.deepEqual(await Promise.all(same), Array(10).fill({ double: 2000 }))
  assert.equal(runs, 51)

  const failing = producer.submit('fail', {}, { attempts: 2, backoff: 10 })
  await assert.rejects(failing, { code: 'E_REMOTE', message: 'attempt 2' })

  const delayed = await producer.submit('double', { number: 7 }, { delay: 50 })
  assert.deepEqual(delayed, { double: 14 })
  assert.equal((await producer.counts()).active, 0)
  await worker.close()
  await producer.close()
}
