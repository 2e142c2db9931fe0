// An answer that comes word by word, as a language model gives it: produced once, read along by everyone, in any process.
// In your program: import { Locker } from 'soloflight'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Locker, MemoryStore } from '../src/index.ts'

const { REDIS_URL } = process.env
// Two lockers stand for two processes. Without Redis they share a memory store, as tests do.
const shared = REDIS_URL ? { redis: REDIS_URL } : { store: new MemoryStore() }
await using here = new Locker(shared)
await using there = new Locker(shared)
const question = `why is the sky blue? ${randomUUID()}` // another key every time, so that nothing is left of the last run

let answers = 0
const texts = new Set<string>()

/** Stands for the call of a model: it is slow, and every call is paid for. */
async function* answer(signal: AbortSignal): AsyncGenerator<string> {
  answers++
  const words = 'Air scatters blue light far more than red, so from everywhere in the sky blue reaches us.'
  for (const word of words.split(' ')) {
    await sleep(80, undefined, { signal })
    yield word
  }
}

/** One user who asks; in a server this would be a request, and each word would be written to its response. */
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
  ask(here, 'Ada  '), // asks first: the answer is produced for her, in this process
  ask(there, 'Grace'), // asks in another process at the same time: reads along
  sleep(800).then(() => ask(there, 'Alan ')), // comes late: at once what was said so far, and then along with the others
])
await ask(here, 'Edsger') // comes when it is over: has all of it at once, until its ttl is over

for (const text of texts) console.log(`\n  ${text}\n`)
console.log(`users: 4, calls of the model: ${answers}, different texts: ${texts.size}`)
