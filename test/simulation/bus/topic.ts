import type { Pubsub } from '../../../src/bus/index.ts'
import { callOf, record } from './calls.ts'
import type { CallEnding, Publication } from './history.ts'
import type { BusActor, BusWorld } from './world.ts'

/** A message, or the end, of a topic. */
type Place = Pick<Publication, 'life' | 'number'>

/** One topic object of a process: publishes and subscribes, and checks what it receives: B5. */
export class Topic {
  readonly #pubsub: Pubsub<number>
  readonly #actor: BusActor
  readonly #world: BusWorld
  #wantsSubscribed = false
  /**
   * The last message, or what was subscribed after. A message may be one of several: when its reply was lost with the server, it
   * is published in two lives.
   */
  #last: readonly Place[] = []
  /** Messages that it was told to be missing since then; undefined: it cannot be known. */
  #missed: number | undefined = 0
  /** Whether the next message may be the retained one. */
  #mayBeRetained = false
  /** Whether the next message is the first one. */
  #isFirst = false

  constructor(world: BusWorld, actor: BusActor, topic: string) {
    this.#world = world
    this.#actor = actor
    const { keep, retain } = world.plan
    this.#pubsub = actor.bus.pubsub<number>(topic, { keep, retain })
    this.#pubsub.on('subscribed', () => this.#onSubscribed())
    this.#pubsub.on('message', (value) => this.#onMessage(value))
    this.#pubsub.on('gap', (missed) => this.#onGap(missed))
  }

  get isSubscribed(): boolean {
    return this.#pubsub.isSubscribed()
  }

  isAt(place: Place | undefined): boolean {
    return this.#last.some(({ life, number }) => life === place?.life && number === place.number)
  }

  publish(): Promise<CallEnding> {
    const call = callOf(this.#world, this.#actor, 'publish', this.#world.plan.unavailableAfter)
    return record(this.#world, call, this.#pubsub.publish(call.no))
  }

  async subscribe(): Promise<void> {
    this.#wantsSubscribed = true
    const { plan, random } = this.#world
    while (this.#wantsSubscribed && !this.#actor.closing && !this.isSubscribed) {
      const call = callOf(this.#world, this.#actor, 'subscribe', plan.unavailableAfter)
      const { kind } = await record(this.#world, call, this.#pubsub.subscribe())
      if (kind === 'value') return
      await this.#actor.process.sleep(plan.lease * random.between(0.1, 1))
    }
  }

  unsubscribe(): void {
    this.#wantsSubscribed = false
    void record(this.#world, callOf(this.#world, this.#actor, 'unsubscribe', 0), this.#pubsub.unsubscribe())
  }

  #violate(what: string): void {
    this.#world.history.violate('B5', `p${this.#actor.process.id}: ${what}`)
  }

  /** Everything that is published from now on arrives. */
  #onSubscribed(): void {
    const { server, plan, history } = this.#world
    const present = server.lastOf(this.#pubsub.name)
    history.say(() => `p${this.#actor.process.id} is subscribed after ${present?.number}`)
    this.#last = present ? [present] : []
    this.#missed = present ? 0 : undefined
    this.#mayBeRetained = plan.retain
    this.#isFirst = true
  }

  #onGap(missed: number | undefined): void {
    const { history } = this.#world
    history.say(() => `p${this.#actor.process.id} misses ${missed}`)
    history.counts.gaps++
    this.#missed = missed === undefined || this.#missed === undefined ? undefined : this.#missed + missed
  }

  #onMessage(value: number): void {
    const { history } = this.#world
    if (!this.#wantsSubscribed) this.#violate(`${value} arrives after unsubscribe`)
    history.counts.topicMessages++
    const known = history.publicationsOf(value)
    const published = known.filter((one) => this.#follows(one))
    const numbers = (places: readonly Place[]) => places.map(({ number }) => number)
    history.say(() => `p${this.#actor.process.id} hears ${numbers(known)} (${value})`)
    if (published.length === 0) {
      const told = `${this.#missed} missing messages were told`
      this.#violate(`${numbers(known)} (${value}) follows ${numbers(this.#last)}, and ${told}`)
    }
    this.#mayBeRetained = false
    this.#last = published.length > 0 ? published : known
    this.#missed = 0
    this.#isFirst = false
  }

  /** Whether a message may be the next one. */
  #follows({ life, number }: Place): boolean {
    const missed = this.#missed
    const before = this.#last.filter((one) => one.life === life)
    // The topic may have been lost while it was being subscribed to.
    if (this.#isFirst && before.length === 0) return true
    if (missed === undefined && before.length < Math.max(1, this.#last.length)) return true
    return before.some((last) => {
      // What was published before it was told that it is subscribed may arrive as well.
      if (this.#isFirst && number <= last.number + 1 + (missed ?? 0)) return true
      if (this.#mayBeRetained && number <= last.number) return true
      return missed === undefined ? number > last.number : number === last.number + 1 + missed
    })
  }
}
