// An answer that arrives word by word, as from a language model: produced once, read by every caller in any process.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Locker, MemoryStore } from '../src/index.ts'

const { REDIS_URL } = process.env
// Two lockers stand for two processes. Without Redis they share a memory store, as tests do.
const shared = REDIS_URL ? { redis: REDIS_URL } : { store: new MemoryStore() }
await using here = new Locker(shared)
await using there = new Locker(shared)
const question = `why is the sky blue? ${randomUUID()}` // a new key for every run, so that no earlier stream is replayed

let answers = 0
const texts = new Set<string>()

/** Stands for the call of a model, which is slow and costs money. */
async function* answer(signal: AbortSignal): AsyncGenerator<string> {
  answers++
  const words = 'Air scatters blue light far more than red, so from everywhere in the sky blue reaches us.'
  for (const word of words.split(' ')) {
    await sleep(80, undefined, { signal })
    yield word
  }
}

/** One user. In a server this would be a request, and each word would be written to its response. */
async function ask(locker: Locker, who: string): Promise<void> {
  const since = performance.now()
  const received: string[] = []
  for await (const word of locker.stream(question, ({ signal }) => answer(signal))) {
    received.push(word)
    if (received.length === 1) console.log(`${who} has the first word after ${elapsed(since)}`)
  }
  console.log(`${who} has all ${received.length} words after ${elapsed(since)}`)
  texts.add(received.join(' '))
}

function elapsed(since: number): string {
  return `${Math.round(performance.now() - since)} ms`
}

await Promise.all([
  ask(here, 'Ada  '), // first: the answer is produced in this process
  ask(there, 'Grace'), // at the same time in another process: reads the same answer
  sleep(800).then(() => ask(there, 'Alan ')), // late: receives the earlier words at once, then the others live
])
await ask(here, 'Edsger') // after the end: receives all words at once, until the ttl has passed

for (const text of texts) console.log(`\n  ${text}\n`)
console.log(`users: 4, calls of the model: ${answers}, different texts: ${texts.size}`)
