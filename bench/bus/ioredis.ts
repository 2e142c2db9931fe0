import { Redis } from 'ioredis'
import type { OpenBus, Route } from './bus.ts'

/** PUBLISH and SUBSCRIBE of Redis as ioredis has them: objects go as JSON. It has no queues. */
export const open: OpenBus = async (servers) => {
  const [server = {}] = servers
  const client = new Redis(server)
  const subscriber = new Redis(server)
  return {
    sender: async (route) => {
      const channel = channelOf(route)
      return (message) =>
        client.publish(channel, typeof message === 'string' ? message : JSON.stringify(message))
    },
    receiver: async (route, hear) => {
      const channel = channelOf(route)
      subscriber.on('message', (from, message) => {
        if (from === channel) hear(route.kind === 'strings' ? message : JSON.parse(message))
      })
      await subscriber.subscribe(channel)
      return {}
    },
  }
}

function channelOf({ name, via }: Route): string {
  if (via !== 'pubsub') throw new Error('Expected pub/sub: Redis has no queues of a bus')
  return name
}
