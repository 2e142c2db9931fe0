import { OverloadedError } from '../../errors.ts'
import { decodeWith } from '../../kernel/codec/codec.ts'
import { encodeLimited } from '../../kernel/codec/limit.ts'
import { checkWellFormedName } from '../../kernel/names.ts'
import type { BusContext, Member } from '../context.ts'
import { MAX_METADATA } from '../store/store.ts'

/** Values by name that are kept with a queue, and expire with it. */
export class Metadata {
  readonly #queue: string
  readonly #context: BusContext
  readonly #find: () => Promise<Member | undefined>

  constructor(queue: string, context: BusContext, find: () => Promise<Member | undefined>) {
    this.#queue = queue
    this.#context = context
    this.#find = find
  }

  /** The overloads of {@link Queue.metadata}. */
  async call(args: readonly [(string | Readonly<Record<string, unknown>>)?, unknown?]): Promise<unknown> {
    const [first, value] = args
    if (first === undefined) return this.read(undefined)
    if (typeof first === 'object' && first !== null) return this.write(first)
    if (args.length === 2) return this.write({ [first]: value })
    const values = await this.read([first])
    return Object.hasOwn(values, first) ? values[first] : undefined
  }

  /** The values with these names; all without `names`. */
  async read(names: readonly string[] | undefined): Promise<Record<string, unknown>> {
    for (const name of names ?? []) checkWellFormedName('key', name)
    const { within, codec } = this.#context
    const member = await this.#find()
    const entries = await member?.instance.queues.readMetadata(this.#queue, names, within)
    const values = [...(entries ?? [])].map(([name, bytes]) => [name, decodeWith(codec, bytes, name)])
    return Object.fromEntries(values)
  }

  /** Resolves with whether there is a queue to write to. @throws OverloadedError if it would have too many; TooLargeError. */
  async write(values: Readonly<Record<string, unknown>>): Promise<boolean> {
    const { within } = this.#context
    const entries = new Map<string, Buffer>()
    for (const [name, value] of Object.entries(values)) {
      checkWellFormedName('key', name)
      entries.set(name, encodeLimited(this.#context, value, 'The value has', { key: name }))
    }
    const member = await this.#find()
    const reply = await member?.instance.queues.writeMetadata(this.#queue, entries, within)
    if (reply === 'full')
      throw new OverloadedError(`A queue has up to ${MAX_METADATA} values`, { key: this.#queue })
    return reply === 'written'
  }
}
