import { CodecError } from '../../errors.ts'
import { kindOf } from './binary.ts'

/** Deepest nesting of objects and arrays. */
const MAX_DEPTH = 1000

/** An object whose only key is this represents a value that JSON cannot. */
export const ESCAPE = '$'

type Path = (string | number)[]

function pathOf(path: Path): string {
  return `$${path.map((step) => (typeof step === 'number' ? `[${step}]` : /^[A-Za-z_]\w*$/.test(step) ? `.${step}` : `[${JSON.stringify(step)}]`)).join('')}`
}

function refuse(path: Path, what: string): never {
  const shown = path.length > 12 ? [...path.slice(0, 12), '…'] : path
  throw new CodecError(`${what} at ${pathOf(shown)} cannot be represented in JSON`)
}

/** Whether an object is the `Object.prototype` of this realm or another. */
function isRootPrototype(prototype: object): boolean {
  return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'isPrototypeOf')
}

/** Whether an object was created by a literal, `JSON.parse` or `Object.create(null)`, in any realm. */
function isPlainObject(value: object): boolean {
  const prototype: object | null = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype || isRootPrototype(prototype)
}

/** Whether an array has no holes, and no fields besides its elements. */
function isDense(value: unknown[]): boolean {
  return Object.keys(value).length === value.length && Object.getOwnPropertySymbols(value).length === 0
}

/** JSON.stringify calls toJSON instead of reading the value. */
function hasToJson(value: object): boolean {
  return 'toJSON' in value && typeof value.toJSON === 'function'
}

function nameOfClass(value: object): string {
  return typeof value.constructor === 'function' && value.constructor.name
    ? value.constructor.name
    : 'a class'
}

export interface JsonValidatorOptions {
  /** Accepts only values that JSON can represent, and fields that are undefined, which JSON omits. */
  plain?: boolean
}

/** Visits every part of a value once. Throws a CodecError that names the path of the first part that JSON would change. */
export class JsonValidator {
  /** Whether the value has parts that must be escaped, because JSON cannot represent them. */
  needsEscape = false
  readonly #plain: boolean
  readonly #path: Path = []
  readonly #ancestors = new Set<object>()

  constructor({ plain = false }: JsonValidatorOptions = {}) {
    this.#plain = plain
  }

  validate(value: unknown): void {
    switch (typeof value) {
      case 'string':
        if (this.#plain) this.#text(value)
        return
      case 'boolean':
        return
      case 'number':
        if (!Number.isFinite(value)) this.#notInJson(`${value}`)
        if (Object.is(value, -0)) this.needsEscape = true
        return
      case 'undefined':
        this.#notInJson('undefined')
        return
      case 'object':
        if (value !== null) this.#object(value)
        return
      default:
        refuse(this.#path, `A ${typeof value}`)
    }
  }

  /** A value that is not representable in JSON, but can be escaped. */
  #notInJson(what: string): void {
    if (this.#plain) refuse(this.#path, what)
    this.needsEscape = true
  }

  /** A lone surrogate has no encoding in UTF-8. */
  #text(text: string): void {
    if (!text.isWellFormed()) refuse(this.#path, 'A lone surrogate')
  }

  #object(value: object): void {
    if (kindOf(value)) return this.#notInJson('A binary value')
    if (this.#ancestors.has(value)) refuse(this.#path, 'A cycle')
    if (this.#ancestors.size === MAX_DEPTH) refuse(this.#path, `Nesting deeper than ${MAX_DEPTH}`)
    this.#ancestors.add(value)
    if (Array.isArray(value)) this.#array(value)
    else this.#fields(value)
    if (hasToJson(value)) refuse(this.#path, `An instance of ${nameOfClass(value)}, with toJSON,`)
    this.#ancestors.delete(value)
  }

  #array(value: unknown[]): void {
    if (!isPlainObject(Object.getPrototypeOf(value)))
      refuse(this.#path, `An instance of ${nameOfClass(value)}`)
    if (!isDense(value)) refuse(this.#path, 'An array with holes, or fields besides its elements,')
    for (let index = 0; index < value.length; index++) this.#child(index, value[index])
  }

  #fields(value: object): void {
    if (!isPlainObject(value)) refuse(this.#path, `An instance of ${nameOfClass(value)}`)
    if (Object.getOwnPropertySymbols(value).length > 0) refuse(this.#path, 'An object with a symbol as key')
    for (const name of Object.keys(value)) {
      const field = (value as Record<string, unknown>)[name]
      if (name === ESCAPE) this.needsEscape = true
      if (this.#plain && field === undefined) continue
      if (this.#plain) this.#text(name)
      this.#child(name, field)
    }
  }

  #child(step: string | number, value: unknown): void {
    this.#path.push(step)
    this.validate(value)
    this.#path.pop()
  }
}
