import type { Timer } from '../../kernel/time.ts'
import type { BusContext } from '../context.ts'
import { resolveChannelOptions } from './options.ts'
import { Outbound } from './outbound.ts'

/** How long a role to which nothing is sent any more stays attached, ms. */
const IDLE_MS = 30_000

/** A role, while messages are sent to it. */
interface Sender {
  readonly outbound: Promise<Outbound>
  /** Messages that are under way. */
  sending: number
  idle: Timer | undefined
  stopListening: () => void
}

/** Sends messages to roles of a channel without taking one. */
export class RoleSenders {
  readonly #context: BusContext
  readonly #queueOf: (role: string) => string
  readonly #senders = new Map<string, Sender>()

  constructor(context: BusContext, queueOf: (role: string) => string) {
    this.#context = context
    this.#queueOf = queueOf
  }

  /** @throws QueueFullError, UnavailableError, OverloadedError, ClosedError */
  async send(role: string, bytes: Buffer): Promise<number> {
    const sender = this.#senders.get(role) ?? this.#open(role)
    sender.idle?.cancel()
    sender.sending++
    try {
      return await (await sender.outbound).send(bytes, 'user')
    } finally {
      sender.sending--
      if (sender.sending === 0)
        sender.idle = this.#context.clock.after(IDLE_MS, () => void this.#close(role, sender), true)
    }
  }

  #open(role: string): Sender {
    const outbound = new Outbound(this.#queueOf(role), this.#context, {
      onHolder: () => {},
      onLost: () => this.#forget(role, sender),
    })
    const opened = outbound.attach(resolveChannelOptions({})).then(() => outbound)
    const sender: Sender = { outbound: opened, sending: 0, idle: undefined, stopListening: () => {} }
    sender.stopListening = this.#context.onDisconnect(() => this.#close(role, sender))
    this.#senders.set(role, sender)
    opened.catch(() => this.#forget(role, sender))
    return sender
  }

  #forget(role: string, sender: Sender): void {
    if (this.#senders.get(role) === sender) this.#senders.delete(role)
    sender.idle?.cancel()
    sender.stopListening()
  }

  /** Never rejects. */
  async #close(role: string, sender: Sender): Promise<void> {
    this.#forget(role, sender)
    await sender.outbound.then(
      (outbound) => outbound.detach(),
      () => {},
    )
  }
}
