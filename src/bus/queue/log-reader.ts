import type { BusContext } from '../context.ts'
import type { Detached, Taken } from '../store/store.ts'
import type { Attachment } from './attachment.ts'
import type { MessageSource } from './message-source.ts'

/** Reads the messages of a queue in order, and removes none. Its place survives reconnections. */
export class LogReader implements MessageSource {
  readonly hasNews = false
  readonly isValid = true
  readonly isSettled = true
  readonly #queue: string
  readonly #context: BusContext
  readonly #attachment: Attachment
  readonly #prefetch: number
  /** Id of the last message that was fetched. */
  #after: number

  constructor(
    queue: string,
    context: BusContext,
    attachment: Attachment,
    { index, prefetch }: { readonly index: number; readonly prefetch: number },
  ) {
    this.#queue = queue
    this.#context = context
    this.#attachment = attachment
    this.#prefetch = prefetch
    this.#after = index
  }

  get room(): number {
    return this.#prefetch
  }

  async join(): Promise<undefined> {}

  async fetch(want: number): Promise<Taken | Detached> {
    const { member, address } = this.#attachment.place
    const { queues } = member.instance
    const reply = await queues.read(this.#queue, address, this.#after, want, this.#context.within)
    if (reply.kind === 'taken') this.#after = reply.messages.at(-1)?.id ?? this.#after
    return reply
  }

  onHanded(): void {}

  /** The queue was remade: its ids count from 1. */
  onLost(): void {
    this.#after = 0
  }

  async leave(): Promise<void> {}
}
