/** Own properties of an object by name; undefined: the object has none of this name. */
export type Properties = Map<string, PropertyDescriptor | undefined>

export type Method = (...args: unknown[]) => unknown

/**
 * Replaces own properties of an object until it is removed. Handler, middlewares and Node hold the same request and
 * response, so what these do is changed in place. The original properties stay usable meanwhile.
 */
export class PropertyOverlay {
  readonly #target: object
  /** The replaced properties. Undefined once they have been put back. */
  #originals: Properties | undefined

  constructor(target: object, properties: Properties) {
    this.#target = target
    this.#originals = replace(target, properties)
  }

  /** Puts the original properties back. Returns the replacements, with the changes made to them meanwhile. */
  remove(): Properties {
    const originals = this.#originals ?? new Map()
    this.#originals = undefined
    return replace(this.#target, originals)
  }

  /** Reads a property as if the overlay were not there. */
  read(name: string): unknown {
    const target = this.#target
    if (!this.#originals) return Reflect.get(target, name)
    const own = this.#originals.get(name)
    if (own) return own.get ? own.get.call(target) : own.value
    return Reflect.get(Object.getPrototypeOf(target), name, target)
  }

  /** Sets a property as if the overlay were not there. */
  write(name: string, value: unknown): void {
    const setter = inherited(this.#target, name)?.set
    if (setter) setter.call(this.#target, value)
    else if (this.#originals) this.#originals.set(name, dataProperty(value))
    else Reflect.set(this.#target, name, value)
  }

  /** Calls a method as if the overlay were not there. The method itself sees the overlay. */
  call(name: string, args: readonly unknown[]): unknown {
    return (this.read(name) as Method).apply(this.#target, args as unknown[])
  }
}

/** Replaces own properties of an object. Returns the former ones of the same names. */
function replace(target: object, properties: Properties): Properties {
  const former: Properties = new Map()
  for (const [name, property] of properties) {
    former.set(name, Object.getOwnPropertyDescriptor(target, name))
    if (property) Object.defineProperty(target, name, property)
    else Reflect.deleteProperty(target, name)
  }
  return former
}

function inherited(target: object, name: string): PropertyDescriptor | undefined {
  for (let from = Object.getPrototypeOf(target); from !== null; from = Object.getPrototypeOf(from)) {
    const property = Object.getOwnPropertyDescriptor(from, name)
    if (property) return property
  }
  return undefined
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
