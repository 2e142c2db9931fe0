// One producer, readers on two connections, and one that comes when all is over.

import assert from 'node:assert/strict'
import { Locker } from 'soloflight'

const redis = process.env['REDIS_URL'] ?? ''
const CHUNKS = 200

for (const options of [{}, { redis, prefix: `smoke-${process.pid}` }]) {
  const here = new Locker(options)
  const there = 'redis' in options ? new Locker(options) : here
  let runs = 0
  const source = async function* () {
    runs += 1
    for (let index = 0; index < CHUNKS; index += 1) {
      yield { index }
      if (index % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  /** @param {Locker} locker */
  const read = async (locker) => {
    const indices = []
    for await (const { index } of locker.stream('chunks', source)) indices.push(index)
    return indices
  }
  const expected = Array.from({ length: CHUNKS }, (_, index) => index)
  for (const indices of await Promise.all([here, there, here, there].map(read))) {
    assert.deepEqual(indices, expected)
  }
  assert.deepEqual(await read(there), expected)
  assert.equal(runs, 1)
  await here.close({ grace: 0 })
  await there.close({ grace: 0 })
}
