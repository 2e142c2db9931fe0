import { FORMAT } from '../../../kernel/keys.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { type ListedQueues, MAX_QUEUES, REGISTER_TTL } from '../register.ts'
import { ADD_QUEUE, LIST_QUEUES, REMOVE_QUEUE } from './scripts/register.ts'
import { toText } from './wire.ts'

/** The register of the queues of a prefix: their names, by the time of their last use. In no queue's slot of a cluster. */
export class QueueRegister {
  readonly #connection: Connection
  readonly #key: string

  constructor(connection: Connection, prefix: string) {
    this.#connection = connection
    this.#key = `${prefix}:${FORMAT}:queues`
  }

  async add(queue: string, within: number): Promise<void> {
    const args = [queue, String(REGISTER_TTL), String(MAX_QUEUES)]
    await this.#connection.call(ADD_QUEUE.with([this.#key], args), within)
  }

  async remove(queue: string, within: number): Promise<void> {
    await this.#connection.call(REMOVE_QUEUE.with([this.#key], [queue]), within)
  }

  /** The names, the last used first. */
  async list(limit: number, within: number): Promise<ListedQueues> {
    const request = LIST_QUEUES.with([this.#key], [String(REGISTER_TTL), String(limit)])
    const [count, names] = (await this.#connection.call(request, within)) as [unknown, unknown[]]
    return { count: Number(count), names: names.map(toText) }
  }
}
