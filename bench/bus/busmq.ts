import { type EventEmitter, once } from 'node:events'
import { createRequire } from 'node:module'
import type { OpenBus } from './bus.ts'
import type { Message } from './messages.ts'

/** What the bench uses of it, stated here so that the repository type-checks without its being installed. */
interface Busmq {
  create(options: { redis: readonly string[] }): Bus
}

interface Bus extends EventEmitter {
  connect(): void
  queue(name: string): Queue
  pubsub(name: string): Pubsub
  service(name: string): { serve(done: () => void): void }
}

interface Queue extends EventEmitter {
  attach(): void
  push(message: Message, done: (error: unknown) => void): void
  consume(options: { max: number; reliable: boolean }): void
  stop(): void
  ack(id: number): void
}

interface Pubsub extends EventEmitter {
  subscribe(): void
  publish(message: Message, done: (error?: unknown) => void): void
}

/** It has a package of its own: it goes with older clients than the others. */
const require = createRequire(new URL('../peers/busmq/package.json', import.meta.url))

/** With its defaults: `consume` without an end, over its default client, which is the faster one of its two. */
export const open: OpenBus = async (servers) => {
  const { create }: Busmq = require('busmq')
  const bus = create({ redis: servers.map(({ host, port }) => `redis://${host}:${port}`) })
  await eventAfter(bus, 'online', () => bus.connect())
  const attached = async (name: string) => {
    const queue = bus.queue(name)
    await eventAfter(queue, 'attached', () => queue.attach())
    return queue
  }
  return {
    sender: async ({ name, via }) => {
      if (via === 'pubsub') {
        const pubsub = bus.pubsub(name)
        return (message) => done((callback) => pubsub.publish(message, callback))
      }
      const queue = await attached(name)
      return (message) => done((callback) => queue.push(message, callback))
    },
    receiver: async ({ name, via, reliable, kind }, hear) => {
      // It hands objects over as JSON.
      const receive = kind === 'strings' ? hear : (message: string) => hear(JSON.parse(message))
      if (via === 'pubsub') {
        const pubsub = bus.pubsub(name).on('message', receive)
        await eventAfter(pubsub, 'subscribed', () => pubsub.subscribe())
        return {}
      }
      const queue = await attached(name)
      queue.on('message', (message: string, id: number) => {
        receive(message)
        // It tells nobody when a message is acknowledged.
        if (reliable) queue.ack(id)
      })
      const consume = () => queue.consume({ max: -1, reliable })
      await eventAfter(queue, 'consuming', consume)
      return {
        restart: async () => {
          queue.stop()
          consume()
        },
      }
    },
    serve: (name) => new Promise<void>((resolve) => bus.service(name).serve(resolve)),
  }
}

/** Resolves at the event that an act leads to; rejects at an error. */
async function eventAfter(emitter: EventEmitter, event: string, act: () => void): Promise<void> {
  const emitted = once(emitter, event)
  act()
  await emitted
}

function done(act: (callback: (error: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    act((error) => (error ? reject(error) : resolve()))
  })
}
