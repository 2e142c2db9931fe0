import { ClosedError, NotAttachedError } from '../../errors.ts'
import type { BusContext } from '../context.ts'
import { Attachment, type AttachTerms } from '../queue/attachment.ts'
import { Pusher } from '../queue/pusher.ts'
import type { Holder } from '../store/store.ts'

/** Receives what concerns the role that messages are sent to. */
export interface OutboundListener {
  /** Another process may have the role, or none. */
  onHolder(): void
  /** Nothing can be sent any more. `closed`: the role was ended. Otherwise this process stood still for longer than its lease. */
  onLost(closed: boolean): void
}

/** Sends messages to one role of a channel. */
export class Outbound {
  readonly #queue: string
  readonly #context: BusContext
  readonly #attachment: Attachment
  readonly #pusher: Pusher
  /** Why nothing can be sent any more. */
  #lost: Error | undefined

  constructor(queue: string, context: BusContext, listener: OutboundListener) {
    this.#queue = queue
    this.#context = context
    const events = {
      onSignal: (signal: string) => {
        if (signal === 'room') this.#pusher.onRoom()
        else listener.onHolder()
      },
      onUp: () => {
        this.#pusher.onRoom()
        listener.onHolder()
      },
      onRemade: () => listener.onHolder(),
      onLost: ({ closed }: { closed: boolean }) => {
        this.#lost = closed
          ? new ClosedError('The channel was ended', { key: queue })
          : new NotAttachedError('This process stood still for longer than its lease', { key: queue })
        this.#pusher.rejectAll(this.#lost)
        listener.onLost(closed)
      },
    }
    this.#attachment = new Attachment(queue, context, events, { watchesHolder: true })
    this.#pusher = new Pusher(queue, context, this.#attachment)
  }

  async attach(terms: AttachTerms): Promise<void> {
    await this.#attachment.attach(terms)
    this.#pusher.flush()
  }

  /** @throws ClosedError if the role was ended; NotAttachedError if this process stood still; QueueFullError; UnavailableError; OverloadedError. */
  send(bytes: Buffer, kind: 'user' | 'end'): Promise<number> {
    if (this.#lost) return Promise.reject(this.#lost)
    return this.#pusher.push({ key: '', kind, bytes }, 0)
  }

  async inspect(): Promise<Holder | undefined> {
    if (this.#lost) return undefined
    const { member } = this.#attachment.place
    return (await member.instance.queues.inspect(this.#queue, this.#context.within))?.holder
  }

  /** Sends what waits, and detaches. Never rejects. */
  async detach(): Promise<void> {
    await this.#pusher.drain()
    await this.#attachment.detach()
    this.#pusher.close()
  }
}
