import { TooLargeError, UnavailableError } from '../../errors.ts'
import { decodeWith, encodeWith } from '../../kernel/codec/codec.ts'
import { newId } from '../../kernel/keys.ts'
import { durationFrom } from '../../kernel/options.ts'
import { outsideWork, RENEW_AFTER, type Timer } from '../../kernel/time.ts'
import type { BusContext, Member } from '../context.ts'
import { MIN_OBJECT_TTL } from '../limits.ts'
import type { SaveRequest, StoredObject } from '../store/store.ts'

/** How long an object lives after it was saved, ms, unless it is persisted. */
export const OBJECT_TTL = 60_000

/** Pause before a first renewal that failed is repeated, ms. */
const RETRY_PAUSE = 1_000

const checkTtl = durationFrom(MIN_OBJECT_TTL)

/** What is known of the stored object, and what saves and loads it. */
export class PersistedState {
  readonly #name: string
  readonly #object: Record<string, unknown>
  readonly #properties: readonly string[]
  readonly #context: BusContext
  /** The version that was loaded or saved; '': it does not exist, as far as is known. */
  #version = ''
  /** The properties of that version, encoded. */
  #saved: ReadonlyMap<string, Buffer> = new Map()
  /** A save of which is not known whether it was done. */
  #uncertain: SaveRequest | undefined
  /** Settles when the last call is over. Never rejects. */
  #last: Promise<unknown> = Promise.resolve()
  /** Of `persist`, ms; undefined: it is not persisted. */
  #ttl: number | undefined
  /** Where the object was found last. */
  #member: Member | undefined
  #stopRenewing: (() => void) | undefined
  #stopWatching: (() => void) | undefined

  constructor(
    name: string,
    object: Record<string, unknown>,
    properties: readonly string[],
    context: BusContext,
  ) {
    this.#name = name
    this.#object = object
    this.#properties = properties
    this.#context = context
  }

  async save(): Promise<boolean> {
    this.#context.assertOpen()
    return this.#enqueue(async () => {
      // If it was done, it is the version that the next one changes.
      if (this.#uncertain && !(await this.#request(this.#uncertain))) return false
      const changed = this.#changes()
      if (this.#version !== '' && changed.size === 0) return this.#keep()
      return this.#request(this.#saveRequest(newId(), changed))
    })
  }

  async load(): Promise<boolean> {
    this.#context.assertOpen()
    return this.#enqueue(async () => {
      const found = await this.#find()
      this.#uncertain = undefined
      if (!found) {
        this.#version = ''
        this.#saved = new Map()
        return false
      }
      const { codec } = this.#context
      const values = this.#properties.map((property) => {
        const bytes = found.properties.get(property)
        return [property, bytes && decodeWith(codec, bytes, `${this.#name}.${property}`)] as const
      })
      for (const [property, value] of values) this.#object[property] = value
      this.#version = found.version
      this.#saved = found.properties
      return true
    })
  }

  persist(ttl: number): void {
    this.#context.assertOpen()
    checkTtl('ttl', ttl)
    this.unpersist()
    this.#ttl = ttl
    this.#stopWatching = this.#context.onDisconnect(async () => this.unpersist())
    this.#renew(ttl)
  }

  unpersist(): void {
    this.#ttl = undefined
    this.#stopRenewing?.()
    this.#stopRenewing = undefined
    this.#stopWatching?.()
    this.#stopWatching = undefined
  }

  #enqueue<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#last.then(run)
    this.#last = result.catch(() => {})
    return result
  }

  /** The properties that differ from the stored ones, encoded. @throws CodecError, TooLargeError. */
  #changes(): Map<string, Buffer> {
    const { codec, maxMessage } = this.#context
    const changed = new Map<string, Buffer>()
    let size = 0
    for (const property of this.#properties) {
      const value = this.#object[property]
      const saved = this.#saved.get(property)
      // It is loaded as undefined anyway.
      if (value === undefined && !saved) continue
      const bytes = encodeWith(codec, value)
      size += bytes.length
      if (!saved?.equals(bytes)) changed.set(property, bytes)
    }
    if (size > maxMessage)
      throw new TooLargeError(`The properties have ${size} bytes, more than ${maxMessage}`, {
        key: this.#name,
      })
    return changed
  }

  #saveRequest(version: string, properties: ReadonlyMap<string, Buffer>): SaveRequest {
    return { base: this.#version, version, properties, ttl: this.#ttl ?? OBJECT_TTL }
  }

  /** Resolves with whether the object is the version that is known here. Then it lives on. */
  async #keep(): Promise<boolean> {
    // A save of the present version changes nothing.
    const isPresent = await this.#request(this.#saveRequest(this.#version, new Map()))
    const { within } = this.#context
    const ttls = new Map([[this.#name, this.#ttl ?? OBJECT_TTL]])
    const [error] = (isPresent && (await this.#member?.instance.objects.renew(ttls, within))) || []
    if (error) throw error
    return isPresent
  }

  async #request(request: SaveRequest): Promise<boolean> {
    const { places, within } = this.#context
    let member: Member | undefined
    let saved: boolean
    try {
      saved = await places.place('object', this.#name, async (found) => {
        member = found
        return found.instance.objects.save(this.#name, request, within)
      })
    } catch (error) {
      if (error instanceof UnavailableError && error.sent) this.#uncertain = request
      throw error
    }
    this.#uncertain = undefined
    if (!saved) {
      places.forget('object', this.#name)
      return false
    }
    this.#version = request.version
    this.#saved = new Map([...this.#saved, ...request.properties])
    this.#foundAt(member)
    return true
  }

  /** The stored object. If it has expired where it was, it may have been made elsewhere. */
  async #find(): Promise<StoredObject | undefined> {
    const { places, within } = this.#context
    let before: Member | undefined
    for (;;) {
      const member = await places.find('object', this.#name)
      if (member === before) return undefined
      before = member
      const found = await member?.instance.objects.load(this.#name, within)
      if (found) {
        this.#foundAt(member)
        return found
      }
      places.forget('object', this.#name)
    }
  }

  #foundAt(member: Member | undefined): void {
    if (member === this.#member) return
    this.#member = member
    if (this.#ttl !== undefined) this.#renew(this.#ttl)
  }

  /** Renews the object now, and from now on. If it is not known where it is, from the next save or load on. */
  #renew(ttl: number): void {
    this.#stopRenewing?.()
    const { places, clock, within } = this.#context
    let isOver = false
    let timer: Timer | undefined
    let endLease: (() => void) | undefined
    this.#stopRenewing = () => {
      isOver = true
      timer?.cancel()
      endLease?.()
    }
    const begin = async () => {
      const member = this.#member ?? (await places.find('object', this.#name))
      const [error] = (await member?.instance.objects.renew(new Map([[this.#name, ttl]]), within)) ?? []
      if (error) throw error
      if (member && !isOver)
        endLease = member.objectLeases.add([this.#name, ttl], ttl * RENEW_AFTER, () => {})
    }
    const beginLater = () => {
      if (!isOver) timer = clock.after(RETRY_PAUSE, () => void begin().catch(beginLater), true)
    }
    outsideWork(() => void begin().catch(beginLater))
  }
}
