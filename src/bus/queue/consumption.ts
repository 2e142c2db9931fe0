import { assertTransition, Fifo, type Transitions } from '../../kernel/collections.ts'
import { emit } from '../../kernel/telemetry.ts'
import { rootContext, type Timer } from '../../kernel/time.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import type { BusContext } from '../context.ts'
import type { Incoming } from '../store/store.ts'
import type { Attachment } from './attachment.ts'
import type { MessageSource } from './message-source.ts'
import type { Receiver } from './receivers.ts'

type State = 'starting' | 'fetching' | 'waiting' | 'stopping' | 'stopped'

const TRANSITIONS: Transitions<State> = {
  starting: ['fetching', 'waiting', 'stopping', 'stopped'],
  fetching: ['waiting', 'starting', 'fetching', 'stopping', 'stopped'],
  waiting: ['fetching', 'starting', 'waiting', 'stopping', 'stopped'],
  stopping: ['stopped'],
  stopped: [],
}

/** Pauses between attempts while the instance does not answer, ms: doubles up to the maximum. */
const MIN_RETRY_MS = 50
const MAX_RETRY_MS = 1_000

/** After so long, ms, an instance is told what was handed over, if nothing else is to be sent. */
const NEWS_DELAY_MS = 100

/** How often a consumer asks, ms, even if nothing tells it to. */
const POLL_MS = 30_000

/**
 * Fetches messages from one queue and hands them over, one after the other, until it is stopped.
 *
 * starting   becomes a consumer
 * fetching   a fetch is under way
 * waiting    for messages, for the receiver, for an acknowledgement, or to try again
 * stopping   returns what it holds
 * stopped
 *
 * | event                                 | starting | fetching | waiting  | stopping |
 * | ------------------------------------- | -------- | -------- | -------- | -------- |
 * | it is a consumer                      | fetching |          |          |          |
 * | messages, or none                     |          | waiting, fetching |  |        |
 * | a signal, `resume`, news, a timer     |          |          | fetching |          |
 * | its lease was over, the queue remade  |          | starting | starting |          |
 * | the instance does not answer          | waiting  | waiting  |          | stopped  |
 * | stop, `max`                           | stopping | stopping | stopping |          |
 * | what it held was returned             |          |          |          | stopped  |
 * | the queue is closed, the attachment over | stopped | stopped | stopped | stopped  |
 */
export class Consumption {
  readonly #context: BusContext
  readonly #attachment: Attachment
  readonly #source: MessageSource
  readonly #receiver: Receiver
  readonly #buffer = new Fifo<Incoming>()
  #state: State = 'starting'
  /** How many more it delivers. */
  #left: number
  #fence = 0
  #isJoined = false
  /** Whether the instance may know this consumer, also if it is not known here any more. */
  #mayBeJoined = false
  /** Something has happened since it last looked. */
  #isAwake = true
  #wake = () => {}
  #timer: Timer | undefined
  #retryPause = MIN_RETRY_MS
  /** Fulfilled, or rejected, when it is stopped. */
  readonly ended: Promise<void>

  constructor(
    context: BusContext,
    attachment: Attachment,
    source: MessageSource,
    receiver: Receiver,
    max: number,
  ) {
    this.#context = context
    this.#attachment = attachment
    this.#source = source
    this.#receiver = receiver
    this.#left = max
    refProcess(context.clock)
    this.ended = rootContext.run(() => this.#run()).finally(() => unrefProcess(context.clock))
    this.ended.catch(() => {})
  }

  /** Something may have changed: messages, readiness of the receiver, news to be sent. */
  resume(): void {
    this.#isAwake = true
    this.#wake()
  }

  /** The queue was remade, or the lease is over: what was fetched is lost. */
  onLost(): void {
    this.#forget()
    this.resume()
  }

  /**
   * Hands over no more, and returns what is held. Resolves when that is done.
   * @throws UnavailableError, OverloadedError, ClosedError: the rest is returned, or dropped, when the lease ends.
   */
  stop(): Promise<void> {
    if (this.#isRunning) this.#moveTo('stopping')
    this.resume()
    return this.ended
  }

  /** The attachment is over: there is nothing to return. */
  abandon(): void {
    if (this.#state === 'stopped') return
    this.#moveTo('stopped')
    this.#source.onLost()
    this.resume()
  }

  get #isRunning(): boolean {
    return this.#state !== 'stopping' && this.#state !== 'stopped'
  }

  #moveTo(state: State): void {
    assertTransition('consumption', TRANSITIONS, this.#state, state)
    this.#state = state
  }

  async #run(): Promise<void> {
    while (this.#isRunning) {
      try {
        if (this.#isJoined) await this.#step()
        else await this.#join()
        this.#retryPause = MIN_RETRY_MS
      } catch {
        if (this.#isRunning) await this.#wait(this.#retryPause)
        this.#retryPause = Math.min(2 * this.#retryPause, MAX_RETRY_MS)
      }
    }
    if (this.#state === 'stopping') await this.#leave()
  }

  async #join(): Promise<void> {
    if (this.#state !== 'starting') this.#moveTo('starting')
    this.#mayBeJoined = true
    const detached = await this.#source.join()
    if (detached) return this.#onDetached()
    this.#isJoined = true
    if (this.#isRunning) this.#receiver.onStarted?.()
  }

  async #step(): Promise<void> {
    this.#handOver()
    if (!this.#isRunning || !this.#isJoined) return
    const { room, hasNews } = this.#source
    const mayFetch = this.#left > 0 && this.#buffer.size === 0 && room > 0
    const want = mayFetch && this.#receiver.wantsFetch() ? Math.min(room, this.#left) : 0
    if (want <= 0 && !hasNews) return this.#wait(POLL_MS)
    this.#moveTo('fetching')
    this.#isAwake = false
    if (want > 0) this.#receiver.onFetch?.()
    const reply = await this.#source.fetch(Math.max(0, want))
    if (reply.kind === 'detached') return this.#onDetached()
    if (reply.kind === 'lost') return this.#forget()
    for (const message of reply.messages) this.#buffer.push(message)
    this.#setFence(reply.fence)
    this.#handOver()
    if (!this.#isRunning || !this.#isJoined || !reply.isAll) return
    const newsDelay = this.#source.hasNews ? NEWS_DELAY_MS : POLL_MS
    await this.#wait(Math.min(reply.askAfter ?? POLL_MS, newsDelay))
  }

  async #onDetached(): Promise<void> {
    this.#forget()
    const recovery = await this.#attachment.recover()
    if (!this.#isRunning) return
    if (recovery === 'lost') this.abandon()
    else if (recovery === 'later') await this.#wait(MAX_RETRY_MS)
  }

  /** What was fetched and not handed over is lost here. */
  #forget(): void {
    while (this.#buffer.shift());
    this.#source.onLost()
    this.#isJoined = false
    this.#setFence(0)
  }

  #setFence(fence: number): void {
    if (fence === this.#fence) return
    this.#fence = fence
    this.#receiver.onFence?.(fence)
  }

  #handOver(): void {
    while (this.#isRunning && this.#left > 0 && this.#buffer.size > 0) {
      if (!this.#receiver.wantsMessage()) break
      if (!this.#source.isValid) return this.#forget()
      const message = this.#buffer.shift() as Incoming
      this.#source.onHanded(message.id)
      this.#left--
      emit('deliver', { queue: this.#attachment.queue, id: message.id, redelivered: message.redelivered })
      this.#receiver.receive(message, this.#fence)
    }
    if (this.#left <= 0 && this.#source.isSettled && this.#isRunning) this.#moveTo('stopping')
  }

  /** Resolves after so many ms, or when something has happened. */
  async #wait(ms: number): Promise<void> {
    this.#moveTo('waiting')
    if (!this.#isAwake) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        this.#timer = this.#context.clock.after(ms, resolve, true)
      })
      this.#timer?.cancel()
    }
    this.#isAwake = false
  }

  async #leave(): Promise<void> {
    const unhanded: number[] = []
    for (let message = this.#buffer.shift(); message; message = this.#buffer.shift())
      unhanded.push(message.id)
    try {
      if (!this.#mayBeJoined) return
      // A consumer that is lost here may be known there, and would be renewed with the attachment. What it has handed over must
      // not be returned: by joining again, that is settled as if its lease were over.
      if (!this.#isJoined && (await this.#source.join())) return
      await this.#source.leave(unhanded)
    } finally {
      if (this.#state === 'stopping') this.#moveTo('stopped')
    }
  }
}
