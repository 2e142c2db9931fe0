import { decodeWith } from '../../kernel/codec/codec.ts'
import type { Timer } from '../../kernel/time.ts'
import { CREDIT_INTERVAL_MS, creditMessage, WINDOW } from '../messages.ts'
import type { CallingDeps, CallTerms } from './call-terms.ts'
import { OutgoingCall } from './outgoing-call.ts'
import type { ReplySource } from './reply-iterator.ts'

/** The end of a streamed reply: after so many chunks, with an error or without. */
interface End {
  readonly chunks: number
  readonly settle: () => void
}

/**
 * A call with a streamed reply. Chunks arrive in any order and perhaps twice, after a gap in the subscription; they are
 * taken in order. The sender is told what was taken, so that it may send more. `timeout` limits the wait for each chunk.
 */
export class StreamCall extends OutgoingCall implements ReplySource<unknown> {
  readonly #event: string
  readonly #deps: CallingDeps
  /** Chunks that were not taken yet, by index. */
  readonly #chunks = new Map<number, Buffer>()
  #taken = 0
  #credited = 0
  #end: End | undefined
  /** Resolves the read that waits for a chunk. */
  #wake: (() => void) | undefined
  #settled = false
  #creditTimer: Timer | undefined

  constructor(terms: CallTerms, deps: CallingDeps) {
    super(terms, deps)
    this.#event = terms.event
    this.#deps = deps
    // Whoever reads learns of it.
    this.promise.catch(() => {})
    this.#creditLater()
  }

  protected override onChunk(index: number, body: Buffer): void {
    if (index < this.#taken || index >= this.#taken + 2 * WINDOW) return
    this.#chunks.set(index, body)
    // A later one, after a gap, is not what the reader waits for.
    if (index !== this.#taken) return
    this.stopTryTimer()
    this.#wake?.()
  }

  protected override onResult(body: Buffer, chunks: number): void {
    this.#onEnd({ chunks, settle: () => super.onResult(body, chunks) })
  }

  protected override onFailure(body: Buffer, chunks: number): void {
    this.#onEnd({ chunks, settle: () => super.onFailure(body, chunks) })
  }

  #onEnd(end: End): void {
    this.#end = end
    if (this.#taken >= end.chunks) end.settle()
  }

  async read(): Promise<IteratorResult<unknown, void>> {
    for (;;) {
      const chunk = this.#chunks.get(this.#taken)
      if (chunk) {
        this.#take()
        return { done: false, value: decodeWith(this.#deps.options.codec, chunk, this.#event, 'yes') }
      }
      if (this.#settled) {
        await this.promise
        return { done: true, value: undefined }
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  #take(): void {
    this.#chunks.delete(this.#taken)
    this.#taken++
    if (this.#taken - this.#credited >= WINDOW / 2) this.#credit()
    if (this.#end && this.#taken >= this.#end.chunks) this.#end.settle()
    else if (!this.#chunks.has(this.#taken)) this.startTryTimer()
  }

  leave(): void {
    this.abandon()
    this.resolve(undefined)
  }

  /** The handler does not know of the deadline. */
  override expire(): void {
    this.abandon()
    super.expire()
  }

  #credit(): void {
    const { process } = this
    if (process === undefined) return
    this.#credited = this.#taken
    const { store, storeTimeout } = this.#deps
    store.send(process, creditMessage(this.id, this.#taken), storeTimeout).catch(() => {})
  }

  /** Shows the sender that the reader lives. */
  #creditLater(): void {
    this.#creditTimer = this.#deps.clock.after(
      CREDIT_INTERVAL_MS,
      () => {
        this.#credit()
        this.#creditLater()
      },
      true,
    )
  }

  protected override onEnded(): void {
    this.#settled = true
    this.#creditTimer?.cancel()
    super.onEnded()
    this.#wake?.()
  }
}
