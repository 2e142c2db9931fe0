import { expectedError } from '../../kernel/options.ts'
import type { BusContext } from '../context.ts'
import { MAX_PROPERTIES } from '../limits.ts'
import { checkName } from '../names.ts'
import { addMethods, checkNoMethods, type Persisted } from './persisted-methods.ts'
import { PersistedState } from './persisted-state.ts'

/**
 * Adds the methods of a persisted object. Makes no request.
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
  checkNoMethods(object, names)
  const state = new PersistedState(name, object as Record<string, unknown>, names, context)
  return addMethods(object, name, state)
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
