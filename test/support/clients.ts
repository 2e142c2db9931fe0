import { Redis, type RedisOptions } from 'ioredis'
import type { CommandSender } from '../../src/kernel/redis/call.ts'

/** With `replyMapping` the type of the client would differ. */
export type ClientOptions = Omit<RedisOptions, 'replyMapping'>

/** What sends a request by a client of its own, without the care that a Connection takes. */
export function senderOf(client: Redis): CommandSender {
  return { send: (name, args) => client.callBuffer(name, args) }
}

/** The ioredis clients that somebody handed out and closes in the end. */
export class Clients implements Disposable {
  readonly #open = new Set<Redis>()

  /** A client that is connected. It goes on without its errors being heard: a test sees them in its commands. */
  async connect(options: ClientOptions): Promise<Redis> {
    const client = new Redis({ ...options, lazyConnect: true })
    client.on('error', () => {})
    this.#open.add(client)
    await client.connect()
    return client
  }

  [Symbol.dispose](): void {
    for (const client of this.#open) client.disconnect()
    this.#open.clear()
  }
}
