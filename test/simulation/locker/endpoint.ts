import { FenceWatermark } from '../../../src/kernel/redis/server.ts'
import type {
  Claim,
  Claimer,
  ClaimReply,
  GrantRef,
  Notice,
  Outcome,
  Release,
  Settlement,
  Snapshot,
  Store,
  StoreListener,
} from '../../../src/locker/store/store.ts'
import { Link } from '../link.ts'
import type { SimProcess } from '../process.ts'
import { Subscription } from '../subscription.ts'
import type { LockerHistory } from './history.ts'
import { keyOf, recordOf, tagOf } from './keys.ts'
import type { Port } from './port.ts'
import type { SimClient } from './server.ts'
import type { World } from './world.ts'

/** The store as one process reaches it: over a command connection and a subscription, both of which fail. */
export class Endpoint implements Store, SimClient {
  readonly link: Link
  readonly subscription: Subscription
  readonly #fences = new FenceWatermark(this)
  readonly #process: SimProcess
  readonly #world: World
  readonly #history: LockerHistory
  readonly #port: Port
  readonly #claimers = new Map<string, Claimer>()
  readonly #listeners = new Set<StoreListener>()

  constructor(process: SimProcess, world: World, port: Port) {
    this.#process = process
    this.#world = world
    this.#history = world.history
    this.#port = world.recorder.wrap(port, process.id, () => this.highestFence)
    this.link = new Link(process, world, (line) => this.#history.say(line))
    this.subscription = new Subscription(process, world, this.#listeners)
    world.server.join(this)
    this.subscription.connect(world.random.exponential(world.plan.latency))
  }

  get highestFence(): number {
    return this.#fences.highest
  }

  /** The server's clock, as the last reply told it. */
  get estimate(): number {
    return this.#world.server.clock.now()
  }

  isPlausibleFence(fence: number): boolean {
    return this.#fences.isPlausible(fence)
  }

  get inbox(): string {
    return `p${this.#process.id}`
  }

  get subscribed(): boolean {
    return this.subscription.subscribed
  }

  /** Claimers by nonce. */
  get listening(): number {
    return this.#claimers.size
  }

  #call<T>(
    name: string,
    nonce: string | undefined,
    run: () => Promise<T>,
    within: number,
    late?: (reply: T) => void,
  ): Promise<T> {
    const execute = () => this.#world.server.act(this, nonce, run)
    return this.link.call(`p${this.#process.id} ${name}`, execute, within, late)
  }

  claim(claim: Claim, within: number, claimer: Claimer): void {
    const { attempt, nonce } = claim
    const answered = (reply: ClaimReply) => {
      if (reply.status === 'granted' || reply.status === 'parked') this.#fences.observe(reply.fence)
      if (reply.status === 'granted') this.#granted(keyOf(claim.record), reply.fence)
      claimer.claimed(reply, attempt)
    }
    const send = () => {
      this.#claimers.set(nonce, claimer)
      claimer.sending()
      this.#call('claim', nonce, () => this.#port.claim(claim), within, answered).then(answered, (error) =>
        claimer.claimFailed(error, attempt),
      )
    }
    if (this.#world.plan.batched) process.nextTick(send)
    else send()
  }

  /** A grant has reached the process. */
  #granted(key: string, fence: number): void {
    const grant = this.#world.grant(key, fence)
    if (grant) grant.delivered ??= this.#history.moment()
  }

  renew(
    grant: GrantRef & { lease: number },
    within: number,
  ): Promise<{ held: boolean; invalidated: boolean }> {
    return this.#call('renew', grant.nonce, () => this.#port.renew(grant), within)
  }

  async settle(settlement: Settlement, within: number): Promise<{ accepted: boolean; invalidated: boolean }> {
    const grant = this.#world.grant(keyOf(settlement.record), settlement.fence)
    if (grant) grant.settling ??= this.#history.moment()
    const run = () => this.#port.settle(settlement)
    const reply = await this.#call('settle', settlement.nonce, run, within)
    if (grant) grant.settled ??= this.#history.moment()
    return reply
  }

  async release(release: Release, within: number): Promise<{ released: boolean; fence: number | undefined }> {
    const grant = this.#world.grant(keyOf(release.record), release.fence)
    if (grant) grant.returned ??= this.#history.moment()
    const reply = await this.#call('release', release.nonce, () => this.#port.release(release), within)
    if (reply.fence !== undefined) {
      this.#fences.observe(reply.fence)
      this.#granted(keyOf(release.record), reply.fence)
    }
    return reply
  }

  releaseIfUnwanted(
    grant: GrantRef & { outcomeRetention: number },
    within: number,
  ): Promise<'released' | 'wanted' | 'lost'> {
    return this.#call('releaseIfUnwanted', grant.nonce, () => this.#port.releaseIfUnwanted(grant), within)
  }

  unpark(key: string, nonce: string, within: number): Promise<void> {
    return this.#call('unpark', nonce, () => this.#port.unpark(key, nonce), within)
  }

  progress(grant: GrantRef & { bytes: Buffer }, within: number): Promise<boolean> {
    return this.#call('progress', grant.nonce, () => this.#port.progress(grant), within)
  }

  invalidate(key: string, within: number): Promise<{ invalidatedGrant: number }> {
    return this.#invalidate(key, () => this.#port.invalidate(key), within)
  }

  invalidateTag(tag: string, within: number): Promise<void> {
    return this.#invalidate(tag, () => this.#port.invalidateTag(tag), within)
  }

  /** The invalidation of the last call of this process for the name takes effect now. */
  #invalidate<T>(name: string, invalidate: () => Promise<T>, within: number): Promise<T> {
    const invalidation = this.#history.invalidations.findLast(
      (one) => one.process === this.#process.id && name === (one.what === 'key' ? recordOf : tagOf)(one.key),
    )
    const run = async () => {
      const reply = await invalidate()
      if (invalidation) this.#world.recorder.invalidating(invalidation)
      return reply
    }
    return this.#call(`invalidate ${name}`, undefined, run, within)
  }

  async readFresh(key: string, within: number, sending?: () => void): Promise<Outcome | undefined> {
    if (this.#world.plan.batched) await new Promise<void>((send) => process.nextTick(send))
    sending?.()
    return this.#call('readFresh', undefined, () => this.#port.readFresh(key), within)
  }

  tagVersions(tags: readonly string[], keepFor: number, within: number): Promise<number[]> {
    return this.#call('tagVersions', undefined, () => this.#port.tagVersions(tags, keepFor), within)
  }

  snapshot(key: string, within: number): Promise<Snapshot> {
    return this.#call('snapshot', undefined, () => this.#port.snapshot(key), within)
  }

  notify(nonce: string, notice: Notice): boolean {
    const received = this.subscription.send(() => {
      this.#history.say(
        () =>
          `p${this.#process.id} hears '${notice.kind}' for ${nonce.slice(0, 4)}${this.#claimers.has(nonce) ? '' : ', nobody listens'}`,
      )
      this.#claimers.get(nonce)?.notice(notice)
    }, true)
    return received
  }

  invalidated(key: string, fence: number): void {
    this.subscription.send(() => {
      this.#history.say(() => `p${this.#process.id} hears 'drop' ${key} ${fence}`)
      for (const listener of this.#listeners) listener.invalidated(key, fence)
    }, false)
  }

  tagInvalidated(tag: string, version: number): void {
    this.subscription.send(() => {
      this.#history.say(() => `p${this.#process.id} hears 'drop tag' ${tag}`)
      for (const listener of this.#listeners) listener.tagInvalidated(tag, version)
    }, false)
  }

  ignore(nonce: string): void {
    this.#claimers.delete(nonce)
  }

  listen(listener: StoreListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    this.#world.server.leave(this)
    this.link.close()
    this.subscription.close()
    this.#listeners.clear()
  }
}
