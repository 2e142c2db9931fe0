import type { Clock } from '../../kernel/time.ts'
import type { Member } from '../context.ts'
import type { RecordKind } from '../store/store.ts'

/** Places that are remembered, at most: the least recently used ones are dropped. */
const MAX_PLACES = 10_000

/**
 * How long a place is remembered after it was looked up, ms. A record that has expired and was made again elsewhere is found
 * there afterwards.
 */
const REMEMBERED_MS = 30_000

/** Where records were when they were looked up. */
export class PlaceCache {
  readonly #clock: Clock
  /** The most recently used last. */
  readonly #places = new Map<string, { readonly member: Member; readonly until: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get(kind: RecordKind, name: string): Member | undefined {
    const key = keyOf(kind, name)
    const place = this.#places.get(key)
    if (!place) return undefined
    this.#places.delete(key)
    if (place.until <= this.#clock.now()) return undefined
    this.#places.set(key, place)
    return place.member
  }

  set(kind: RecordKind, name: string, member: Member): void {
    const key = keyOf(kind, name)
    this.#places.delete(key)
    this.#places.set(key, { member, until: this.#clock.now() + REMEMBERED_MS })
    if (this.#places.size <= MAX_PLACES) return
    const [oldest] = this.#places.keys()
    if (oldest !== undefined) this.#places.delete(oldest)
  }

  delete(kind: RecordKind, name: string): void {
    this.#places.delete(keyOf(kind, name))
  }
}

function keyOf(kind: RecordKind, name: string): string {
  return `${kind} ${name}`
}
