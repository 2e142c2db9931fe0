import { randomUUID } from 'node:crypto'
import { Redis, type Result } from 'ioredis'
import type { OpenServices } from './services.ts'

declare module 'ioredis' {
  interface RedisCommander<Context> {
    hop(channel: string, message: string): Result<number, Context>
  }
}

const LUA = "return redis.call('PUBLISH', KEYS[1], ARGV[1])"

/** Separates the head of a message from its body. */
const END = '\n'

/**
 * The least that a call through Redis takes: one script publishes the request to the process that serves, one the reply to
 * the process that calls. Nothing is batched, chosen, timed out or taken over.
 */
export const open: OpenServices = async (address, { serves, calls }, answer) => {
  const client = new Redis({ ...address, scripts: { hop: { numberOfKeys: 1, lua: LUA } } })
  const subscriber = new Redis(address)
  const inbox = `two-hops:${randomUUID()}`
  const waiting = new Map<string, (result: unknown) => void>()
  subscriber.on('message', (channel, message) => {
    const end = message.indexOf(END)
    const head = message.slice(0, end)
    const value = JSON.parse(message.slice(end + 1))
    if (channel === inbox) {
      waiting.get(head)?.(value)
      waiting.delete(head)
      return
    }
    const [id, from = ''] = head.split(' ')
    void client.hop(from, id + END + JSON.stringify(answer(value)))
  })
  await subscriber.subscribe(...(calls.length > 0 ? [inbox] : []), ...serves)
  let last = 0
  return {
    call: (service, payload) =>
      new Promise((resolve) => {
        const id = String(++last)
        waiting.set(id, resolve)
        void client.hop(service, `${id} ${inbox}${END}${JSON.stringify(payload)}`)
      }),
  }
}
