// Two people talk over a channel. One of them leaves and comes back: what is written meanwhile waits for him.
//   npx tsx examples/chat.ts                                      Bus objects of this process, nothing else needed
//   npx tsx examples/chat.ts --redis redis://localhost:6379       processes of their own
// In your program: import { Bus } from 'soloflight'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Bus, MemoryBus } from '../src/index.ts'
import { PEOPLE } from './bus/people.ts'
import { redisUrl } from './queue/place.ts'

/** Bus objects that share a memory store stand for processes, as in tests. */
async function inOneProcess(): Promise<void> {
  const store = new MemoryBus()
  const live = async (be: (bus: Bus) => Promise<void>) => {
    await using bus = new Bus({ store })
    await be(bus)
  }
  await Promise.all(Object.values(PEOPLE).map(live))
}

async function inSeveralProcesses(redis: string): Promise<void> {
  const file = fileURLToPath(new URL('./bus/person.ts', import.meta.url))
  const start = (PERSON: string) => fork(file, { env: { ...process.env, REDIS_URL: redis, PERSON } })
  await Promise.all(Object.keys(PEOPLE).map((person) => once(start(person), 'exit')))
}

const redis = redisUrl()
await (redis === undefined ? inOneProcess() : inSeveralProcesses(redis))
