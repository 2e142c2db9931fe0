// What a work shows while it runs reaches all who wait, in any process.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Locker, MemoryStore } from '../src/index.ts'

const { REDIS_URL } = process.env
// Two lockers stand for two processes. Without Redis they share a memory store, as tests do.
const shared = REDIS_URL ? { redis: REDIS_URL } : { store: new MemoryStore() }
await using here = new Locker(shared)
await using there = new Locker(shared)
const run = randomUUID() // part of every key, so that a second run does not find the results of the first

const STEPS = 5
let computations = 0

const bake = (locker: Locker, caller: string) =>
  locker.run(
    `cake:${run}`,
    async ({ progress, signal }) => {
      computations++
      for (let step = 1; step <= STEPS; step++) {
        await sleep(80, undefined, { signal })
        progress({ step, of: STEPS }) // any value that JSON can carry
      }
      return 'cake'
    },
    { onProgress: (shown) => console.log(`${caller} sees ${JSON.stringify(shown)}`) },
  )

const [one, other] = await Promise.all([bake(here, 'here '), bake(there, 'there')])
console.log(`here received ${one}, there ${other}; computations: ${computations}`)
