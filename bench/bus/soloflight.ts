import { libraryPart } from '../library.ts'
import type { OpenBus } from './bus.ts'
import type { Message } from './messages.ts'

export const open: OpenBus = async (servers) => {
  const [{ Bus }, { Services }] = await Promise.all([libraryPart('bus/index'), libraryPart('services/index')])
  const bus = new Bus({ redis: [...servers] })
  await bus.connect()
  /** One for each connection. */
  const served = new Map<object, InstanceType<typeof Services>>()
  return {
    sender: async ({ name, via }) => {
      if (via === 'pubsub') {
        const pubsub = bus.pubsub<Message>(name)
        return (message) => pubsub.publish(message)
      }
      const queue = bus.queue<Message>(name)
      await queue.attach()
      return (message) => queue.push(message)
    },
    receiver: async ({ name, via, reliable, prefetch }, hear) => {
      if (via === 'pubsub') {
        const pubsub = bus.pubsub<Message>(name)
        pubsub.on('message', (message: Message) => hear(message))
        await pubsub.subscribe()
        return {}
      }
      const queue = bus.queue<Message>(name)
      let acknowledged: Promise<void> | undefined
      queue.on('message', (message: Message, id: number) => {
        hear(message)
        if (reliable) acknowledged = queue.ack(id)
      })
      await queue.attach()
      await queue.consume({ reliable, prefetch })
      return {
        restart: async () => {
          await acknowledged
          await queue.stop()
          await queue.consume({ reliable, prefetch })
        },
      }
    },
    serve: async (name) => {
      const connection = await bus.connection(name)
      const services = served.get(connection) ?? new Services({ redis: connection })
      served.set(connection, services)
      await services.register(name)
    },
  }
}
