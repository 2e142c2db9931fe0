import { keySegment, newId } from '../../../../kernel/keys.ts'
import type { Connection } from '../../../../kernel/redis/connection.ts'
import type { PublishRequest, Resumed, TopicListener, TopicStore, TopicTerms } from '../../store.ts'
import { recordBase } from '../keys.ts'
import { type Argument, renewAll } from '../records.ts'
import { type TopicScripts, topicScripts } from './scripts.ts'
import {
  encodeBundles,
  encodeTerms,
  type Published,
  parseNumber,
  parsePublished,
  parseResumed,
} from './wire.ts'

/** For tests. */
export interface RedisTopicStoreOptions {
  scripts?: TopicScripts
}

/** The topics of one instance on Redis: each transition is one script, on keys of one slot. Each topic is a channel. */
export class RedisTopicStore implements TopicStore {
  readonly #connection: Connection
  readonly #prefix: string
  readonly #scripts: TopicScripts
  /** Several listeners of one topic are given the same bytes. */
  readonly #parsed = new WeakMap<Buffer, { readonly published: Published | undefined }>()

  constructor(connection: Connection, prefix: string, options: RedisTopicStoreOptions = {}) {
    const { scripts = topicScripts } = options
    this.#connection = connection
    this.#prefix = prefix
    this.#scripts = scripts
  }

  async publish(topic: string, request: PublishRequest, within: number): Promise<number> {
    const { publisher, number, messages, terms } = request
    const args: Argument[] = [newId(), encodeTerms(terms), publisher, String(number), this.#channel(topic)]
    for (const { count, bytes } of encodeBundles(messages)) args.push(String(count), bytes)
    const script = this.#scripts.publish.with(this.#keys(topic), args)
    return parseNumber(await this.#connection.call(script, within))
  }

  listen(topic: string, listener: TopicListener): () => void {
    return this.#connection.subscribe(this.#channel(topic), {
      message: (bytes) => {
        const published = this.#parse(bytes)
        if (published) listener.onMessages(published.life, published.first, published.messages)
      },
      up: () => listener.onUp(),
      down: () => listener.onDown(),
      // It is tried again. Until then the listener is not up.
      refused: () => {},
    })
  }

  async resume(
    topic: string,
    life: string,
    after: number,
    terms: TopicTerms,
    within: number,
  ): Promise<Resumed> {
    const args = [newId(), encodeTerms(terms), life, String(after)]
    const script = this.#scripts.resume.with(this.#keys(topic), args)
    return parseResumed(await this.#connection.call(script, within))
  }

  renew(topics: ReadonlyMap<string, TopicTerms>, within: number): Promise<(Error | undefined)[]> {
    const records = [...topics].map(([topic, terms]) => ({
      key: `${recordBase(this.#prefix, 'topic', topic)}T`,
      args: [newId(), encodeTerms(terms)],
    }))
    return renewAll(this.#connection, this.#scripts.renew, records, within)
  }

  #keys(topic: string): string[] {
    const base = recordBase(this.#prefix, 'topic', topic)
    return [`${base}T`, `${base}K`]
  }

  /** Neither a prefix nor a segment can be taken for another: a segment contains no colon. */
  #channel(topic: string): string {
    return `${this.#connection.channelPrefix}:p:${this.#prefix}:${keySegment(topic)}`
  }

  #parse(bytes: Buffer): Published | undefined {
    const known = this.#parsed.get(bytes)
    if (known) return known.published
    const published = parsePublished(bytes)
    this.#parsed.set(bytes, { published })
    return published
  }
}
