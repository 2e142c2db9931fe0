/**
 * Own properties of an object by name; undefined where it has none of its own. A request or response of a client is one
 * object for all who hold it: its handler, what stands before the cache, and Node. What it does for one of them is changed
 * by putting other properties in place.
 */
export type Face = Map<string, PropertyDescriptor | undefined>

/** Puts a face on an object, and returns the one that it had, of the same names. */
export function putOn(target: object, face: Face): Face {
  const before: Face = new Map()
  for (const [name, property] of face) {
    before.set(name, Object.getOwnPropertyDescriptor(target, name))
    if (property) Object.defineProperty(target, name, property)
    else Reflect.deleteProperty(target, name)
  }
  return before
}

/** A property as an assignment makes it. */
export function dataProperty(value: unknown): PropertyDescriptor {
  return { value, writable: true, enumerable: true, configurable: true }
}

/** A property that is read, and written, elsewhere. */
export function accessor(
  get: () => unknown,
  set: (value: unknown) => void = () => undefined,
): PropertyDescriptor {
  return { get, set, enumerable: true, configurable: true }
}

/** Sets a property of an object beneath its face. */
export function setBeneath(target: object, aside: Face, name: string, value: unknown): void {
  const setter = inherited(target, name)?.set
  if (setter) setter.call(target, value)
  else aside.set(name, dataProperty(value))
}

function inherited(target: object, name: string): PropertyDescriptor | undefined {
  for (let from = Object.getPrototypeOf(target); from !== null; from = Object.getPrototypeOf(from)) {
    const property = Object.getOwnPropertyDescriptor(from, name)
    if (property) return property
  }
  return undefined
}

/** What a property of an object is beneath its face: `aside` are its own ones that were put aside. */
export function beneath(target: object, aside: Face, name: string): unknown {
  const own = aside.get(name)
  if (own) return own.get ? own.get.call(target) : own.value
  return Reflect.get(Object.getPrototypeOf(target), name, target)
}
