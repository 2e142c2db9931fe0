/**
 * Own properties of an object by name; undefined: none of this name. Handler, middlewares and Node hold the same request
 * and response, so what these do is changed in place: own properties are replaced, and put back later.
 */
export type Properties = Map<string, PropertyDescriptor | undefined>

/** Replaces own properties of an object. Returns the former ones of the same names. */
export function replaceProperties(target: object, properties: Properties): Properties {
  const before: Properties = new Map()
  for (const [name, property] of properties) {
    before.set(name, Object.getOwnPropertyDescriptor(target, name))
    if (property) Object.defineProperty(target, name, property)
    else Reflect.deleteProperty(target, name)
  }
  return before
}

/** The property that an assignment creates. */
export function dataProperty(value: unknown): PropertyDescriptor {
  return { value, writable: true, enumerable: true, configurable: true }
}

/** A property whose reads and writes go elsewhere. */
export function accessor(
  get: () => unknown,
  set: (value: unknown) => void = () => undefined,
): PropertyDescriptor {
  return { get, set, enumerable: true, configurable: true }
}

/** Sets a property of an object as if its properties were not replaced. `replaced`: the former ones. */
export function writeReplaced(target: object, replaced: Properties, name: string, value: unknown): void {
  const setter = inherited(target, name)?.set
  if (setter) setter.call(target, value)
  else replaced.set(name, dataProperty(value))
}

function inherited(target: object, name: string): PropertyDescriptor | undefined {
  for (let from = Object.getPrototypeOf(target); from !== null; from = Object.getPrototypeOf(from)) {
    const property = Object.getOwnPropertyDescriptor(from, name)
    if (property) return property
  }
  return undefined
}

/** Reads a property of an object as if its properties were not replaced. `replaced`: the former ones. */
export function readReplaced(target: object, replaced: Properties, name: string): unknown {
  const own = replaced.get(name)
  if (own) return own.get ? own.get.call(target) : own.value
  return Reflect.get(Object.getPrototypeOf(target), name, target)
}
