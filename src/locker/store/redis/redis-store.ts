import { hostname } from 'node:os'
import { UnavailableError } from '../../../errors.ts'
import { Fifo } from '../../../kernel/collections/fifo.ts'
import type { ReplyHandler } from '../../../kernel/redis/call.ts'
import type { CommandSender, Request } from '../../../kernel/redis/command.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { FenceWatermark } from '../../../kernel/redis/fence-memory.ts'
import { FORMAT } from '../../../kernel/redis/keys.ts'
import type { Script } from '../../../kernel/redis/script.ts'
import { ServerClock } from '../../../kernel/redis/server-clock.ts'
import { atEndOfTick } from '../../../kernel/time/tick.ts'
import { freshOutcome } from '../../cache/value.ts'
import { tokenOf } from '../record.ts'
import {
  type CallLimits,
  type Claim,
  type Claimer,
  type GrantRef,
  MAX_PARKED,
  MESSAGE_LIMIT,
  type Outcome,
  type Release,
  type Settlement,
  type Snapshot,
  type Store,
  type StoreListener,
} from '../store.ts'
import { ClaimBatcher, type ClaimHead } from './claim-batcher.ts'
import { type LockerScripts, lockerScripts } from './scripts/index.ts'

/** What a test may set otherwise. */
export interface RedisStoreOptions {
  scripts?: LockerScripts
  maxParked?: number
  messageLimit?: number
  /** Asks for the server's time: seconds, and microseconds beyond them. */
  time?: Request
}

/** What is no longer to be served: of a record up to a fence, or of a tag before an epoch. */
const BROADCAST = new RegExp(`^${FORMAT}(t?)(\\d{1,16}) ([^]+)$`)

const SETTLE_KINDS: Record<Settlement['kind'], string> = { value: 'v', error: 'e', unstored: 'n' }

/** One plain read of one field: it costs the server a tenth of a script. */
class Read implements Request, ReplyHandler {
  readonly key: string
  readonly within: number
  readonly sending: (() => void) | undefined
  readonly onReply: (value: unknown) => void
  readonly onError: (error: unknown) => void

  constructor(
    key: string,
    within: number,
    sending: (() => void) | undefined,
    answered: (value: unknown) => void,
    failed: (error: unknown) => void,
  ) {
    this.key = key
    this.within = within
    this.sending = sending
    this.onReply = answered
    this.onError = failed
  }

  send(sender: CommandSender): Promise<unknown> {
    return sender.send('hget', [this.key, 'v'])
  }
}

/** The Locker's store on Redis: every transition of a key is one step of one script. */
export class RedisStore implements Store {
  readonly #connection: Connection
  readonly #scripts: LockerScripts
  readonly #head: ClaimHead
  readonly #messageLimit: number
  readonly #channels: string
  readonly #cluster: string
  readonly #claims: ClaimBatcher
  readonly #fences: FenceWatermark
  readonly #clock: ServerClock
  readonly #time: Request
  /** Reads of this tick; sent when it ends. */
  readonly #reads = new Fifo<Read>()
  /** The server is being asked for the time. */
  #asking: Promise<void> | undefined

  constructor(connection: Connection, options: RedisStoreOptions = {}) {
    this.#connection = connection
    this.#scripts = options.scripts ?? lockerScripts
    this.#messageLimit = options.messageLimit ?? MESSAGE_LIMIT
    this.#head = {
      inbox: connection.inbox.id,
      holder: `${hostname().slice(0, 48)}:${process.pid}`,
      maxParked: options.maxParked ?? MAX_PARKED,
    }
    this.#channels = connection.inboxChannel.slice(0, -connection.inbox.id.length)
    this.#cluster = connection.cluster ? '1' : '0'
    this.#clock = new ServerClock(connection.clock)
    this.#fences = new FenceWatermark(this.#clock)
    this.#time = options.time ?? { send: (sender) => sender.send('time', []) }
    this.#claims = new ClaimBatcher(connection, this.#scripts, this.#head, this.#fences, this.#clock)
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
    limits: CallLimits,
  ): Promise<unknown[]> {
    const strings = args.map((arg) => (typeof arg === 'number' ? String(arg) : arg))
    const reply = await this.#connection.call(script.with([key], strings), limits.within)
    return Array.isArray(reply) ? reply : [reply]
  }

  #token(grant: GrantRef): string {
    return tokenOf(this.#head.inbox, grant)
  }

  async renew(
    grant: GrantRef & { lease: number },
    limits: CallLimits,
  ): Promise<{ held: boolean; invalidated: boolean }> {
    const args = [this.#token(grant), grant.fence, grant.lease]
    const [held, invalidated] = await this.#call(this.#scripts.renew, grant.key, args, limits)
    return { held: Number(held) === 1, invalidated: Number(invalidated) === 1 }
  }

  async settle(
    settlement: Settlement,
    limits: CallLimits,
  ): Promise<{ accepted: boolean; invalidated: boolean }> {
    const { key, fence, kind, bytes, ttl, outcomeRetention, keepStale, tags, bypassFor } = settlement
    const [accepted, invalidated] = await this.#call(
      this.#scripts.settle,
      key,
      [
        this.#token(settlement),
        fence,
        SETTLE_KINDS[kind],
        bytes,
        ttl,
        outcomeRetention,
        this.#messageLimit,
        this.#channels,
        this.#connection.broadcastChannel,
        key,
        keepStale,
        tags,
        bypassFor,
      ],
      limits,
    )
    return { accepted: Number(accepted) === 1, invalidated: Number(invalidated) === 1 }
  }

  async release(
    release: Release,
    limits: CallLimits,
  ): Promise<{ released: boolean; fence: number | undefined }> {
    const { key, fence, nonce, outcomeRetention, asExpired, regrant } = release
    const nextToken = regrant ? tokenOf(this.#head.inbox, { nonce, attempt: regrant.attempt }) : ''
    const [released, granted] = await this.#call(
      this.#scripts.release,
      key,
      [
        this.#token(release),
        fence,
        outcomeRetention,
        nextToken,
        regrant?.lease ?? 0,
        this.#fences.highest,
        this.#head.holder,
        this.#channels,
        this.#cluster,
        asExpired ? '1' : '0',
      ],
      limits,
    )
    const nextFence = Number(granted) || undefined
    if (nextFence !== undefined) this.#fences.observe(nextFence)
    return { released: Number(released) === 1, fence: nextFence }
  }

  async releaseIfUnwanted(
    grant: GrantRef & { outcomeRetention: number },
    limits: CallLimits,
  ): Promise<'released' | 'wanted' | 'lost'> {
    const args = [this.#token(grant), grant.fence, grant.outcomeRetention, this.#channels, this.#cluster]
    const [reply] = await this.#call(this.#scripts.abandon, grant.key, args, limits)
    return Number(reply) === 1 ? 'released' : Number(reply) === 0 ? 'wanted' : 'lost'
  }

  async unpark(key: string, nonce: string, limits: CallLimits): Promise<void> {
    await this.#call(
      this.#scripts.unpark,
      key,
      [this.#head.inbox + nonce, this.#channels, this.#cluster],
      limits,
    )
  }

  async progress(grant: GrantRef & { bytes: Buffer }, limits: CallLimits): Promise<void> {
    const args = [this.#token(grant), grant.fence, grant.bytes, this.#channels]
    await this.#call(this.#scripts.progress, grant.key, args, limits)
  }

  async invalidate(key: string, limits: CallLimits): Promise<{ invalidatedGrant: number }> {
    const args = [this.#connection.broadcastChannel, key]
    const [invalidatedGrant] = await this.#call(this.#scripts.invalidate, key, args, limits)
    return { invalidatedGrant: Number(invalidatedGrant) }
  }

  async snapshot(key: string, limits: CallLimits): Promise<Snapshot> {
    const reply = await this.#call(this.#scripts.snapshot, key, [], limits)
    const [fence, leaseLeft, parked] = reply.slice(2, 5).map(Number) as [number, number, number]
    const [valueFence, age, ttlLeft, staleLeft] = reply.slice(6).map(Number) as [
      number,
      number,
      number,
      number,
    ]
    return {
      lease: Number(reply[0]) === 1 ? { holder: String(reply[1]), fence, leaseLeft, parked } : undefined,
      value: Number(reply[5]) === 1 ? { fence: valueFence, age, ttlLeft, staleLeft } : undefined,
    }
  }

  /** The reads of one tick go out together. */
  async readFresh(key: string, { within }: CallLimits, sending?: () => void): Promise<Outcome | undefined> {
    const value = await new Promise<unknown>((resolve, reject) => {
      this.#reads.push(new Read(key, within, sending, resolve, reject))
      if (this.#reads.size === 1) atEndOfTick(() => this.#flushReads())
    })
    if (value === null) return undefined
    if (!Buffer.isBuffer(value)) throw new UnavailableError('Redis gave an answer that is none')
    if (this.#clock.now() === undefined) await this.#asking
    const now = this.#clock.now()
    return now === undefined ? undefined : freshOutcome(value, now)
  }

  #flushReads(): void {
    const { readsPrimary } = this.#connection
    try {
      for (let read = this.#reads.shift(); read; read = this.#reads.shift()) {
        read.sending?.()
        if (this.#clock.now() === undefined) this.#askTime(read.within)
        const request = readsPrimary ? read : this.#scripts.find.with([read.key], [])
        this.#connection.send(request, read.within, read)
      }
    } finally {
      // One of them has thrown: the others go out all the same.
      if (this.#reads.size > 0) atEndOfTick(() => this.#flushReads())
    }
  }

  /** Sent before a read, it is answered before that; on a cluster, perhaps by another node, soon after. */
  #askTime(within: number): void {
    const sentAt = this.#connection.clock.now()
    this.#asking ??= this.#connection
      .call(this.#time, within)
      .then((reply) => {
        const [seconds, micros] = (reply as unknown[]).map(Number) as [number, number]
        this.#clock.update(seconds * 1000 + micros / 1000, sentAt)
      })
      // A claim will tell the time.
      .catch(() => {})
      .finally(() => {
        this.#asking = undefined
      })
  }

  async tagVersions(tags: readonly string[], keepFor: number, limits: CallLimits): Promise<number[]> {
    const call = (keys: readonly string[]) =>
      this.#connection.call(this.#scripts.epochs.with([...keys], [String(keepFor)]), limits.within)
    const asked = this.#connection.cluster ? tags.map((tag) => call([tag])) : [call(tags)]
    return (await Promise.all(asked)).flat().map(Number)
  }

  async invalidateTag(tag: string, limits: CallLimits): Promise<void> {
    await this.#call(this.#scripts.invalidateTag, tag, [this.#connection.broadcastChannel, tag], limits)
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
        const [, tag, number, key] = BROADCAST.exec(message.toString()) ?? []
        if (number === undefined || key === undefined) return
        if (tag === '') listener.invalidated(key, Number(number))
        else listener.tagInvalidated(key, Number(number))
      },
    })
  }

  /** The connection has an owner and a life of its own. */
  close(): void {}
}
