// A bus over three Redis. While it runs, stop one of them, and start it again: the queues of the others do not notice.
//   npx tsx examples/bus.ts --redis redis://localhost:6379,redis://localhost:6380,redis://localhost:6381
// It ends when the lost one is back, or after a minute. In your program: import { Bus } from 'soloflight'
import { setTimeout as sleep } from 'node:timers/promises'
import { Bus, type Queue, UnavailableError } from '../src/index.ts'
import { redisUrlOrExit } from './queue/place.ts'

const ROUNDS = 240
const PAUSE = 250

await using bus = new Bus({ redis: redisUrlOrExit().split(','), unavailableAfter: 500 })
/** The instance that is away; whether one was, and is back. */
let lost: string | undefined
let isOver = false
bus.on('degraded', (instance) => {
  lost = instance
  console.log(`${instance} is away; the bus is ${bus.isOnline() ? 'online' : 'offline'}`)
})
bus.on('restored', (instance) => {
  lost = undefined
  isOver = true
  console.log(`${instance} is back`)
})
await bus.connect()

/** Queues by the name of their instance: each name chooses one. */
const queues = new Map<string, Queue<number>>()
const received = new Map<string, number>()
for (let n = 1; queues.size < 3 && n <= 100; n++) {
  const queue = bus.queue<number>(`queue ${n}`)
  await queue.attach()
  const instance = (await queue.find()) ?? ''
  if (queues.has(instance)) {
    await queue.close()
    continue
  }
  queues.set(instance, queue)
  queue.on('message', () => received.set(instance, (received.get(instance) ?? 0) + 1))
  await queue.consume()
  console.log(`${queue.name} is on ${instance}`)
}
console.log('stop one of them, and start it again')

/** Pushes to each queue. Returns the instances that refused. */
async function pushToAll(): Promise<string[]> {
  const refused: string[] = []
  await Promise.all(
    [...queues].map(async ([instance, queue]) => {
      try {
        await queue.push(Date.now())
      } catch (error) {
        if (!(error instanceof UnavailableError)) throw error
        refused.push(instance)
      }
    }),
  )
  return refused
}

let isTold = false
for (let round = 0; round < ROUNDS; round++) {
  const before = new Map(received)
  const refused = await pushToAll()
  await sleep(PAUSE)
  const arrived = [...queues.keys()].filter((name) => received.get(name) !== before.get(name))
  if (lost !== undefined && !isTold && refused.length === 1 && arrived.length === 2) {
    isTold = true
    console.log(
      `UnavailableError for what is on ${refused}; messages arrive on ${arrived.sort().join(' and ')}`,
    )
  }
  if (isOver && arrived.length === 3) {
    console.log('messages arrive on all three')
    break
  }
}
