import { hostname } from 'node:os'
import type { Connection } from '../kernel/connection.ts'
import { FORMAT } from '../kernel/keys.ts'
import type { Script } from '../kernel/script.ts'
import { ClaimBatch, type ClaimHead, FenceMemory } from './claim-batch.ts'
import { tokenOf } from './record.ts'
import { type LockerScripts, lockerScripts } from './scripts/index.ts'
import {
  type CallLimits,
  type Claim,
  type Claimer,
  type Grant,
  MAX_PARKED,
  MESSAGE_LIMIT,
  type Outcome,
  type Release,
  type Settlement,
  type Snapshot,
  type Store,
  type StoreListener,
} from './store.ts'
import { readValue, TAGGED_VALUE } from './value.ts'

/** What a test may set otherwise. */
export interface RedisStoreOptions {
  scripts?: LockerScripts
  maxParked?: number
  messageLimit?: number
}

/** What is no longer to be served: of a record up to a fence, or of a tag before an epoch. */
const BROADCAST = new RegExp(`^${FORMAT}(t?)(\\d{1,16}) ([^]+)$`)

const SETTLE_KINDS: Record<Settlement['kind'], string> = { value: 'v', error: 'e', unkept: 'n' }

/** Records that one script reads at most. */
const MAX_FOUND = 128

/** The Locker's store on Redis: every transition is one script on one key. */
export class RedisStore implements Store {
  readonly #connection: Connection
  readonly #scripts: LockerScripts
  readonly #head: ClaimHead
  readonly #messageLimit: number
  readonly #channels: string
  readonly #cluster: string
  /** By time limit: claims that go out together share it. */
  readonly #batches = new Map<number, ClaimBatch>()
  readonly #fences = new FenceMemory()

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
  }

  get subscribed(): boolean {
    return this.#connection.subscribed
  }

  claim(claim: Claim, within: number, claimer: Claimer): void {
    this.#batch(within).add(claim, claimer)
  }

  #batch(within: number): ClaimBatch {
    let batch = this.#batches.get(within)
    if (!batch) {
      batch = new ClaimBatch(this.#connection, this.#scripts, this.#head, this.#fences, within)
      this.#batches.set(within, batch)
    }
    return batch
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

  #token(grant: Grant): string {
    return tokenOf(this.#head.inbox, grant)
  }

  async renew(
    grant: Grant & { lease: number },
    limits: CallLimits,
  ): Promise<{ held: boolean; doomed: boolean }> {
    const args = [this.#token(grant), grant.fence, grant.lease]
    const [held, doomed] = await this.#call(this.#scripts.renew, grant.key, args, limits)
    return { held: Number(held) === 1, doomed: Number(doomed) === 1 }
  }

  async settle(settlement: Settlement, limits: CallLimits): Promise<{ accepted: boolean; doomed: boolean }> {
    const { key, fence, kind, bytes, ttl, linger, stale, tags, passFor } = settlement
    const [accepted, doomed] = await this.#call(
      this.#scripts.settle,
      key,
      [
        this.#token(settlement),
        fence,
        SETTLE_KINDS[kind],
        bytes,
        ttl,
        linger,
        this.#messageLimit,
        this.#channels,
        this.#connection.broadcastChannel,
        key,
        stale,
        tags,
        passFor,
      ],
      limits,
    )
    return { accepted: Number(accepted) === 1, doomed: Number(doomed) === 1 }
  }

  async release(
    release: Release,
    limits: CallLimits,
  ): Promise<{ released: boolean; fence: number | undefined }> {
    const { key, fence, nonce, linger, expired, next } = release
    const nextToken = next ? tokenOf(this.#head.inbox, { nonce, attempt: next.attempt }) : ''
    const [released, granted] = await this.#call(
      this.#scripts.release,
      key,
      [
        this.#token(release),
        fence,
        linger,
        nextToken,
        next?.lease ?? 0,
        this.#fences.highest,
        this.#head.holder,
        this.#channels,
        this.#cluster,
        expired ? '1' : '0',
      ],
      limits,
    )
    const nextFence = Number(granted) || undefined
    if (nextFence !== undefined) this.#fences.saw(nextFence)
    return { released: Number(released) === 1, fence: nextFence }
  }

  async abandon(
    grant: Grant & { linger: number },
    limits: CallLimits,
  ): Promise<'released' | 'wanted' | 'lost'> {
    const args = [this.#token(grant), grant.fence, grant.linger, this.#channels, this.#cluster]
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

  async progress(grant: Grant & { bytes: Buffer }, limits: CallLimits): Promise<void> {
    const args = [this.#token(grant), grant.fence, grant.bytes, this.#channels]
    await this.#call(this.#scripts.progress, grant.key, args, limits)
  }

  async invalidate(key: string, limits: CallLimits): Promise<{ doomed: number }> {
    const args = [this.#connection.broadcastChannel, key]
    const [doomed] = await this.#call(this.#scripts.invalidate, key, args, limits)
    return { doomed: Number(doomed) }
  }

  async snapshot(key: string, limits: CallLimits): Promise<Snapshot> {
    const reply = await this.#call(this.#scripts.snapshot, key, [], limits)
    const [fence, left, parked] = reply.slice(2, 5).map(Number) as [number, number, number]
    const [valueFence, age, fresh, stale] = reply.slice(6).map(Number) as [number, number, number, number]
    return {
      lease: Number(reply[0]) === 1 ? { holder: String(reply[1]), fence, left, parked } : undefined,
      value: Number(reply[5]) === 1 ? { fence: valueFence, age, fresh, stale } : undefined,
    }
  }

  async find(key: string, limits: CallLimits): Promise<Outcome | undefined> {
    const [value, tags, now] = await this.#call(this.#scripts.find, key, [], limits)
    const outcome = Buffer.isBuffer(value) ? readValue(value, Number(now)) : undefined
    return outcome && { ...outcome, tags: String(tags ?? '') }
  }

  async findMany(keys: readonly string[], limits: CallLimits): Promise<(Outcome | undefined)[]> {
    const size = this.#connection.cluster ? 1 : MAX_FOUND
    const found: (Outcome | undefined)[] = new Array(keys.length)
    const read = async (from: number) => {
      const part = keys.slice(from, from + size)
      const reply = (await this.#connection.call(
        this.#scripts.findMany.with(part, []),
        limits.within,
      )) as unknown[]
      const now = Number(reply[part.length])
      for (let index = 0; index < part.length; index++) {
        const value = reply[index]
        const plain = Buffer.isBuffer(value) && Number(value[0]) < TAGGED_VALUE
        if (plain) found[from + index] = readValue(value, now)
      }
    }
    const reads: Promise<void>[] = []
    for (let from = 0; from < keys.length; from += size) reads.push(read(from))
    await Promise.all(reads)
    return found
  }

  async epochs(tags: readonly string[], keepFor: number, limits: CallLimits): Promise<number[]> {
    const call = (keys: readonly string[]) =>
      this.#connection.call(this.#scripts.epochs.with([...keys], [String(keepFor)]), limits.within)
    const asked = this.#connection.cluster ? tags.map((tag) => call([tag])) : [call(tags)]
    return (await Promise.all(asked)).flat().map(Number)
  }

  async invalidateTag(tag: string, limits: CallLimits): Promise<void> {
    await this.#call(this.#scripts.invalidateTag, tag, [this.#connection.broadcastChannel, tag], limits)
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
        if (tag === '') listener.drop(key, Number(number))
        else listener.dropTag(key, Number(number))
      },
    })
  }

  /** The connection has an owner and a life of its own. */
  close(): void {}
}
