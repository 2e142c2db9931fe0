/** The methods that `bus.persistify` adds to an object. Calls of one object run one after the other. */
export interface PersistedMethods {
  /** The name of the object. */
  readonly persistId: string
  /**
   * Writes the properties that have changed since the last `save` or `load`, together. The object then lives for 60 s, or the
   * `ttl` of `persist`. The next `save` writes changes that are made meanwhile. Without a change it writes nothing, but compares
   * the version, and the object lives on.
   *
   * Resolves with false, and writes nothing, if the stored object is not the one that was loaded or saved here: another process
   * has saved it, or it has expired. An object that was neither loaded nor saved here must not exist. After false, `load` it.
   * @throws UnavailableError: it may have been saved; the next call finds that out; TooLargeError if all properties together have
   * more than `maxMessage`; CodecError; ClosedError.
   */
  save(): Promise<boolean>
  /**
   * Replaces all properties by the stored ones, undefined for those that were never saved. Resolves with false, and changes no
   * property, if the object does not exist: the next `save` creates it.
   * @throws UnavailableError; CodecError if a property cannot be decoded: then none is replaced; ClosedError.
   */
  load(): Promise<boolean>
  /**
   * Keeps the object alive: it lives for `ttl` ms (from 1,000), renewed after each third of that until `unpersist`, or until the
   * bus disconnects. Does not keep the process alive, and creates no object.
   * @throws TypeError, ClosedError.
   */
  persist(ttl: number): void
  /** Ends `persist`. The object lives for the rest of its `ttl`, and for 60 s after the next `save`. */
  unpersist(): void
}

/** An object whose properties are saved. */
export type Persisted<T extends object> = T & PersistedMethods

const NAMES: readonly (keyof PersistedMethods)[] = ['save', 'load', 'persist', 'unpersist', 'persistId']

/** @throws TypeError if the object, or the list of its properties, has a property of the name of a method. */
export function checkNoMethods(object: object, properties: readonly string[]): void {
  for (const name of NAMES)
    if (name in object || properties.includes(name))
      throw new TypeError(`Expected an object without \`${name}\`: persistify adds it`)
}

/** Adds the methods to an object, which call those of its state. They are not enumerable. */
export function addMethods<T extends object>(
  object: T,
  persistId: string,
  state: Omit<PersistedMethods, 'persistId'>,
): Persisted<T> {
  const methods: PersistedMethods = {
    persistId,
    save: () => state.save(),
    load: () => state.load(),
    persist: (ttl) => state.persist(ttl),
    unpersist: () => state.unpersist(),
  }
  for (const name of NAMES) Object.defineProperty(object, name, { value: methods[name] })
  return object as Persisted<T>
}
