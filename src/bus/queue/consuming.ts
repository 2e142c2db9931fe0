import { AlreadyAttachedError } from '../../errors.ts'
import type { BusContext } from '../context.ts'
import type { Attachment } from './attachment.ts'
import { Consumer, type ConsumerTerms } from './consumer.ts'
import { Consumption } from './consumption.ts'
import { LogReader } from './log-reader.ts'
import { LostMessages } from './lost-messages.ts'
import type { Receiver } from './receivers.ts'

/** What is consumed, and how. */
export interface ConsumingTerms extends ConsumerTerms {
  readonly max: number
  readonly remove: boolean
  readonly index: number
}

/** One consumption, which begins when the queue is attached. */
interface Wanted {
  readonly terms: ConsumingTerms
  readonly receiver: Receiver
  /** Called when it is over. `error`: the attachment has expired. */
  readonly onEnd: (error?: Error) => void
  running: Consumption | undefined
}

/** The consumption of one queue object: one at a time. */
export class Consuming {
  readonly #queue: string
  readonly #context: BusContext
  readonly #attachment: Attachment
  readonly #onChange: (on: boolean) => void
  readonly #lost: LostMessages
  #wanted: Wanted | undefined
  /** Of the last consumption. */
  #consumer: Consumer | undefined
  #isPostponed = false

  /** `onChange`: a consumption has begun, or is over. */
  constructor(queue: string, context: BusContext, attachment: Attachment, onChange: (on: boolean) => void) {
    this.#queue = queue
    this.#context = context
    this.#attachment = attachment
    this.#onChange = onChange
    this.#lost = new LostMessages(queue)
  }

  /** Whether a consumption has begun, and is not over. */
  get isRunning(): boolean {
    return this.#wanted?.running !== undefined
  }

  /** Whether it consumes, or will when the queue is attached. */
  get isActive(): boolean {
    return this.#wanted !== undefined
  }

  /** @throws AlreadyAttachedError */
  begin(terms: ConsumingTerms, receiver: Receiver, onEnd: (error?: Error) => void): void {
    if (this.#wanted) throw new AlreadyAttachedError('The queue object consumes', { key: this.#queue })
    this.#wanted = { terms, receiver, onEnd, running: undefined }
    this.#consumer = undefined
    if (!this.#isPostponed) this.#begin()
  }

  /** Begins what is wanted. */
  onAttached(): void {
    this.#isPostponed = false
    this.#begin()
  }

  /** The queue is being detached: what is wanted from now on begins when it is attached again. */
  postpone(): void {
    this.#isPostponed = true
  }

  #begin(): void {
    const wanted = this.#wanted
    if (!wanted || wanted.running || !this.#attachment.isAttached) return
    const { terms, receiver } = wanted
    const events = { onNews: () => wanted.running?.resume(), onLeaseLost: () => wanted.running?.onLost() }
    if (terms.remove)
      this.#consumer = new Consumer(this.#queue, this.#context, this.#attachment, terms, events, this.#lost)
    const source = this.#consumer ?? new LogReader(this.#queue, this.#context, this.#attachment, terms)
    const running = new Consumption(this.#context, this.#attachment, source, receiver, terms.max)
    wanted.running = running
    this.#onChange(true)
    const onEnd = () => {
      if (this.#wanted === wanted) this.#end()
    }
    running.ended.then(onEnd, onEnd)
  }

  /** Messages may be available, or the receiver may be ready. */
  resume(): void {
    this.#wanted?.running?.resume()
  }

  /** The queue was remade. */
  onRemade(): void {
    this.#wanted?.running?.onLost()
  }

  /** The attachment is over. `error`: because it has expired. */
  abandon(error: Error | undefined): void {
    // What is to begin with the next attach is not concerned.
    if (!this.#wanted?.running) return
    this.#wanted.running.abandon()
    this.#end(error)
  }

  #end(error?: Error): void {
    const wanted = this.#wanted
    if (!wanted) return
    this.#wanted = undefined
    wanted.onEnd(error)
    if (wanted.running) this.#onChange(false)
  }

  /** Resolves when what it holds is returned. @throws UnavailableError, OverloadedError, ClosedError */
  async stop(): Promise<void> {
    const running = this.#wanted?.running
    if (!running) return this.#end()
    try {
      await running.stop()
    } finally {
      // Before the listeners of `ended`.
      if (this.#wanted?.running === running) this.#end()
    }
  }

  /** Whether messages go to this receiver. */
  isFor(receiver: Receiver): boolean {
    return this.#wanted?.receiver === receiver
  }

  /** Acknowledges this message alone: it cannot be decoded, and would come again for ever. */
  drop(id: number): void {
    this.#consumer?.drop(id)
  }

  /** @throws LeaseLostError, UnavailableError, OverloadedError, ClosedError */
  async ack(id: number): Promise<void> {
    await this.#consumer?.ack(id)
    // It may be a message of an earlier consumption.
    if (this.#lost.has(id)) throw this.#lost.error()
  }
}
