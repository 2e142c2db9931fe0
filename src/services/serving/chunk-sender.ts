import type { SoloflightError } from '../../errors.ts'
import type { Clock, Timer } from '../../kernel/time.ts'
import { CREDIT_INTERVAL_MS, chunkMessage, WINDOW } from '../messages.ts'
import type { Message } from '../store/store.ts'

/** A caller that says nothing for this long has gone. */
const CALLER_LOST_MS: number = 3 * CREDIT_INTERVAL_MS

export function isStream(value: unknown): value is AsyncIterable<unknown> {
  return (
    typeof (value as Partial<AsyncIterable<unknown>> | null | undefined)?.[Symbol.asyncIterator] ===
    'function'
  )
}

/** What a sender needs of its call. */
export interface ChunkSenderDeps {
  /** Of the call. */
  readonly id: string
  /** Address of this process. */
  readonly process: string
  readonly clock: Clock
  /** @throws CodecError, TooLargeError */
  encode(value: unknown): Buffer
  /** Sends a message to the caller, best effort. */
  send(message: Message): void
  /** The caller has died. Must cancel. */
  onCallerLost(): void
}

/**
 * Sends the chunks of a streamed reply. At most {@link WINDOW} chunks are under way: each is kept until the caller has taken
 * it, and sent again when the caller asks after a gap in its subscription. Pulls the source only while the window is open.
 */
export class ChunkSender {
  readonly #deps: ChunkSenderDeps
  /** Chunks that the caller has not taken yet; the first has the index `#taken`. */
  readonly #kept: Message[] = []
  #taken = 0
  #heardAt: number
  /** Resumes {@link sendAll} when the window opens. */
  #resume: (() => void) | undefined
  /** Looks whether the caller lives, while the window is full. */
  #watch: Timer | undefined
  /** Rejects what {@link sendAll} waits for. */
  #fail: ((reason: unknown) => void) | undefined
  #cancelled: SoloflightError | undefined

  constructor(deps: ChunkSenderDeps) {
    this.#deps = deps
    this.#heardAt = deps.clock.now()
  }

  /** Number of chunks that were sent. */
  get sent(): number {
    return this.#taken + this.#kept.length
  }

  /** Bytes of the chunks that the caller has not taken yet. */
  get keptBytes(): number {
    return this.#kept.reduce((bytes, { body }) => bytes + body.length, 0)
  }

  /**
   * Sends all chunks. Resolves with their number when the caller has taken all but the last window. Rejects when the call is
   * cancelled, even if the source hangs.
   */
  async sendAll(values: AsyncIterable<unknown>): Promise<number> {
    const source = values[Symbol.asyncIterator]()
    for (;;) {
      const next = await this.#orCancelled<IteratorResult<unknown>>(source, (resolve, reject) => {
        Promise.resolve(source.next()).then(resolve, reject)
      })
      if (next.done) return this.sent
      try {
        this.#send(this.#deps.encode(next.value))
      } catch (error) {
        endSource(source)
        throw error
      }
      while (this.#kept.length >= WINDOW) {
        await this.#orCancelled<void>(source, (resolve) => {
          this.#resume = resolve
          this.#watchCaller()
        })
      }
    }
  }

  #send(body: Buffer): void {
    const { id, process } = this.#deps
    const message = chunkMessage(id, process, this.sent, body)
    this.#kept.push(message)
    this.#deps.send(message)
  }

  /** Waits; if the call is cancelled meanwhile, ends the source. */
  #orCancelled<T>(
    source: AsyncIterator<unknown>,
    begin: (resolve: (value: T) => void, reject: (reason: unknown) => void) => void,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#fail = (reason) => {
        endSource(source)
        reject(reason)
      }
      if (this.#cancelled) this.#fail(this.#cancelled)
      else begin(resolve, reject)
    })
  }

  /** A caller that has died takes no more chunks: its call ends. */
  #watchCaller(): void {
    const { clock } = this.#deps
    const left = this.#heardAt + CALLER_LOST_MS - clock.now()
    this.#watch?.cancel()
    this.#watch = clock.after(
      Math.max(0, left),
      () => {
        if (!this.#callerIsSilent) return this.#watchCaller()
        this.#deps.onCallerLost()
      },
      true,
    )
  }

  /** The caller has taken the chunks before this index. */
  onCredit(received: number): void {
    this.#heardAt = this.#deps.clock.now()
    const taken = Math.min(received, this.sent) - this.#taken
    if (taken <= 0) return
    this.#kept.splice(0, taken)
    this.#taken += taken
    if (this.#kept.length >= WINDOW) return
    this.#resume?.()
    this.#stopWaiting()
  }

  #stopWaiting(): void {
    this.#resume = undefined
    this.#watch?.cancel()
    this.#watch = undefined
  }

  /** Nobody has heard a chunk. The caller may only have lost its subscription: it asks when that is up again. */
  onUnheard(): void {
    if (this.#callerIsSilent) this.#deps.onCallerLost()
  }

  get #callerIsSilent(): boolean {
    return this.#deps.clock.now() >= this.#heardAt + CALLER_LOST_MS
  }

  /** Sends again what the caller has not taken. */
  resend(): void {
    this.#heardAt = this.#deps.clock.now()
    for (const message of this.#kept) this.#deps.send(message)
  }

  cancel(reason: SoloflightError): void {
    this.#cancelled = reason
    this.#stopWaiting()
    this.#fail?.(reason)
  }
}

/** Does not wait for it: the source may hang. What it throws concerns nobody. */
function endSource(source: AsyncIterator<unknown>): void {
  try {
    source.return?.().then(undefined, () => {})
  } catch {
    // Its `return` is not that of an AsyncIterator.
  }
}
