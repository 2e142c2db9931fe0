// Calls to services of another connection: results, failures, retries, streams, shared runs, broadcasts, messages.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { MemoryServices, Services } from 'soloflight/services'

const redis = process.env['REDIS_URL'] ?? ''

for (const options of [{ store: new MemoryServices() }, { redis, prefix: `smoke-${process.pid}` }]) {
  const serving = new Services(options)
  const calling = new Services(options)
  let runs = 0
  const numbers = await serving.register('numbers', { capacity: 50, backlog: 100 })
  numbers
    .on('double', async (number) => {
      runs += 1
      await new Promise((resolve) => setTimeout(resolve, 10))
      return number * 2
    })
    .on('callback', (number, call) => call(null, number, number + 1))
    .on('fail', () => {
      throw Object.assign(new Error('no'), { code: 'E_NO' })
    })
    .on('count', async function* (end) {
      for (let number = 0; number < end; number++) yield number
    })
  const remote = calling.require('numbers')
  const results = await Promise.all(Array.from({ length: 100 }, (_, number) => remote.emit('double', number)))
  assert.deepEqual(
    results,
    Array.from({ length: 100 }, (_, number) => number * 2),
  )
  assert.equal(runs, 100)
  assert.deepEqual(await remote.emit('callback', 1), [1, 2])
  await assert.rejects(remote.emit('fail'), { code: 'E_REMOTE', message: 'no', ran: 'yes' })
  await assert.rejects(remote.pemit(3, 'none'), { code: 'E_UNKNOWN_EVENT', ran: 'no' })

  const shared = remote.with({ dedupe: true })
  const same = Array.from({ length: 10 }, () => shared.emit('double', 1000))
  assert.deepEqual(await Promise.all(same), Array(10).fill(2000))
  assert.equal(runs, 101)

  const chunks = []
  for await (const chunk of remote.stream('count', 200)) chunks.push(chunk)
  assert.deepEqual(
    chunks,
    Array.from({ length: 200 }, (_, number) => number),
  )
  for await (const answer of remote.broadcast('double', 1))
    assert.deepEqual(answer, { id: serving.id, result: 2 })

  await numbers.set('limit', 5)
  assert.equal(await remote.get('limit'), 5)
  const received = once(serving, 'message')
  assert.equal(await calling.send(serving.id, 'hello'), true)
  assert.deepEqual(await received, [calling.id, 'hello'])
  await serving.close()
  await assert.rejects(remote.emit('double', 1), { code: 'E_NO_SERVICE', ran: 'no' })
  await calling.close()
}
