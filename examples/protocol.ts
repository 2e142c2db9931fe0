// The protocol by hand: request, then publish, fail or release.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { type Lease, Locker } from '../src/index.ts'

const { REDIS_URL } = process.env
await using locker = new Locker(REDIS_URL ? { redis: REDIS_URL } : {})
const run = randomUUID() // part of every key, so that a second run does not find the results of the first

// A database of yours. It remembers the highest fence it has seen, and refuses a writer that was superseded.
const row = { text: '', fence: 0 }
function write(text: string, fence: number): void {
  if (fence < row.fence) throw new Error(`"${text}" is refused: its fence is older`)
  Object.assign(row, { text, fence })
}

async function lock(key: string): Promise<Lease> {
  const ticket = await locker.request(key)
  if (ticket.status !== Locker.LOCKED) throw new Error('there is a result already')
  return ticket
}

console.log('publish: the first is the processor, all others receive what it publishes')
async function ask(caller: string): Promise<void> {
  const ticket = await locker.request<string>(`report:${run}`)
  if (ticket.status === Locker.LOCKED) {
    const report = `a report made by ${caller}`
    write(report, ticket.fence)
    await ticket.publish(report) // or locker.publish(key, report)
  } else {
    console.log(`  ${caller} received ${ticket.result}`)
  }
}
await Promise.all(['Ann', 'Bob', 'Cyd'].map(ask))

console.log('fail: all others receive the error')
const failing = await lock(`failing:${run}`)
const waiting = lock(`failing:${run}`).catch((error) => console.log(`  ${error.name}: ${error.message}`))
await failing.fail(new Error('no data today'))
await waiting

console.log('release: the next one is the processor, with a higher fence')
let former: Lease
{
  await using lease = await lock(`released:${run}`) // leaving this scope unsettled releases it
  former = lease
}
const present = await lock(`released:${run}`)
console.log(`  the fence grew: ${present.fence > former.fence}`)
write('written by the present holder', present.fence)
try {
  write('written by the former holder', former.fence)
} catch (error) {
  console.log(`  ${error instanceof Error ? error.message : error}`)
}
await former.publish('too late').catch((error) => console.log(`  ${error.name}: ${error.message}`))
await present.publish('done')
console.log(`  the row says: ${row.text}`)
