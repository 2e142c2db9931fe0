// A function that does its work once per key, however many call it.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { Locker } from '../src/index.ts'

const { REDIS_URL } = process.env
await using locker = new Locker(REDIS_URL ? { redis: REDIS_URL } : {})
const run = randomUUID() // part of every key, so that a second run does not find the results of the first

let computations = 0
function countPrimes(below: number): number {
  computations++
  const composite = new Uint8Array(below)
  let count = 0
  for (let n = 2; n < below; n++) {
    if (composite[n]) continue
    count++
    for (let multiple = n * n; multiple < below; multiple += n) composite[multiple] = 1
  }
  return count
}

const primes = locker.memoize(countPrimes, { key: (below) => `primes:${run}:${below}`, ttl: 60_000 })

const answers = await Promise.all([1e6, 1e6, 1e6, 2e6, 2e6, 2e6].map((below) => primes(below)))
console.log(`6 calls for 2 different numbers: ${answers.join(', ')}`)
console.log(`computations: ${computations}`)

const began = performance.now()
await primes(2e6)
console.log(`a later call took ${(performance.now() - began).toFixed(2)} ms; computations: ${computations}`)
