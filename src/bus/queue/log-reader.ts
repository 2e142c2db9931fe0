import type { BusContext } from '../context.ts'
import type { Detached, Lost, Taken } from '../store/store.ts'
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
  /** Id of the last message that was handed over. */
  #handed: number
  /** How often what was fetched was lost. */
  #losses = 0
  /** The life of the queue in which it has this id; undefined: nothing was fetched. */
  #life: string | undefined

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
    this.#handed = index
  }

  get room(): number {
    return this.#prefetch
  }

  async join(): Promise<undefined> {}

  async fetch(want: number): Promise<Taken | Lost | Detached> {
    const { member, address, life } = this.#attachment.place
    // The queue was remade: its ids count from 1.
    if (this.#life !== undefined && this.#life !== life) this.#after = this.#handed = 0
    this.#life = life
    const { queues } = member.instance
    const losses = this.#losses
    const reply = await queues.read(this.#queue, address, this.#after, want, this.#context.within)
    if (reply.kind !== 'taken') return reply
    // What was fetched before it is lost, or the queue was remade.
    if (losses !== this.#losses) return { kind: 'lost' }
    // Lower than before, if the queue has lost messages.
    this.#handed = Math.min(this.#handed, (reply.messages[0]?.id ?? reply.after + 1) - 1)
    this.#after = reply.after
    return reply
  }

  onHanded(id: number): void {
    this.#handed = id
  }

  /** What was fetched and not handed over is read again. */
  onLost(): void {
    this.#losses++
    this.#after = this.#handed
  }

  async leave(): Promise<void> {}
}
