/** A table is rebuilt after so many additions, or twice as many as it has entries if that is more. */
const REBUILD_AFTER = 256

/**
 * A Map whose entries live briefly. A table that V8 has replaced by rehashing keeps its entries and its successor alive
 * until the old generation is collected: if a few entries come and go by the thousand in a Map that stays, whatever they
 * held survives for long, and collecting it costs more than the work itself. Hence this one takes a new Map now and then.
 */
export class ChurnMap<K, V> {
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

/** A Set whose members live briefly: see {@link ChurnMap}. */
export class ChurnSet<T> {
  readonly #map = new ChurnMap<T, T>()

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
