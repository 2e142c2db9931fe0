import type { Push } from './gateway-message.ts'
import type { Link, LinkSubscription } from './link.ts'
import { Later } from './timers.ts'
import { RETRY_MS } from './wire.ts'

/** What a subscription needs of its object. */
export interface SubscriptionDeps {
  /** Whether the gateway has answered: only then is it restored. */
  isEstablished(): boolean
  /** Subscribes. Sends at once what it sends. Rejects if the gateway refuses it. */
  send(): Promise<unknown>
  /** It is being restored: what follows is sent behind it. */
  onRestoring?(): void
  onPush(push: Push): void
  /** The socket has ended. */
  onLost?(): void
  /** The bus was disconnected. */
  onClosed(): void
}

/**
 * What an object of the bus has subscribed to at the gateway: it is restored by each new socket, until it is forgotten. If the
 * store does not answer the gateway, it is restored again after a pause.
 *
 * Each has its own id: what still comes of an earlier one is not of this one.
 */
export class RemoteSubscription implements LinkSubscription {
  readonly sub: string
  readonly #name: string
  readonly #link: Link
  readonly #deps: SubscriptionDeps
  readonly #retry = new Later()
  #state: 'kept' | 'forgotten' = 'kept'

  /** `name`: of the object. */
  constructor(name: string, link: Link, deps: SubscriptionDeps) {
    this.sub = link.newSub()
    this.#name = name
    this.#link = link
    this.#deps = deps
  }

  restore(): void {
    if (this.#state === 'forgotten' || !this.#deps.isEstablished()) return
    this.#retry.cancel()
    // Another socket restores it anyway.
    const retry = () => this.#link.isOnline && this.restore()
    this.#deps.send().catch(() => this.#retry.after(RETRY_MS, retry))
    this.#deps.onRestoring?.()
  }

  onPush(push: Push): void {
    this.#deps.onPush(push)
  }

  onLost(): void {
    this.#deps.onLost?.()
  }

  onClosed(): void {
    this.#deps.onClosed()
  }

  /** Nothing comes of it any more. The gateway may still have it. */
  forget(): void {
    this.#state = 'forgotten'
    this.#retry.cancel()
    this.#link.delete(this.sub)
  }

  /** Ends it at the gateway; one that is away has ended it. Never rejects. */
  async end(): Promise<void> {
    if (this.#link.isOnline) await this.#link.call('end', this.#name, { sub: this.sub }).catch(() => {})
  }
}
