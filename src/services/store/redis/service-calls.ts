import { FORMAT, keySegment } from '../../../kernel/keys.ts'
import type { Script } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { refusedError } from '../../../kernel/redis/diagnosis.ts'

export type Argument = string | Buffer

/** The Redis keys of a service. All have the same hash tag, so they are in one slot. */
export class ServiceKeys {
  /** The name as JSON: scripts put it into announcements. */
  readonly name: string
  /** Prefix of all keys. No key of a Locker or queue has it: there, a letter and a slash, or a brace, follow the format number. */
  readonly #base: string
  /** As the scripts take them: leases, processes with room, loads, infos, settings. */
  readonly all: readonly string[]

  constructor(prefix: string, service: string) {
    this.name = JSON.stringify(service)
    this.#base = `${prefix}:${FORMAT}:s{${keySegment(service)}}`
    this.all = ['L', 'F', 'P', 'I', 'V'].map((letter) => this.#base + letter)
  }

  /** The key of the reply to the last batch of `sender` with this slot. */
  reply(sender: string, slot: number): string {
    return `${this.#base}r/${sender}/${slot}`
  }
}

/** The keys of so many services are cached. */
const MAX_CACHED_SERVICES = 1000

/** Calls the scripts of services: adds the KEYS and ARGV that each of them begins with. */
export class ServiceCalls {
  readonly connection: Connection
  readonly #prefix: string
  readonly #services = new Map<string, ServiceKeys>()

  constructor(connection: Connection, prefix: string) {
    this.connection = connection
    this.#prefix = prefix
  }

  keys(service: string): ServiceKeys {
    const cached = this.#services.get(service)
    if (cached) return cached
    const keys = new ServiceKeys(this.#prefix, service)
    if (this.#services.size < MAX_CACHED_SERVICES) this.#services.set(service, keys)
    return keys
  }

  /** The ARGV that each script begins with. */
  head(): string[] {
    const { inboxPrefix, cluster, broadcastChannel } = this.connection
    return [inboxPrefix, cluster ? '1' : '0', broadcastChannel, this.#prefix]
  }

  /** Calls a script about one service. */
  call(script: Script, service: string, args: readonly Argument[], within: number): Promise<unknown> {
    const { all, name } = this.keys(service)
    return this.connection.call(script.with(all, [...this.head(), name, ...args]), within)
  }

  /** Calls a script about several services for a process. Resolves with the error of each. */
  async callForEach<Item extends { readonly service: string }>(
    script: Script,
    process: string,
    items: readonly Item[],
    argsOf: (item: Item) => readonly Argument[],
    within: number,
  ): Promise<(Error | undefined)[]> {
    const keys: string[] = []
    const args: Argument[] = [...this.head(), process]
    for (const item of items) {
      const { all, name } = this.keys(item.service)
      keys.push(...all)
      args.push(name, ...argsOf(item))
    }
    try {
      const reply = await this.connection.call(script.with(keys, args), within)
      return (reply as unknown[]).map((failure) =>
        String(failure) === '' ? undefined : refusedError(failure),
      )
    } catch (error) {
      return items.map(() => error as Error)
    }
  }
}
