// Objects that live for one call must die in V8's young generation. In the old generation they, and all objects that they
// refer to, live on until the next major collection: that cost ordinary calls a fifth of their time and most of their p99.
// Two properties of V8 make such objects old:
// - A hash table that was rehashed keeps its entries and its successor alive. The collections below are therefore rebuilt.
// - If objects of one literal often survive, V8 allocates all later objects of that literal in the old generation
//   ("allocation site pretenuring"). It does not do so for constructors. Objects that a waiting call keeps, and that refer
//   to others, are therefore instances of classes.

/** A collection is rebuilt after this many additions, or after twice as many as it has entries if that is more. */
const REBUILD_AFTER = 256

/** A Map for short-lived entries. It is copied into a new Map now and then, so that V8 can collect removed entries. */
export class TransientMap<K, V> {
  #map = new Map<K, V>()
  #added = 0
  /** Iterations in progress. They must see changes, as iterations of a Map do, so the map is not rebuilt meanwhile. */
  #readers = 0

  get size(): number {
    return this.#map.size
  }

  get(key: K): V | undefined {
    return this.#map.get(key)
  }

  has(key: K): boolean {
    return this.#map.has(key)
  }

  set(key: K, value: V): void {
    if (++this.#added > REBUILD_AFTER && this.#added > 2 * this.#map.size && this.#readers === 0) {
      this.#map = new Map(this.#map)
      this.#added = 0
    }
    this.#map.set(key, value)
  }

  delete(key: K): boolean {
    return this.#map.delete(key)
  }

  *entries(): Generator<[K, V], void> {
    this.#readers++
    try {
      yield* this.#map
    } finally {
      this.#readers--
    }
  }

  *values(): Generator<V, void> {
    for (const [, value] of this.entries()) yield value
  }
}

/** A Set for short-lived members: see {@link TransientMap}. */
export class TransientSet<T> {
  readonly #map = new TransientMap<T, T>()

  get size(): number {
    return this.#map.size
  }

  has(member: T): boolean {
    return this.#map.has(member)
  }

  add(member: T): void {
    this.#map.set(member, member)
  }

  delete(member: T): boolean {
    return this.#map.delete(member)
  }

  [Symbol.iterator](): Generator<T, void> {
    return this.#map.values()
  }
}

/** Sets of short-lived members, by a key: see {@link TransientMap}. A set without members is removed. */
export class TransientSetMap<K, T> {
  readonly #sets = new TransientMap<K, Set<T>>()

  add(key: K, member: T): void {
    const set = this.#sets.get(key)
    if (set) set.add(member)
    else this.#sets.set(key, new Set([member]))
  }

  delete(key: K, member: T): void {
    const set = this.#sets.get(key)
    if (set?.delete(member) && set.size === 0) this.#sets.delete(key)
  }

  /** The present members of a key. */
  of(key: K): T[] {
    return [...(this.#sets.get(key) ?? [])]
  }

  /** The present members of all keys. */
  all(): T[] {
    return [...this.#sets.values()].flatMap((set) => [...set])
  }
}

/** Adds a listener to those of a key. The returned function removes it. */
export function listenTo(
  listeners: Map<string, Set<() => void>>,
  key: string,
  heard: () => void,
): () => void {
  const set = listeners.get(key) ?? new Set()
  listeners.set(key, set)
  set.add(heard)
  return () => {
    if (set.delete(heard) && set.size === 0 && listeners.get(key) === set) listeners.delete(key)
  }
}

/** A class instead of a literal: see the head of this file. */
class Link<T> {
  readonly item: T
  next: Link<T> | undefined

  constructor(item: T) {
    this.item = item
  }
}

/** A first-in, first-out queue. All operations take constant time. */
export class Fifo<T> {
  #head: Link<T> | undefined
  #tail: Link<T> | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  get first(): T | undefined {
    return this.#head?.item
  }

  push(item: T): void {
    const link = new Link(item)
    if (this.#tail) this.#tail.next = link
    else this.#head = link
    this.#tail = link
    this.#size++
  }

  shift(): T | undefined {
    const link = this.#head
    if (!link) return undefined
    this.#head = link.next
    if (!link.next) this.#tail = undefined
    // A removed link in the old generation would otherwise keep all later links alive.
    link.next = undefined
    this.#size--
    return link.item
  }
}

/** Different numbers, in order. Adding and removing take time in proportion to those that are greater. */
export class SortedIds {
  readonly #ids: number[] = []

  get size(): number {
    return this.#ids.length
  }

  get first(): number | undefined {
    return this.#ids[0]
  }

  [Symbol.iterator](): IterableIterator<number> {
    return [...this.#ids][Symbol.iterator]()
  }

  add(id: number): void {
    const at = this.#place(id)
    if (this.#ids[at] !== id) this.#ids.splice(at, 0, id)
  }

  delete(id: number): boolean {
    const at = this.#place(id)
    return this.#ids[at] === id && this.#ids.splice(at, 1).length === 1
  }

  clear(): void {
    this.#ids.length = 0
  }

  /** Where an id is, or belongs. */
  #place(id: number): number {
    let [low, high] = [0, this.#ids.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#ids[middle] as number) < id) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** The legal transitions of a state machine: for each state, the states that may follow it. */
export type Transitions<State extends string> = { readonly [From in State]: readonly State[] }

/** @throws Error when `to` may not follow `from`: that is always a bug of this library. */
export function assertTransition<State extends string>(
  machine: string,
  transitions: Transitions<State>,
  from: State,
  to: State,
): void {
  if (!transitions[from].includes(to)) throw new Error(`Illegal transition of a ${machine}: ${from} to ${to}`)
}
