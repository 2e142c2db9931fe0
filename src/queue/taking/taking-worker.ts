import { UnavailableError } from '../../errors.ts'
import { TransientSet } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import type { Timer } from '../../kernel/time.ts'
import { acceptTimeout, MAX_CONCURRENCY, type QueueContext } from '../options.ts'
import type { QueueCensusItem } from '../store/census-item.ts'
import type { AttemptRef, Delivery, WorkerListener, WorkerRef } from '../store/store.ts'
import { outcomeOf, REQUEUE } from '../working/attempt-result.ts'
import { CapacityAnnouncer } from '../working/capacity-announcer.ts'
import type { Taker } from './taker.ts'
import { attemptOf, newToken, type TokenContent } from './token.ts'

/** What a worker of takers tells its queue. */
export interface TakingWorkerHooks {
  /** A job is due in `ms`. */
  dueIn(ms: number): void
  /** Several announcements of the capacity in a row have failed. */
  announcementsFail(error: unknown): void
  /** A job is held for a taker. Gives it to the taker; false: it has left. */
  hand(taker: Taker, token: TokenContent, delivery: Delivery, payload: string): boolean
  /** Nobody has taken jobs for a while. */
  onIdle(worker: TakingWorker): void
}

/** The worker is removed when it has had no taker for so long, ms. Most takers come again at once. */
const IDLE_TIMEOUT = 60_000

/** After an announcement that found no job, the next one that is not urgent comes so much later, ms. */
const QUIET_PAUSE = 20

/**
 * Takes the jobs of one command for all takers of this process. Its capacity is the number of takers that wait, so many of
 * them cost one announcement.
 *
 * delivery → first taker that waits → accept by the store, which gives the job to the holder of a token → the taker has it
 *
 * A delivery that finds no taker goes back at once: a taker has left while it was on its way.
 */
export class TakingWorker implements WorkerListener {
  readonly name: WorkerRef
  readonly #context: QueueContext
  readonly #hooks: TakingWorkerHooks
  readonly #announcer: CapacityAnnouncer
  readonly #unlisten: () => void
  /** Takers that no delivery has reached, in the order in which they came. */
  readonly #waiting = new TransientSet<Taker>()
  /** Deliveries that are being accepted or given back. */
  readonly #handling = new TransientSet<Promise<void>>()
  /** Number of announcements that were sent, and of those that are under way. */
  #sent = 0
  #underWay = 0
  /** Deliveries that the replies to announcements told of and that have not arrived, until when they can be accepted. */
  #expected = 0
  #expectedUntil = Number.NEGATIVE_INFINITY
  /** Deliveries that have arrived while an announcement was under way: its reply may tell of them. */
  #early = 0
  /** How often the subscription was restored: deliveries before that may be lost. */
  #restored = 0
  /** When the last announcement found no job, by the clock, ms. */
  #quietSince = Number.NEGATIVE_INFINITY
  #lastFailure: unknown
  #usedAt: number
  #idleTimer: Timer | undefined
  /** Runs while deliveries are expected. */
  #lossTimer: Timer | undefined
  #closed = false

  /** `first`: the taker that it is created for. */
  constructor(command: string, context: QueueContext, hooks: TakingWorkerHooks, first: Taker) {
    this.name = { nonce: newId(), command }
    this.#context = context
    this.#hooks = hooks
    this.#usedAt = context.clock.now()
    this.#waiting.add(first)
    this.#unlisten = context.store.listen({ up: () => this.#onRestored(), down: () => {} })
    this.#announcer = new CapacityAnnouncer({
      clock: context.clock,
      announce: () => this.#announce(),
      onFailing: (error) => hooks.announcementsFail(error),
    })
    // The worker was not told of jobs that were delayed before the store knew it.
    hooks.dueIn(0)
    this.#checkIdleLater()
  }

  /** Number of takers that wait. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** The worker, for a census: it has a slot for each taker that waits. */
  *census(): Generator<QueueCensusItem> {
    const { queue, options } = this.#context
    const common = { queue, prefix: options.prefix, command: this.name.command }
    yield { ...common, kind: 'worker', concurrency: this.waiting, busy: 0, takes: true }
  }

  /** Adds a taker that waits for a job. */
  add(taker: Taker): void {
    taker.announced = false
    taker.joinedAt = this.#sent
    this.#waiting.add(taker)
    const { clock } = this.#context
    this.#usedAt = clock.now()
    // While no job is ready, takers that come one after the other are announced together.
    const isQuiet = clock.now() - this.#quietSince < QUIET_PAUSE
    if (isQuiet && taker.state === 'waiting') this.#announcer.request()
    else this.#announcer.announceNow()
  }

  async #announce(): Promise<void> {
    const { store, within, clock } = this.#context
    // Jobs delivered without a subscription would be lost until their leases end. `up` announces again.
    if (!store.subscribed) throw this.#failed(new UnavailableError('Not subscribed yet'))
    const free = Math.max(0, this.#waiting.size - this.#onTheirWay)
    const number = ++this.#sent
    const restored = this.#restored
    this.#underWay++
    try {
      const { assigned, more } = await store.setCapacity(
        this.name,
        Math.min(free, MAX_CONCURRENCY),
        this,
        within,
      )
      if (restored === this.#restored) this.#expect(assigned)
      this.#quietSince = assigned === 0 ? clock.now() : Number.NEGATIVE_INFINITY
      this.#lastFailure = undefined
      this.#onAnnounced(number, more)
    } catch (error) {
      throw this.#failed(error)
    } finally {
      this.#underWay--
      if (this.#underWay === 0) this.#early = 0
    }
  }

  /** A reply tells of deliveries. */
  #expect(assigned: number): void {
    const { clock, options } = this.#context
    const arrived = Math.min(this.#early, assigned)
    this.#early -= arrived
    this.#expected = this.#onTheirWay + assigned - arrived
    if (assigned === arrived) return
    this.#expectedUntil = clock.now() + acceptTimeout(options.lease)
    this.#lossTimer ??= clock.after(acceptTimeout(options.lease), this.#checkLoss, true)
  }

  /** Announces the takers anew that deliveries which were lost were meant for. */
  readonly #checkLoss = (): void => {
    const { clock } = this.#context
    this.#lossTimer = undefined
    if (this.#onTheirWay > 0)
      this.#lossTimer = clock.after(this.#expectedUntil - clock.now(), this.#checkLoss, true)
    else if (this.#expected > 0) this.#announcer.request()
  }

  /** Number of deliveries that are on their way, as far as replies tell. Those that take too long are lost. */
  get #onTheirWay(): number {
    return this.#context.clock.now() < this.#expectedUntil ? this.#expected : 0
  }

  #failed(error: unknown): unknown {
    this.#lastFailure = error
    return error
  }

  /** `more`: jobs are ready that one step could not assign. */
  #onAnnounced(number: number, more: boolean): void {
    const onTheirWay = this.#onTheirWay
    let position = 0
    for (const taker of this.#waiting) {
      const isCovered = position++ < onTheirWay
      if (taker.joinedAt >= number || more) continue
      taker.announced = true
      if (taker.state !== 'waiting' && !isCovered) taker.endWithoutJob()
    }
    if (more) this.#announcer.announceNow()
  }

  /** The time of a taker has passed. */
  onTakerDue(taker: Taker): void {
    // A delivery is being accepted for it.
    if (!this.#waiting.has(taker)) return
    if (taker.state === 'overdue' && !taker.announced) taker.failUnannounced(this.#lastFailure)
    else if (taker.state === 'overdue' || (taker.announced && !this.#isCovered(taker))) taker.endWithoutJob()
  }

  /** Whether a delivery to a taker is on its way. */
  #isCovered(taker: Taker): boolean {
    const onTheirWay = this.#onTheirWay
    let position = 0
    for (const other of this.#waiting) {
      if (position++ >= onTheirWay) return false
      if (other === taker) return true
    }
    return false
  }

  /** A taker has ended. */
  onTakerLeft(taker: Taker): void {
    this.#usedAt = this.#context.clock.now()
    if (this.#waiting.delete(taker)) this.#announcer.request()
  }

  #onRestored(): void {
    this.#restored++
    this.#expected = 0
    this.#early = 0
    this.onCapacityRequested()
  }

  onCapacityRequested(): void {
    this.#announcer.request()
    this.#hooks.dueIn(0)
  }

  onDue(ms: number): void {
    this.#hooks.dueIn(ms)
  }

  /** A taken job is cancelled without a message: its holder is told at its next renewal. */
  onCancelled(): void {}

  onDelivery(delivery: Delivery): void {
    this.#quietSince = Number.NEGATIVE_INFINITY
    if (this.#onTheirWay > 0) this.#expected--
    else if (this.#underWay > 0) this.#early++
    const [taker] = this.#waiting
    if (taker) this.#waiting.delete(taker)
    const handling = taker ? this.#hand(taker, delivery) : this.#giveBack(this.#refOf(delivery))
    this.#handling.add(handling)
    void handling.finally(() => this.#handling.delete(handling))
  }

  #refOf({ id, fence }: Delivery): AttemptRef {
    return { worker: this.name, id, fence }
  }

  /** Accepts a delivery for a taker. */
  async #hand(taker: Taker, delivery: Delivery): Promise<void> {
    const { queue } = this.#context
    const { id, fence, failures } = delivery
    const content = { queue, command: this.name.command, id, attempt: failures + 1, fence }
    const token = newToken(content, delivery.options)
    const held = attemptOf(token)
    const payload = await this.#accept(delivery, held, taker.lease)
    if (payload === undefined) return this.#waitAgain(taker)
    if (this.#closed) taker.close()
    if (!this.#hooks.hand(taker, token, delivery, payload)) await this.#giveBack(held)
  }

  /** Accepts a delivery, and gives it to its holder. Returns the payload; undefined if the job could not be had. */
  async #accept(delivery: Delivery, held: AttemptRef, lease: number): Promise<string | undefined> {
    const { store, within } = this.#context
    const given = this.#refOf(delivery)
    try {
      const renewal = await store.renew(given, Math.ceil(lease), within, held.worker)
      if (renewal !== 'held') return undefined
      const payload = delivery.payload ?? (await store.readPayload(held, within))
      if (payload !== undefined) return payload
    } catch {
      // It is not known who holds it.
      await this.#giveBack(given)
    }
    await this.#giveBack(held)
    return undefined
  }

  #waitAgain(taker: Taker): void {
    if (taker.state === 'ended') return
    if (this.#closed) return taker.close()
    this.add(taker)
    if (taker.state === 'overdue') this.onTakerDue(taker)
  }

  /** Gives a job back, uncounted. If the store does not answer, the job is requeued when its lease ends. */
  async #giveBack(attempt: AttemptRef): Promise<void> {
    const { store, within, options } = this.#context
    await store.finish(outcomeOf(attempt, REQUEUE, options, false), within).catch(() => {})
  }

  #checkIdleLater(): void {
    const { clock } = this.#context
    this.#idleTimer = clock.after(
      IDLE_TIMEOUT,
      () => {
        // A taker whose delivery is being accepted waits no more, and has no job yet.
        const isUsed = this.#waiting.size + this.#handling.size > 0
        if (isUsed || clock.now() - this.#usedAt < IDLE_TIMEOUT) this.#checkIdleLater()
        else this.#hooks.onIdle(this)
      },
      true,
    )
  }

  /** Takes no more jobs: the takers are rejected, and what is delivered goes back. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true
    this.#idleTimer?.cancel()
    this.#lossTimer?.cancel()
    this.#announcer.stop()
    this.#unlisten()
    for (const taker of this.#waiting) {
      this.#waiting.delete(taker)
      taker.close()
    }
    const { store, within } = this.#context
    await store.removeWorker(this.name, within).catch(() => {})
    await Promise.all(this.#handling)
    store.unregister(this.name.nonce)
  }
}
