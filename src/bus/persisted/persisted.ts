import { expectedError } from '../../kernel/options.ts'
import type { BusContext } from '../context.ts'
import { checkName } from '../names.ts'
import { PersistedState } from './persisted-state.ts'

/** What `bus.persistify` adds to an object. Calls of one object are done one after the other. */
export interface PersistedMethods {
  /** The name of the object. */
  readonly persistId: string
  /**
   * Writes the properties that have changed since the last `save` or `load`, together. The object then lives for 60 s, or the
   * `ttl` of `persist`. What changes while it runs is written by the next one. If nothing has changed it writes nothing, but
   * compares the version, and the object lives on.
   *
   * Resolves with false, and writes nothing, if the stored object is not the one that was loaded or saved here: somebody else
   * has saved it, or it has expired. If it was neither loaded nor saved here, it must not exist. After false, `load` it.
   * @throws UnavailableError: it may have been saved, which the next call finds out; TooLargeError if all properties together
   * have more than `maxMessage`; CodecError; ClosedError.
   */
  save(): Promise<boolean>
  /**
   * Replaces all properties by the stored ones, undefined for those that were never saved. Resolves with false, and changes no
   * property, if the object does not exist: the next `save` creates it.
   * @throws UnavailableError; CodecError if a property cannot be decoded: then none is replaced; ClosedError.
   */
  load(): Promise<boolean>
  /**
   * Keeps the object: it lives for `ttl` ms, from 1,000, which are renewed every third of that until `unpersist`, or until the
   * bus disconnects. It does not keep the process alive, and creates no object.
   * @throws TypeError, ClosedError.
   */
  persist(ttl: number): void
  /** Ends `persist`. The object lives for the rest of its `ttl`, and for 60 s after the next `save`. */
  unpersist(): void
}

/** An object whose properties are saved. */
export type Persisted<T extends object> = T & PersistedMethods

const METHODS: readonly (keyof PersistedMethods)[] = ['save', 'load', 'persist', 'unpersist', 'persistId']

/** Properties of one object, at most. */
const MAX_PROPERTIES = 1000

/**
 * Adds {@link PersistedMethods} to an object, which are not enumerable. Makes no request.
 * @throws TypeError if the object, or the list of properties, has a property of such a name; if a name is invalid.
 * @internal
 */
export function persistify<T extends object>(
  name: string,
  object: T,
  properties: readonly (keyof T & string)[],
  context: BusContext,
): Persisted<T> {
  context.assertOpen()
  checkName('name', name)
  if (typeof object !== 'object' || object === null) throw expectedError('object', 'an object', object)
  const names = checkProperties(properties)
  for (const method of METHODS)
    if (method in object || names.includes(method))
      throw new TypeError(`Expected an object without \`${method}\`: persistify adds it`)
  const state = new PersistedState(name, object as Record<string, unknown>, names, context)
  const methods: PersistedMethods = {
    persistId: name,
    save: () => state.save(),
    load: () => state.load(),
    persist: (ttl) => state.persist(ttl),
    unpersist: () => state.unpersist(),
  }
  for (const method of METHODS) Object.defineProperty(object, method, { value: methods[method] })
  return object as Persisted<T>
}

function checkProperties(properties: unknown): readonly string[] {
  if (!Array.isArray(properties) || properties.length === 0 || properties.length > MAX_PROPERTIES)
    throw expectedError('properties', `a list of 1 to ${MAX_PROPERTIES} names`, properties)
  for (const [index, property] of properties.entries()) {
    checkName(`properties[${index}]`, property)
    // To assign it would change what the object inherits.
    if (property === '__proto__') throw new TypeError('`__proto__` cannot be persisted')
  }
  return [...new Set(properties as string[])]
}
