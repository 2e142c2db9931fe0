import { MIN_OBJECT_TTL } from '../limits.ts'
import { addMethods, checkNoMethods, type Persisted } from '../persisted/persisted-methods.ts'
import { isObjectOrNull } from './gateway-message.ts'
import type { Link } from './link.ts'
import { RemoteSubscription } from './subscription.ts'
import { checkRemoteName, ms } from './wire.ts'

/**
 * Gives an object the methods of a persisted one: see Bus.persistify. The version that was loaded or saved is known to the
 * gateway while they are connected: after an outage, `save` resolves with false until the object was loaded again.
 */
export function persistRemotely<T extends object>(
  name: string,
  object: T,
  properties: readonly (keyof T & string)[],
  link: Link,
): Persisted<T> {
  for (const property of properties) checkRemoteName('properties', property)
  checkNoMethods(object, properties)
  const state = new RemoteObject(name, object as Record<string, unknown>, properties, link)
  return addMethods(object, name, state)
}

class RemoteObject {
  readonly #name: string
  readonly #object: Record<string, unknown>
  readonly #properties: readonly string[]
  readonly #link: Link
  readonly #subscription: RemoteSubscription
  #isOpen = false
  #ttl: number | undefined
  /** Calls of one object are done one after the other. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(name: string, object: Record<string, unknown>, properties: readonly string[], link: Link) {
    this.#name = name
    this.#object = object
    this.#properties = properties
    this.#link = link
    this.#subscription = new RemoteSubscription(name, link, {
      isEstablished: () => this.#isOpen,
      send: () => this.#sendOpen(),
      onRestoring: () => this.#ttl !== undefined && this.#keep(),
      onPush: () => {},
      onClosed: () => {},
    })
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(run)
    this.#last = turn.catch(() => {})
    return turn
  }

  /** Opens it at the gateway, once. */
  async #open(): Promise<void> {
    if (this.#isOpen) return
    this.#link.add(this.#subscription)
    await this.#sendOpen()
    this.#isOpen = true
  }

  #sendOpen(): Promise<unknown> {
    const members = { object: this.#name, properties: this.#properties }
    return this.#link.call('object', this.#name, members, { sub: this.#subscription.sub })
  }

  save(): Promise<boolean> {
    return this.#inTurn(async () => {
      await this.#open()
      const values = Object.fromEntries(
        this.#properties.map((property) => [property, this.#object[property]]),
      )
      return (await this.#link.call('save', this.#name, { sub: this.#subscription.sub, values })) === true
    })
  }

  load(): Promise<boolean> {
    return this.#inTurn(async () => {
      await this.#open()
      const members = { sub: this.#subscription.sub }
      const stored = await this.#link.call('load', this.#name, members, { isAnswer: isObjectOrNull })
      if (typeof stored !== 'object' || stored === null) return false
      for (const property of this.#properties)
        this.#object[property] = Object.hasOwn(stored, property)
          ? (stored as Record<string, unknown>)[property]
          : undefined
      return true
    })
  }

  persist(ttl: number): void {
    if (!(typeof ttl === 'number' && ttl >= MIN_OBJECT_TTL && Number.isFinite(ttl)))
      throw new TypeError(`Expected \`ttl\` to be a number of milliseconds from ${MIN_OBJECT_TTL}`)
    this.#ttl = ttl
    this.#inTurn(async () => {
      await this.#open()
      this.#keep()
    }).catch(() => {})
  }

  #keep(): void {
    const members = { sub: this.#subscription.sub, ttl: ms(this.#ttl) }
    this.#link.call('keep', this.#name, members).catch(() => {})
  }

  unpersist(): void {
    this.#ttl = undefined
    if (this.#isOpen) this.#keep()
  }
}
