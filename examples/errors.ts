// What a caller may be told instead of a result, and how to tell it apart.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { AbortedError, Locker, RemoteError, SoloflightError, TimeoutError } from '../src/index.ts'

const { REDIS_URL } = process.env
await using locker = new Locker(REDIS_URL ? { redis: REDIS_URL } : {})
const run = randomUUID() // part of every key, so that a second run does not find the results of the first

function show(error: unknown): void {
  if (error instanceof RemoteError) {
    // The work failed, here or in another process. What it threw arrives as data, its own fields and cause too.
    const { name, message, code } = error.remote
    console.log(`  RemoteError: ${message} (${name}, ${code})`)
  } else if (error instanceof TimeoutError || error instanceof AbortedError) {
    // Only this caller waits no longer; the work goes on.
    console.log(`  ${error.name}: ${error.message}`)
  } else if (error instanceof SoloflightError) {
    console.log(`  ${error.code}: ${error.message}`) // one of the others: Redis is away, the locker was closed …
  } else {
    throw error // a TypeError, for an argument that cannot be right
  }
}

console.log('a work that fails: one attempt, and all who wait are told')
let attempts = 0
const charge = () =>
  locker.run(`charge:${run}`, () => {
    attempts++
    throw Object.assign(new Error('card declined'), { code: 'E_CARD' })
  })
await Promise.all([charge().catch(show), charge().catch(show), charge().catch(show)])
console.log(`  attempts: ${attempts}`)

console.log('callers that do not want to wait so long')
const slow = (options?: { timeout?: number; signal?: AbortSignal }) =>
  locker.run(`slow:${run}`, () => sleep(300, 'the result'), options)
const patient = slow()
await Promise.all([slow({ timeout: 50 }).catch(show), slow({ signal: AbortSignal.timeout(100) }).catch(show)])
console.log(`  who kept waiting receives ${await patient}`)

console.log('a result that cannot be carried unchanged')
await locker.run(`date:${run}`, () => ({ at: new Date() })).catch(show)
