/**
 * The record of a topic of pub/sub: the number of its last message, and the last messages if they are kept. This is the
 * specification; the Redis scripts do the same, and conformance tests compare both.
 */
import type { PublishRequest, Resumed, TopicTerms } from './store.ts'

/** How long a topic lives after the last publish, resume or renewal, ms; with kept messages, as long as these if that is longer. */
export const TOPIC_TTL = 30_000

/** How long the last batch of a publisher is remembered, ms: if it is sent twice, that happens earlier. */
export const PUBLISHER_TTL = 60_000

/** With more publishers than this, those that need not be remembered are removed. */
export const MIN_PRUNED = 100

interface Life {
  readonly id: string
  /** Number of the last message. */
  last: number
  /** The largest that were given. */
  terms: TopicTerms
  /** The last messages. */
  kept: Buffer[]
  keptUntil: number
  expiresAt: number
  readonly publishers: Map<string, { readonly number: number; readonly last: number; readonly until: number }>
  /** With more publishers than this, some are removed: so the work is in proportion to those that have come. */
  prune: number
}

/** What a transition is given, and how it speaks to subscribers. */
export interface TopicContext {
  /** ms. */
  readonly now: number
  /** The id of a life that begins now. */
  readonly newLife: string
  publish(life: string, first: number, messages: readonly Buffer[]): void
}

export class TopicRecord {
  #life: Life | undefined

  isEmpty(now: number): boolean {
    return !this.#life || this.#life.expiresAt <= now
  }

  publish({ publisher, number, messages, terms }: PublishRequest, context: TopicContext): number {
    const life = this.#open(terms, context)
    const batch = life.publishers.get(publisher)
    if (batch && batch.until > context.now && number <= batch.number) return batch.last
    const first = life.last + 1
    life.last += messages.length
    const limit = keptOf(life.terms)
    if (limit > 0) {
      life.kept = [...life.kept, ...messages].slice(-limit)
      life.keptUntil = context.now + life.terms.ttl
      life.expiresAt = Math.max(life.expiresAt, life.keptUntil)
    }
    const until = context.now + PUBLISHER_TTL
    life.publishers.set(publisher, { number, last: life.last, until })
    if (!batch && life.publishers.size > life.prune) prune(life, context.now)
    context.publish(life.id, first, messages)
    return life.last
  }

  resume(known: string, after: number, terms: TopicTerms, context: TopicContext): Resumed {
    const life = this.#open(terms, context)
    const { id, last, kept } = life
    if (known === '') return { life: id, last, messages: life.terms.retain ? kept.slice(-1) : [] }
    const missed = known === id ? last - after : last
    return { life: id, last, messages: missed > 0 ? kept.slice(-missed) : [] }
  }

  renew(terms: TopicTerms, context: TopicContext): void {
    this.#open(terms, context)
  }

  /** The present life, or a new one. */
  #open(terms: TopicTerms, { now, newLife: id }: TopicContext): Life {
    if (this.isEmpty(now)) {
      const empty = { last: 0, kept: [], keptUntil: 0, expiresAt: 0, publishers: new Map() }
      this.#life = { ...empty, id, terms, prune: MIN_PRUNED }
    }
    const life = this.#life as Life
    life.terms = {
      keep: Math.max(life.terms.keep, terms.keep),
      retain: life.terms.retain || terms.retain,
      ttl: Math.max(life.terms.ttl, terms.ttl),
    }
    if (life.keptUntil <= now) life.kept = []
    life.expiresAt = Math.max(life.expiresAt, now + TOPIC_TTL)
    return life
  }
}

function prune(life: Life, now: number): void {
  for (const [publisher, { until }] of life.publishers) if (until <= now) life.publishers.delete(publisher)
  life.prune = Math.max(MIN_PRUNED, 2 * life.publishers.size)
}

/** How many messages are kept. */
function keptOf({ keep, retain }: TopicTerms): number {
  return Math.max(keep, retain ? 1 : 0)
}
