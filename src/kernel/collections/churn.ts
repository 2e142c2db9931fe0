// What lives for one call must be young when it dies, or all that it refers to lives on until V8 collects the old
// generation: that cost ordinary calls a fifth of their time, and most of their p99. Two habits of V8 make it old:
// - A table that was rehashed keeps its entries and its successor alive: hence the tables below.
// - When the collector often finds alive what an object or array literal made, V8 allocates all that the literal makes from
//   then on in the old generation ("allocation site pretenuring"). What a constructor makes is always young. So objects
//   that a call keeps while it waits, and that refer to others, are made by constructors.

/** A table is rebuilt after so many additions, or twice as many as it has entries if that is more. */
const REBUILD_AFTER = 256

/** A Map whose entries live briefly: it takes a new Map now and then, since one that stays keeps what was in it alive. */
export class TransientMap<K, V> {
  #map = new Map<K, V>()
  #added = 0
  /** Iterations that are under way: they show what changes meanwhile, as those of a Map do, so it is not rebuilt. */
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

  *values(): Generator<V, void> {
    this.#readers++
    try {
      yield* this.#map.values()
    } finally {
      this.#readers--
    }
  }
}

/** A Set whose members live briefly: see {@link TransientMap}. */
export class TransientSet<T> {
  readonly #map = new TransientMap<T, T>()

  get size(): number {
    return this.#map.size
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
