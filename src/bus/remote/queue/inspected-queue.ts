import type { QueueEvents } from '../../queue/events.ts'
import { Emitter } from '../emitter.ts'
import { isCount, isNumberOrNull, isObjectOrNull, isTextOrNull } from '../gateway-message.ts'
import type { Link } from '../link.ts'

/** What a queue behind a gateway tells, and lets be written, without being attached. */
export abstract class InspectedQueue<M> extends Emitter<QueueEvents<M>> {
  readonly name: string
  readonly #link: Link

  constructor(name: string, link: Link) {
    super()
    this.name = name
    this.#link = link
  }

  #inspect(of: string, isAnswer: (ok: unknown) => boolean): Promise<unknown> {
    return this.#link.call('inspect', this.name, { queue: this.name, of }, { isAnswer })
  }

  /** Whether the queue exists. Needs the scope `read`, as the next four. */
  async exists(): Promise<boolean> {
    return (await this.find()) !== null
  }

  /** How many messages wait; 0 if there is no queue. */
  async count(): Promise<number> {
    return Number(await this.#inspect('count', isCount))
  }

  /** After how many ms the queue expires if no process is attached; null if there is none. */
  ttl(): Promise<number | null> {
    return this.#inspect('ttl', isNumberOrNull) as Promise<number | null>
  }

  /** How many messages may wait, 0 for any number; null if there is no queue. */
  maxsize(): Promise<number | null> {
    return this.#inspect('maxsize', isNumberOrNull) as Promise<number | null>
  }

  /** The name of the instance that it is on; null if there is no queue. */
  find(): Promise<string | null> {
    return this.#inspect('find', isTextOrNull) as Promise<string | null>
  }

  /** Removes all messages. Resolves with their number. Needs the scope `admin`. */
  async flush(): Promise<number> {
    return Number(await this.#link.call('flush', this.name, { queue: this.name }, { isAnswer: isCount }))
  }

  /** Reads metadata: all of the queue, or one. Needs the scope `read`. */
  metadata(): Promise<Record<string, unknown>>
  metadata(name: string): Promise<unknown>
  /** Writes metadata: one, or several. Resolves with whether there is a queue to write to. Needs the scope `submit`. */
  metadata(name: string, value: unknown): Promise<boolean>
  metadata(values: Readonly<Record<string, unknown>>): Promise<boolean>
  async metadata(...args: [(string | Readonly<Record<string, unknown>>)?, unknown?]): Promise<unknown> {
    const [first, value] = args
    const values =
      typeof first === 'object' ? first : args.length > 1 ? { [String(first)]: value } : undefined
    if (values) return this.#link.call('set-metadata', this.name, { queue: this.name, values })
    const terms = first === undefined ? { isAnswer: isObjectOrNull } : {}
    const found = await this.#link.call('metadata', this.name, { queue: this.name, name: first }, terms)
    return found === null && first !== undefined ? undefined : found
  }
}
