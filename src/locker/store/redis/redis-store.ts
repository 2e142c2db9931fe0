import { hostname } from 'node:os'
import { UnavailableError } from '../../../errors.ts'
import { Fifo } from '../../../kernel/collections.ts'
import { MAX_PARKED, MESSAGE_LIMIT } from '../../../kernel/keys.ts'
import type { CommandSender, ReplyHandler, Request, Script } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { FenceWatermark, ServerClock } from '../../../kernel/redis/server.ts'
import { atEndOfTurn } from '../../../kernel/time.ts'
import type { Client } from '../record.ts'
import type {
  Claim,
  Claimer,
  GrantRef,
  InvalidateReply,
  Outcome,
  Release,
  ReleaseReply,
  RenewReply,
  Settlement,
  SettleReply,
  Snapshot,
  Store,
  StoreListener,
} from '../store.ts'
import { ClaimBatcher } from './claim-batcher.ts'
import { type LockerScripts, lockerScripts } from './scripts/index.ts'
import { freshOutcome, parseBroadcast } from './wire.ts'

/** For tests. */
export interface RedisStoreOptions {
  scripts?: LockerScripts
  maxParked?: number
  messageLimit?: number
  /** Asks for the server's time: seconds, and microseconds beyond them. */
  time?: Request
}

const SETTLE_KINDS: Record<Settlement['kind'], string> = { value: 'v', error: 'e', unstored: 'n' }

/** A plain read of a stored value. It costs the server a tenth of a script. */
class ValueRead implements Request, ReplyHandler {
  readonly key: string
  readonly within: number
  readonly sending: (() => void) | undefined
  readonly onReply: (value: unknown) => void
  readonly onError: (error: unknown) => void

  constructor(
    key: string,
    within: number,
    sending: (() => void) | undefined,
    onReply: (value: unknown) => void,
    onError: (error: unknown) => void,
  ) {
    this.key = key
    this.within = within
    this.sending = sending
    this.onReply = onReply
    this.onError = onError
  }

  send(sender: CommandSender): Promise<unknown> {
    return sender.send('hget', [this.key, 'v'])
  }
}

/**
 * The Locker's store on Redis. Each transition of a record is one run of one script; a fresh value is read by a plain
 * command, and judged by the server's clock as last learned from a reply.
 */
export class RedisStore implements Store {
  readonly #connection: Connection
  readonly #scripts: LockerScripts
  readonly #client: Client
  readonly #messageLimit: number
  readonly #cluster: '0' | '1'
  readonly #claims: ClaimBatcher
  readonly #fences: FenceWatermark
  readonly #clock: ServerClock
  readonly #time: Request
  /** Reads of this turn, until it ends. */
  readonly #reads = new Fifo<ValueRead>()
  #learningTime: Promise<void> | undefined

  constructor(connection: Connection, options: RedisStoreOptions = {}) {
    this.#connection = connection
    this.#scripts = options.scripts ?? lockerScripts
    this.#messageLimit = options.messageLimit ?? MESSAGE_LIMIT
    this.#client = {
      inbox: connection.inbox.id,
      holder: `${hostname().slice(0, 48)}:${process.pid}`,
      maxParked: options.maxParked ?? MAX_PARKED,
    }
    this.#cluster = connection.cluster ? '1' : '0'
    this.#clock = new ServerClock(connection.clock)
    this.#fences = new FenceWatermark(this.#clock)
    this.#time = options.time ?? { send: (sender) => sender.send('time', []) }
    this.#claims = new ClaimBatcher(connection, this.#scripts, this.#client, this.#fences, this.#clock)
  }

  get subscribed(): boolean {
    return this.#connection.subscribed
  }

  claim(claim: Claim, within: number, claimer: Claimer): void {
    this.#claims.add(claim, within, claimer)
  }

  async #call(
    script: Script,
    key: string,
    args: (string | Buffer | number)[],
    within: number,
  ): Promise<unknown[]> {
    const strings = args.map((arg) => (typeof arg === 'number' ? String(arg) : arg))
    const reply = await this.#connection.call(script.with([key], strings), within)
    return Array.isArray(reply) ? reply : [reply]
  }

  get inbox(): string {
    return this.#client.inbox
  }

  /** Names the grant of a claim attempt. The claim script builds the same. */
  #token({ inbox, nonce, attempt }: Omit<GrantRef, 'record' | 'fence'>): string {
    return `${inbox ?? this.#client.inbox}${nonce}.${attempt}`
  }

  async renew(grant: GrantRef & { lease: number }, within: number): Promise<RenewReply> {
    const args = [this.#token(grant), grant.fence, grant.lease]
    const [held, invalidated] = await this.#call(this.#scripts.renew, grant.record, args, within)
    return { held: Number(held) === 1, invalidated: Number(invalidated) === 1 }
  }

  async settle(settlement: Settlement, within: number): Promise<SettleReply> {
    const { record, fence, kind, bytes, ttl, outcomeRetention, keepStale, tags, bypassFor } = settlement
    const [accepted, invalidated] = await this.#call(
      this.#scripts.settle,
      record,
      [
        this.#token(settlement),
        fence,
        SETTLE_KINDS[kind],
        bytes,
        ttl,
        outcomeRetention,
        this.#messageLimit,
        this.#connection.inboxPrefix,
        this.#connection.broadcastChannel,
        record,
        keepStale,
        tags,
        bypassFor,
      ],
      within,
    )
    return { accepted: Number(accepted) === 1, invalidated: Number(invalidated) === 1 }
  }

  async release(release: Release, within: number): Promise<ReleaseReply> {
    const { record, fence, nonce, outcomeRetention, asExpired, regrant } = release
    const regrantToken = regrant ? this.#token({ nonce, attempt: regrant.attempt }) : ''
    const [released, granted] = await this.#call(
      this.#scripts.release,
      record,
      [
        this.#token(release),
        fence,
        outcomeRetention,
        regrantToken,
        regrant?.lease ?? 0,
        this.#fences.highest,
        this.#client.holder,
        this.#connection.inboxPrefix,
        this.#cluster,
        asExpired ? '1' : '0',
      ],
      within,
    )
    const regrantFence = Number(granted) || undefined
    if (regrantFence !== undefined) this.#fences.observe(regrantFence)
    return { released: Number(released) === 1, fence: regrantFence }
  }

  async releaseIfUnwanted(
    grant: GrantRef & { outcomeRetention: number },
    within: number,
  ): Promise<'released' | 'wanted' | 'lost'> {
    const args = [
      this.#token(grant),
      grant.fence,
      grant.outcomeRetention,
      this.#connection.inboxPrefix,
      this.#cluster,
    ]
    const [reply] = await this.#call(this.#scripts.releaseIfUnwanted, grant.record, args, within)
    return Number(reply) === 1 ? 'released' : Number(reply) === 0 ? 'wanted' : 'lost'
  }

  async unpark(key: string, nonce: string, within: number): Promise<void> {
    const args = [this.#client.inbox + nonce, this.#connection.inboxPrefix, this.#cluster]
    await this.#call(this.#scripts.unpark, key, args, within)
  }

  async progress(grant: GrantRef & { bytes: Buffer }, within: number): Promise<boolean> {
    const args = [this.#token(grant), grant.fence, grant.bytes, this.#connection.inboxPrefix]
    const [held] = await this.#call(this.#scripts.progress, grant.record, args, within)
    return Number(held) === 1
  }

  async invalidate(key: string, within: number): Promise<InvalidateReply> {
    const args = [this.#connection.broadcastChannel, key]
    const [invalidatedGrant] = await this.#call(this.#scripts.invalidate, key, args, within)
    return { invalidatedGrant: Number(invalidatedGrant) }
  }

  async snapshot(key: string, within: number): Promise<Snapshot> {
    const reply = await this.#call(this.#scripts.snapshot, key, [], within)
    const number = (index: number) => Number(reply[index])
    return {
      lease:
        number(0) === 1
          ? { holder: String(reply[1]), fence: number(2), leaseLeft: number(3), parked: number(4) }
          : undefined,
      value:
        number(5) === 1
          ? { fence: number(6), age: number(7), ttlLeft: number(8), staleLeft: number(9) }
          : undefined,
    }
  }

  /** The reads of one turn are sent together. */
  async readFresh(key: string, within: number, sending?: () => void): Promise<Outcome | undefined> {
    const value = await new Promise<unknown>((resolve, reject) => {
      this.#reads.push(new ValueRead(key, within, sending, resolve, reject))
      if (this.#reads.size === 1) atEndOfTurn(() => this.#flushReads())
    })
    if (value === null) return undefined
    if (!Buffer.isBuffer(value)) throw new UnavailableError('Redis returned a malformed reply')
    if (this.#clock.now() === undefined) await this.#learningTime
    const now = this.#clock.now()
    return now === undefined ? undefined : freshOutcome(value, now)
  }

  #flushReads(): void {
    const { readsPrimary } = this.#connection
    try {
      for (let read = this.#reads.shift(); read; read = this.#reads.shift()) {
        read.sending?.()
        if (this.#clock.now() === undefined) this.#learnTime(read.within)
        const request = readsPrimary ? read : this.#scripts.value.with([read.key], [])
        this.#connection.send(request, read.within, read)
      }
    } finally {
      // A `sending` has thrown: the other reads are sent all the same.
      if (this.#reads.size > 0) atEndOfTurn(() => this.#flushReads())
    }
  }

  /** Sent before a read, it is answered before that; on a cluster perhaps by another node, soon after. */
  #learnTime(within: number): void {
    const sentAt = this.#connection.clock.now()
    this.#learningTime ??= this.#connection
      .call(this.#time, within)
      .then((reply) => {
        const [seconds, micros] = (reply as unknown[]).map(Number) as [number, number]
        this.#clock.update(seconds * 1000 + micros / 1000, sentAt)
      })
      // The reply to a claim tells the time as well.
      .catch(() => {})
      .finally(() => {
        this.#learningTime = undefined
      })
  }

  async tagVersions(tags: readonly string[], keepFor: number, within: number): Promise<number[]> {
    const call = (keys: readonly string[]) =>
      this.#connection.call(this.#scripts.tagVersions.with([...keys], [String(keepFor)]), within)
    const replies = this.#connection.cluster ? tags.map((tag) => call([tag])) : [call(tags)]
    return (await Promise.all(replies)).flat().map(Number)
  }

  async invalidateTag(tag: string, within: number): Promise<void> {
    await this.#call(this.#scripts.invalidateTag, tag, [this.#connection.broadcastChannel, tag], within)
  }

  isPlausibleFence(fence: number): boolean {
    return this.#fences.isPlausible(fence)
  }

  ignore(nonce: string): void {
    this.#connection.inbox.ignore(nonce)
  }

  listen(listener: StoreListener): () => void {
    return this.#connection.listen({
      up: () => listener.up(),
      down: () => listener.down(),
      broadcast: (message) => {
        const invalidation = parseBroadcast(message)
        if (!invalidation) return
        const { kind, name, number } = invalidation
        if (kind === 'record') listener.invalidated(name, number)
        else listener.tagInvalidated(name, number)
      },
    })
  }

  /** The connection is shared, and is closed by its owner. */
  close(): void {}
}
