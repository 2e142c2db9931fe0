// Forgetting results that are no longer true, in every process.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Locker, MemoryStore } from '../src/index.ts'

const { REDIS_URL } = process.env
// Two lockers stand for two processes. Without Redis they share a memory store, as tests do.
const shared = REDIS_URL ? { redis: REDIS_URL } : { store: new MemoryStore() }
await using here = new Locker(shared)
// `cache: false`: asks the store every time, and so sees an invalidation the moment that it is acknowledged. With the
// cache it may serve what it has until the message arrives, which takes about a millisecond.
await using there = new Locker({ ...shared, cache: false })
const key = `price:${randomUUID()}`

let price = 100 // a table in your database
const read = async () => {
  const seen = price
  await sleep(50)
  return seen
}
const show = async (when: string) => {
  const [a, b] = [await here.run(key, read), await there.run(key, read)]
  console.log(`${when}: here ${a}, there ${b}`)
}

await show('at first')
price = 120
await show('changed, but cached')
await here.invalidate(key)
await show('invalidated')

price = 140
console.log(`refreshed: here ${await here.run(key, read, { refresh: true })}`)
await show('after that')

price = 160
await here.invalidate(key)
let begun = () => {}
const beginning = new Promise<void>((resolve) => (begun = resolve))
const early = here.run(key, () => {
  begun()
  return read() // reads 160, and is on its way …
})
await beginning
price = 180
await there.invalidate(key) // … when this dooms it
const late = there.run(key, read)
console.log(`invalidated meanwhile: who waited before received ${await early}, who asked after ${await late}`)
