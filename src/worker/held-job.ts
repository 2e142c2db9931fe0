import pDefer from 'p-defer'
import { AbortedError, ClosedError, CodecError, LeaseLostError, type SoloflightError } from '../errors.ts'
import { messageOf } from '../kernel/codec/codec.ts'
import { JsonText } from '../kernel/codec/json-text.ts'
import { assertTransition, type Transitions } from '../kernel/collections.ts'
import {
  type Clock,
  lossMargin,
  RENEW_AFTER,
  renewalRetryPause,
  systemClock,
  type Timer,
} from '../kernel/time.ts'
import { type Answer, describeAnswer, isAboutBody, isCancelled } from './answer.ts'
import { backoff } from './backoff.ts'
import type { JobContext } from './context.ts'
import { failureText, isFinalFailure } from './failure-text.ts'
import type { Gateways } from './gateways.ts'
import { Notes } from './notes.ts'
import { type HandedJob, queuePath } from './take.ts'

/** How a job has ended here. `reason`: what the work has thrown, or why the job is not held any more. */
export type JobEnd =
  | { readonly kind: 'completed' }
  /** `isDead`: it is not tried again. */
  | { readonly kind: 'failed'; readonly reason: unknown; readonly isDead: boolean }
  | { readonly kind: 'returned' }
  | { readonly kind: 'lost'; readonly reason: unknown }

/** What the work has returned or thrown. */
type WorkOutcome =
  | { readonly kind: 'value'; readonly value: unknown }
  | { readonly kind: 'error'; readonly error: unknown }

/**
 * A job that is held under a lease, from the answer that handed it over until it is finished.
 *
 * | state | the work has ended | the lease is lost, or the job cancelled | `giveBack` | the gateway has accepted how it ended |
 * | --- | --- | --- | --- | --- |
 * | working | settling | lost | returning | |
 * | settling: its end is told, again and again | | lost | settling, until `within` ms from now | ended |
 * | returning: the same with `?again` | | lost | | ended |
 *
 * The lease is renewed in all of them. How it ended may be told twice if an answer is lost: the gateway counts it once.
 */
type State = 'working' | 'settling' | 'returning' | 'ended' | 'lost'

const TRANSITIONS: Transitions<State> = {
  working: ['settling', 'returning', 'lost'],
  settling: ['ended', 'lost'],
  returning: ['ended', 'lost'],
  ended: [],
  lost: [],
}

/** Notes that come faster are sent together, ms. */
const NOTES_PAUSE = 100

/** One try may take this part of the time that is left, so that other gateways can be tried too. */
const TRY = 1 / 3
/** Least time of a try, ms. */
const SHORTEST_TRY = 250

/** The end of a job is told for so many leases at most. */
const LEASES_TO_SETTLE = 10

export class HeldJob {
  readonly handed: HandedJob
  /** What the work is given beside the job. */
  readonly context: JobContext
  readonly #gateways: Gateways
  /** ms */
  readonly #lease: number
  readonly #clock: Clock = systemClock
  readonly #aborter = new AbortController()
  readonly #notes = new Notes()
  /** Resolves when the outcome of the work does not matter any more. */
  readonly #left = pDefer<void>()
  /** Resolves when the work is not waited for any more. */
  readonly #abandoned = pDefer<void>()
  #state: State = 'working'
  #lossReason: unknown
  /** By the clock, ms. */
  #leaseEndsAt: number
  /** Until when the end is told, by the clock, ms. */
  #settleUntil = Number.POSITIVE_INFINITY
  #renewTimer: Timer | undefined
  /** The request that renews. One is under way at a time. */
  #renewal: Promise<void> | undefined
  #renewalFailures = 0
  /** By the clock, ms. */
  #renewalSentAt = Number.NEGATIVE_INFINITY

  /** `lease`: its duration, ms. */
  constructor(handed: HandedJob, gateways: Gateways, lease: number) {
    const { id, queue, attempt, attempts, askedAt, text = '' } = handed
    this.handed = handed
    this.#gateways = gateways
    this.#lease = lease
    // It began after the job was asked for. How long a request has waited for a job is not known: then it counts from the answer.
    const now = this.#clock.now()
    this.#leaseEndsAt = (now - askedAt > lease * RENEW_AFTER ? now : askedAt) + lease
    this.#renewLater(lease * RENEW_AFTER)
    this.context = {
      ...{ id, queue, attempt, attempts, text },
      signal: this.#aborter.signal,
      progress: (value) => {
        if (this.#state !== 'working') return
        this.#notes.setProgress(value)
        this.#sendNotes()
      },
      log: (line) => {
        if (this.#state !== 'working') return
        this.#notes.addLine(line)
        this.#sendNotes()
      },
    }
  }

  #enter(state: State): void {
    assertTransition('held job', TRANSITIONS, this.#state, state)
    this.#state = state
    if (state === 'ended' || state === 'lost') this.#renewTimer?.cancel()
  }

  get #isOver(): boolean {
    return this.#state === 'ended' || this.#state === 'lost'
  }

  /** Runs the work and tells how it ended. Resolves when that is known to the gateway, or the job is lost. Never rejects. */
  async run(work: (job: unknown, context: JobContext) => unknown): Promise<JobEnd> {
    const working = this.#work(work)
    const outcome = await Promise.race([working, this.#left.promise])
    if (outcome && this.#state === 'working') return await this.#settle(outcome)
    if (this.#state === 'returning') {
      const answer = await this.#tell('again', undefined)
      return answer === undefined ? this.#lostEnd() : { kind: 'returned' }
    }
    // Its slot is not free before.
    await Promise.race([working, this.#abandoned.promise])
    return this.#lostEnd()
  }

  async #work(work: (job: unknown, context: JobContext) => unknown): Promise<WorkOutcome> {
    const { text, id } = this.handed
    try {
      if (text === undefined) throw new CodecError('The job is larger than `maxJob`', { key: id })
      return { kind: 'value', value: await work(JSON.parse(text), this.context) }
    } catch (error) {
      return { kind: 'error', error }
    }
  }

  #lostEnd(): JobEnd {
    return { kind: 'lost', reason: this.#lossReason }
  }

  async #settle(outcome: WorkOutcome): Promise<JobEnd> {
    this.#enter('settling')
    this.#settleUntil = Math.min(this.#settleUntil, this.#clock.now() + LEASES_TO_SETTLE * this.#lease)
    await this.#awaitNotes()
    const failure = outcome.kind === 'value' ? await this.#complete(outcome.value) : { reason: outcome.error }
    if (this.#state === 'lost') return this.#lostEnd()
    return failure ? await this.#fail(failure.reason) : { kind: 'completed' }
  }

  /** The notes come before the end, unless the gateway is silent: the end is not kept waiting until the lease is over. */
  async #awaitNotes(): Promise<void> {
    const sending = this.#notes.isEmpty ? this.#renewal : this.#renew()
    if (!sending) return
    const late = pDefer<void>()
    const timer = this.#clock.after(this.#lease * RENEW_AFTER, late.resolve)
    await Promise.race([sending, this.#left.promise, late.promise])
    timer.cancel()
  }

  /** Resolves with the reason if the job must fail instead. */
  async #complete(value: unknown): Promise<{ reason: unknown } | undefined> {
    let body: string | undefined
    try {
      body = value instanceof JsonText ? value.text : JSON.stringify(value)
    } catch (cause) {
      const message = `The result is not JSON: ${messageOf(cause)}`
      return { reason: new CodecError(message, { key: this.handed.id, cause }) }
    }
    const answer = await this.#tell('', body ?? '')
    if (!answer || answer.status < 300) return undefined
    const message = `The gateway refuses the result: ${describeAnswer(answer)}`
    return { reason: new CodecError(message, { key: this.handed.id }) }
  }

  async #fail(reason: unknown): Promise<JobEnd> {
    const { attempt, attempts } = this.handed
    const isFinal = isFinalFailure(reason)
    const answer = await this.#tell(isFinal ? 'failed&retry=0' : 'failed', failureText(reason))
    if (answer && answer.status >= 300)
      this.#lose(new LeaseLostError(`The gateway refuses the failure: ${describeAnswer(answer)}`))
    if (this.#state === 'lost') return this.#lostEnd()
    return { kind: 'failed', reason, isDead: isFinal || (attempts !== undefined && attempt >= attempts) }
  }

  /**
   * Tells how the job ended, until a gateway accepts it, or refuses it as it stands. Undefined: the job is lost. A refusal for
   * another reason, as a wrong token, may pass.
   */
  async #tell(
    flag: '' | 'failed' | 'failed&retry=0' | 'again',
    body: string | undefined,
  ): Promise<Answer | undefined> {
    const path = `${queuePath(this.handed.queue)}${flag === '' ? '' : `?${flag}`}`
    for (let tries = 1; !this.#isOver; tries++) {
      // A result may be large: it takes as long as it takes.
      const left = flag === 'again' ? this.#settleUntil - this.#clock.now() : Number.POSITIVE_INFINITY
      const answer = await this.#request('PUT', path, body, left)
      if (answer?.status === 409) {
        this.#lose(this.#leaseLost('The job was given to another worker, or has ended'))
      } else if (answer && (answer.status < 300 || isAboutBody(answer.status))) {
        // It is held no more once its end was accepted. A refused one is told in another way.
        if (answer.status < 300 && !this.#isOver) this.#enter('ended')
        return answer
      } else {
        const rest = this.#settleUntil - this.#clock.now()
        await this.#sleep(Math.min(backoff(tries), this.#lease / 3, rest))
        if (this.#clock.now() >= this.#settleUntil)
          this.#lose(this.#leaseLost('No gateway has accepted its end'))
      }
    }
    return undefined
  }

  /** Asks a gateway. `left`: time in which one must have answered, ms. Undefined: this one has not. */
  async #request(
    method: 'PUT' | 'PATCH',
    path: string,
    body: string | undefined,
    left: number,
  ): Promise<Answer | undefined> {
    const { lease } = this.handed
    const within = Math.max(left * TRY, SHORTEST_TRY)
    return await this.#gateways.request({ method, path, body, lease, within }).catch(() => undefined)
  }

  async #sleep(ms: number): Promise<void> {
    await new Promise<void>((resolve) => this.#clock.after(ms, resolve))
  }

  /** Gives the job back, uncounted: the worker stops. `within`: for how long that is told at most, ms. */
  giveBack(within: number): void {
    this.#settleUntil = Math.min(this.#settleUntil, this.#clock.now() + within)
    this.#abandoned.resolve()
    if (this.#state !== 'working') return
    this.#enter('returning')
    this.#abort(new ClosedError('The worker stops', { key: this.handed.id }))
  }

  #leaseLost(message: string): LeaseLostError {
    return new LeaseLostError(message, { key: this.handed.id })
  }

  #lose(reason: SoloflightError): void {
    if (this.#isOver) return
    this.#enter('lost')
    this.#lossReason = reason
    this.#abort(reason)
  }

  #abort(reason: SoloflightError): void {
    this.#aborter.abort(reason)
    this.#left.resolve()
  }

  /** Sends the notes with a renewal: now, unless one is under way, or was sent just before. */
  #sendNotes(): void {
    if (this.#renewal || this.#isOver) return
    const pause = this.#renewalSentAt + NOTES_PAUSE - this.#clock.now()
    if (pause > 0) this.#renewLater(pause)
    else void this.#renew()
  }

  #renewLater(ms: number): void {
    this.#renewTimer?.cancel()
    // The end of the lease must be noticed too.
    this.#renewTimer = this.#clock.after(Math.max(0, Math.min(ms, this.#leaseLeft)), () => this.#onTimer())
  }

  /** How long until the lease counts as lost, ms. */
  get #leaseLeft(): number {
    return this.#leaseEndsAt - lossMargin(this.#lease) - this.#clock.now()
  }

  #onTimer(): void {
    if (this.#leaseLeft <= 0) this.#lose(this.#leaseLost('The lease could not be renewed in time'))
    // Timers may fire a little early: the end of the lease is still to come.
    else if (this.#renewal) this.#renewLater(Number.POSITIVE_INFINITY)
    else void this.#renew()
  }

  /** Renews the lease, and sends the notes. Those that come meanwhile are sent after it. Never rejects. */
  async #renew(): Promise<void> {
    while (this.#renewal) await this.#renewal
    if (this.#isOver) return
    this.#renewal = this.#renewOnce()
    await this.#renewal
    this.#renewal = undefined
    if (!this.#notes.isEmpty && this.#renewalFailures === 0) this.#sendNotes()
  }

  async #renewOnce(): Promise<void> {
    const sentAt = this.#clock.now()
    this.#renewalSentAt = sentAt
    // While the request is under way, its timer is the end of the lease.
    this.#renewLater(Number.POSITIVE_INFINITY)
    const { body, restore } = this.#notes.take()
    const answer = await this.#request('PATCH', queuePath(this.handed.queue), body, this.#leaseLeft)
    if (this.#isOver) return
    // Once its end is being told, the answer to that decides: it may have been accepted already.
    const isOurs = this.#state !== 'working'
    if (isOurs && answer && (answer.status === 409 || isCancelled(answer))) return
    if (answer?.status === 409) this.#lose(this.#leaseLost('The job was given to another worker'))
    else if (answer && isCancelled(answer))
      this.#lose(new AbortedError('The job was cancelled', { key: this.handed.id }))
    else if (answer?.status === 200) this.#renewed(sentAt)
    else this.#onRenewalFailure(answer, restore)
  }

  #renewed(sentAt: number): void {
    this.#renewalFailures = 0
    this.#leaseEndsAt = sentAt + this.#lease
    this.#renewLater(sentAt + this.#lease * RENEW_AFTER - this.#clock.now())
  }

  #onRenewalFailure(answer: Answer | undefined, restore: () => void): void {
    this.#renewalFailures++
    // Notes that the gateway refuses are dropped.
    if (!answer || !isAboutBody(answer.status)) restore()
    this.#renewLater(renewalRetryPause(this.#lease))
  }
}
