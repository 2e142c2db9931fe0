import { newId } from '../../../../kernel/keys.ts'
import type { Request, Script } from '../../../../kernel/redis/call.ts'
import type { Connection } from '../../../../kernel/redis/connection.ts'
import { CountedRequest } from '../../../../kernel/redis/once.ts'
import type {
  AttachReply,
  AttachRequest,
  ConsumeRequest,
  Detached,
  LeaveRequest,
  Lost,
  Pushed,
  PushRequest,
  QueueInfo,
  QueueListener,
  QueueStore,
  Read,
  Renewal,
  RenewalReply,
  Taken,
  TakeRequest,
} from '../../store.ts'
import { QueueKeys } from './queue-keys.ts'
import { type BusQueueScripts, busQueueScripts } from './scripts/index.ts'
import {
  encodeFlag,
  encodeIds,
  encodeMessages,
  encodeNumber,
  parseAttachReply,
  parseConsumeReply,
  parseInspectReply,
  parseMetadata,
  parsePushReply,
  parseReadReply,
  parseRenewalReply,
  parseSignal,
  parseTakeReply,
  parseWriteReply,
} from './wire.ts'

/** For tests. */
export interface RedisQueueStoreOptions {
  scripts?: BusQueueScripts
}

type Argument = string | Buffer

/** Queues that one script renews at most. It blocks the server, so it must be short. */
const MAX_RENEWALS = 50

/** The keys of so many queues are cached. */
const MAX_CACHED_QUEUES = 1000

/** The records of queues on Redis: each transition is one script, on keys of one slot. */
export class RedisQueueStore implements QueueStore {
  readonly #connection: Connection
  readonly #prefix: string
  readonly #scripts: BusQueueScripts
  readonly #keys = new Map<string, QueueKeys>()

  constructor(connection: Connection, prefix: string, options: RedisQueueStoreOptions = {}) {
    this.#connection = connection
    this.#prefix = prefix
    this.#scripts = options.scripts ?? busQueueScripts
  }

  listen(listener: QueueListener): { readonly address: string; end(): void } {
    const { inbox } = this.#connection
    const nonce = newId()
    inbox.listen(nonce, {
      hint: (hint) => {
        const signal = parseSignal(hint)
        if (signal) listener.onSignal(signal)
      },
    })
    const unlisten = this.#connection.listen({
      up: () => listener.onUp(),
      down: () => {},
      broadcast: () => {},
    })
    const end = () => {
      inbox.ignore(nonce)
      unlisten()
    }
    return { address: inbox.id + nonce, end }
  }

  async attach(queue: string, request: AttachRequest, within: number): Promise<AttachReply> {
    const { address, ttl, maxsize, life, token, attachedTo, watchesHolder } = request
    const { all, reservation } = this.#keysOf(queue)
    const numbers = [encodeNumber(ttl), encodeNumber(maxsize)]
    const args = [address, ...numbers, life, token, attachedTo, encodeFlag(watchesHolder)]
    return parseAttachReply(await this.#run(this.#scripts.attach, [...all, reservation], args, within))
  }

  async detach(queue: string, address: string, within: number): Promise<void> {
    await this.#call(this.#scripts.detach, queue, [address], within)
  }

  async renew(renewals: readonly Renewal[], within: number): Promise<readonly (RenewalReply | Error)[]> {
    // On a cluster, the keys of one script must be in one slot.
    const size = this.#connection.cluster ? 1 : MAX_RENEWALS
    const batches: Promise<(RenewalReply | Error)[]>[] = []
    for (let from = 0; from < renewals.length; from += size)
      batches.push(this.#renew(renewals.slice(from, from + size), within))
    return (await Promise.all(batches)).flat()
  }

  async #renew(renewals: readonly Renewal[], within: number): Promise<(RenewalReply | Error)[]> {
    const keys = renewals.flatMap(({ queue }) => this.#keysOf(queue).all)
    const addresses = renewals.map(({ address }) => address)
    try {
      const replies = (await this.#run(this.#scripts.renew, keys, addresses, within)) as unknown[]
      return renewals.map((_, index) => parseRenewalReply(replies[index]))
    } catch (error) {
      return renewals.map(() => error as Error)
    }
  }

  async push(queue: string, request: PushRequest, within: number): Promise<Pushed | Detached> {
    const { address, number, messages, awaitsRoom } = request
    const head = [address, encodeNumber(number), encodeFlag(awaitsRoom)]
    const args = [...head, ...encodeMessages(messages)]
    const counted = new CountedRequest(this.#request(this.#scripts.push, this.#keysOf(queue).all, args))
    const reply = parsePushReply(await this.#connection.call(counted, within))
    return reply.kind === 'detached' && counted.sent > 1 ? { ...reply, isRepeated: true } : reply
  }

  async consume(queue: string, request: ConsumeRequest, within: number): Promise<boolean | Detached> {
    const { address, lease, reliable, exclusive, last } = request
    const flags = [encodeFlag(reliable), encodeFlag(exclusive)]
    const args = [address, encodeNumber(lease), ...flags, encodeNumber(last)]
    return parseConsumeReply(await this.#call(this.#scripts.consume, queue, args, within))
  }

  async take(queue: string, request: TakeRequest, within: number): Promise<Taken | Lost | Detached> {
    const { address, acked, have, want } = request
    const args = [address, encodeNumber(have), encodeNumber(want), encodeIds(acked)]
    return parseTakeReply(await this.#call(this.#scripts.take, queue, args, within))
  }

  async leave(queue: string, request: LeaveRequest, within: number): Promise<void> {
    const { address, acked, unhanded } = request
    const args = [address, encodeIds(acked), encodeIds(unhanded)]
    await this.#call(this.#scripts.leave, queue, args, within)
  }

  async read(
    queue: string,
    address: string,
    after: number,
    want: number,
    within: number,
  ): Promise<Read | Detached> {
    const args = [address, encodeNumber(after), encodeNumber(want)]
    return parseReadReply(await this.#call(this.#scripts.read, queue, args, within))
  }

  async inspect(queue: string, within: number): Promise<QueueInfo | undefined> {
    return parseInspectReply(await this.#call(this.#scripts.inspect, queue, [], within))
  }

  async flush(queue: string, within: number): Promise<number> {
    return Number(await this.#call(this.#scripts.flush, queue, [], within)) || 0
  }

  async remove(queue: string, address: string, within: number): Promise<boolean> {
    return Number(await this.#call(this.#scripts.remove, queue, [address], within)) === 1
  }

  async readMetadata(
    queue: string,
    names: readonly string[] | undefined,
    within: number,
  ): Promise<Map<string, Buffer>> {
    if (names?.length === 0) return new Map()
    const args = (names ?? []).map((name) => JSON.stringify(name))
    return parseMetadata(await this.#call(this.#scripts.readMetadata, queue, args, within))
  }

  async writeMetadata(
    queue: string,
    entries: ReadonlyMap<string, Buffer>,
    within: number,
  ): Promise<'written' | 'none' | 'full'> {
    const args: Argument[] = []
    for (const [name, bytes] of entries) args.push(JSON.stringify(name), bytes)
    return parseWriteReply(await this.#call(this.#scripts.writeMetadata, queue, args, within))
  }

  #keysOf(queue: string): QueueKeys {
    const cached = this.#keys.get(queue)
    if (cached) return cached
    const keys = new QueueKeys(this.#prefix, queue)
    if (this.#keys.size < MAX_CACHED_QUEUES) this.#keys.set(queue, keys)
    return keys
  }

  #call(script: Script, queue: string, args: readonly Argument[], within: number): Promise<unknown> {
    return this.#run(script, this.#keysOf(queue).all, args, within)
  }

  #run(script: Script, keys: readonly string[], args: readonly Argument[], within: number): Promise<unknown> {
    return this.#connection.call(this.#request(script, keys, args), within)
  }

  /** Adds the ARGV that each script begins with. */
  #request(script: Script, keys: readonly string[], args: readonly Argument[]): Request {
    const { inboxPrefix, cluster } = this.#connection
    return script.with(keys, [inboxPrefix, encodeFlag(cluster), ...args])
  }
}
