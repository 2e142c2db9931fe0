// A process that ends in good order: it finishes what it can and hands over the rest.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Locker, MemoryStore } from '../src/index.ts'

const { REDIS_URL } = process.env
// Two lockers stand for two processes. Without Redis they share a memory store, as tests do.
const shared = REDIS_URL ? { redis: REDIS_URL } : { store: new MemoryStore() }
const here = new Locker(shared)
await using there = new Locker(shared)
const run = randomUUID() // part of every key, so that a second run does not find the results of the first

process.once('SIGTERM', async () => {
  console.log('SIGTERM: no new requests; what runs has half a second to finish')
  await here.close({ grace: 500 })
  console.log('closed; the process ends by itself, since nothing is left that would keep it alive')
})

/** Asks, and says what came of it. Resolves when the work has begun. */
const answers: Promise<void>[] = []
function begin(key: string, ms: number): Promise<void> {
  return new Promise((begun) => {
    const work = ({ signal }: { signal: AbortSignal }) => {
      begun()
      return sleep(ms, 'finished here', { signal }) // the signal stops it when the grace is over
    }
    const answer = here.run(`${key}:${run}`, work)
    answers.push(
      answer.then(
        (result) => console.log(`${key}: ${result}`),
        (error) => console.log(`${key}: ${error.name}, ${error.message}`),
      ),
    )
  })
}
await begin('short', 200)
await begin('long', 3_600_000)
const successor = there.run(`long:${run}`, () => 'computed there instead')

process.kill(process.pid, 'SIGTERM') // as a supervisor would do
await Promise.all(answers)
console.log(`long, for who waits in another process: ${await successor}`)
