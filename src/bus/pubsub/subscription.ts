import { ClosedError, UnavailableError } from '../../errors.ts'
import { assertTransition } from '../../kernel/collections.ts'
import type { Timer } from '../../kernel/time.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import type { BusContext, Member } from '../context.ts'
import type { Resumed, TopicListener, TopicTerms } from '../store/store.ts'
import { AheadBuffer, type Batch, lastOf } from './ahead-buffer.ts'
import { SUBSCRIPTION_TRANSITIONS, type SubscriptionState } from './subscription-state.ts'

/** How often the record of a topic is renewed while it is subscribed to, ms. */
const RENEW_INTERVAL = 10_000

/** Shortest time between two questions that messages caused, ms: anybody who reaches the channel can cause them. */
export const ASK_INTERVAL = 250

/** Pause before a question without a reply is asked again, ms. */
const RETRY_PAUSE = 500

/** A message of a topic. */
export interface TopicPosition {
  /** Life of the topic: a new one after it was lost with its server, or has expired. */
  readonly life: string
  /** Messages of one life have consecutive numbers. */
  readonly number: number
}

/** Receives what a subscription delivers, in order. */
export interface SubscriptionListener {
  /** Messages that are published from now on are delivered. */
  onSubscribed(): void
  onMessage(bytes: Buffer): void
  /** So many messages are missing here; undefined: it is not known how many, or whether any. */
  onGap(missed: number | undefined): void
}

/**
 * One subscription to a topic, from `subscribe` to `unsubscribe`: each message once, in the order of their numbers. It keeps
 * the process alive until it ends.
 */
export class Subscription implements TopicListener {
  readonly #topic: string
  readonly #terms: TopicTerms
  readonly #context: BusContext
  readonly #listener: SubscriptionListener
  #state: SubscriptionState = 'subscribing'
  #member: Member | undefined
  #stopListening: (() => void) | undefined
  #stopRenewing: (() => void) | undefined
  /** Settles the start. */
  #started: { resolve(): void; reject(error: Error): void } | undefined
  /** Of the topic, as the last question told; undefined: none was answered. */
  #life: string | undefined
  /** Number of the last message that was delivered, or is known to be missing. */
  #last = 0
  /** Number of the last message, as the last question told. */
  #toldLast = 0
  /** Messages that were told, but have not come, and the last one that had come then. They are missing if none comes. */
  #awaited: { readonly last: number; readonly since: number } | undefined
  readonly #ahead = new AheadBuffer()
  /** Questions so far. Only the reply to the last one counts. */
  #asked = 0
  #askedAt = Number.NEGATIVE_INFINITY
  #askTimer: Timer | undefined

  /** `from`: the last message that another subscription has delivered, which this one goes on behind. */
  constructor(
    topic: string,
    terms: TopicTerms,
    context: BusContext,
    listener: SubscriptionListener,
    from?: TopicPosition,
  ) {
    this.#life = from?.life
    this.#last = from?.number ?? 0
    this.#topic = topic
    this.#terms = terms
    this.#context = context
    this.#listener = listener
    refProcess(context.clock)
  }

  #enter(state: SubscriptionState): void {
    assertTransition('subscription', SUBSCRIPTION_TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /** The last message that was delivered, or is known to be missing; undefined before it is subscribed. */
  get position(): TopicPosition | undefined {
    return this.#life === undefined ? undefined : { life: this.#life, number: this.#last }
  }

  get isSubscribed(): boolean {
    return this.#state !== 'subscribing' && this.#state !== 'ended'
  }

  /** Called once. Rejects, and ends, if the instance of the topic does not answer, or if {@link end} is called before. */
  async start(): Promise<void> {
    const { places, clock, within } = this.#context
    const started = new Promise<void>((resolve, reject) => {
      this.#started = { resolve, reject }
    })
    const timer = clock.after(within, () => this.#failStart(this.#unavailable()), true)
    const listening = places.place('topic', this.#topic, async (member) => {
      if (this.#state === 'subscribing') this.#listenAt(member)
      // Until the record is made, its name must stay reserved.
      await started
      return true
    })
    listening.catch((error: Error) => this.#failStart(error))
    try {
      await started
    } finally {
      timer.cancel()
    }
  }

  #unavailable(): UnavailableError {
    return new UnavailableError(`No subscription within ${this.#context.within} ms`, { key: this.#topic })
  }

  #failStart(error: Error): void {
    if (this.#state !== 'subscribing') return
    this.#started?.reject(error)
    this.end()
  }

  #listenAt(member: Member): void {
    this.#stopListening?.()
    this.#stopRenewing?.()
    this.#member = member
    this.#stopListening = member.instance.topics.listen(this.#topic, this)
    this.#stopRenewing = member.topicLeases.add([this.#topic, this.#terms], RENEW_INTERVAL, () => {})
  }

  onUp(): void {
    if (this.#state === 'ended') return
    if (this.#state !== 'subscribing') this.#resume()
    this.#ask()
  }

  onDown(): void {
    if (this.#state === 'ended' || this.#state === 'down') return
    this.#stopAsking()
    if (this.#state !== 'subscribing') this.#enter('down')
  }

  #resume(): void {
    if (this.#state !== 'resuming') this.#enter('resuming')
  }

  /** Messages may have been missed, as far as messages show. */
  #askSoon(): void {
    this.#resume()
    const { clock } = this.#context
    const pause = this.#askedAt + ASK_INTERVAL - clock.now()
    if (pause <= 0) this.#ask()
    else this.#askAfter(pause)
  }

  #askAfter(pause: number): void {
    this.#stopAsking()
    this.#askTimer = this.#context.clock.after(pause, () => this.#ask(), true)
  }

  /** Ignores the reply to the present question, and cancels the next one. */
  #stopAsking(): void {
    this.#asked++
    this.#askTimer?.cancel()
    this.#askTimer = undefined
  }

  #ask(): void {
    this.#stopAsking()
    const { clock, within } = this.#context
    const asked = this.#asked
    this.#askedAt = clock.now()
    const after = this.#last
    const reply = this.#member?.instance.topics.resume(
      this.#topic,
      this.#life ?? '',
      after,
      this.#terms,
      within,
    )
    reply?.then(
      (resumed) => asked === this.#asked && this.#onReply(resumed, after),
      (error: Error) => asked === this.#asked && this.#onNoReply(error),
    )
  }

  #onNoReply(error: Error): void {
    if (this.#state === 'subscribing') this.#failStart(error)
    else this.#askAfter(RETRY_PAUSE)
  }

  onMessages(life: string, first: number, messages: readonly Buffer[]): void {
    if (this.#state === 'ended' || messages.length === 0 || !(Number.isSafeInteger(first) && first > 0))
      return
    this.#receive({ life, first, messages })
  }

  #receive(batch: Batch): void {
    // The channel keeps the order: those before it, which were told, are not under way any more.
    if (batch.life === this.#life && batch.first === this.#toldLast + 1) this.#skipTo(this.#toldLast)
    const isAhead = batch.life !== this.#life || batch.first > this.#last + 1
    if (isAhead || this.#state === 'subscribing') {
      this.#ahead.add(batch, this.#asked)
      if (this.#state === 'live') this.#askSoon()
    } else if (lastOf(batch) > this.#last) this.#deliver(batch)
    else if (lastOf(batch) > this.#toldLast && this.#state === 'live') {
      // It was received twice from the channel: one of both was forged.
      this.#askSoon()
    }
  }

  /** Delivers those messages of a batch that were not delivered before. */
  #deliver({ first, messages }: Pick<Batch, 'first' | 'messages'>): void {
    for (const bytes of messages.slice(Math.max(0, this.#last + 1 - first))) {
      if (this.#state === 'ended') return
      this.#last++
      this.#listener.onMessage(bytes)
    }
  }

  /** `after`: the last message when it was asked. */
  #onReply({ life, last, messages }: Resumed, after: number): void {
    const { known, newer, overflowed } = this.#ahead.take(life, last, this.#asked)
    const kept = { first: last - messages.length + 1, messages }
    const available = [kept, ...known].sort((a, b) => a.first - b.first)
    const before = this.#life
    this.#life = life
    this.#toldLast = last
    if (this.#state === 'subscribing') this.#onStarted(before === undefined ? kept.first - 1 : after)
    // What another subscription had not received is missing, unless it comes.
    if (before !== undefined && this.#state === 'live') this.#resume()
    // The topic was lost and made again, or some of its messages were: it cannot be known which.
    if (before !== undefined && (before !== life || last < after))
      this.#restart(Math.min(last, (available[0]?.first ?? 1) - 1))
    for (const batch of available) {
      if (batch.messages.length === 0) continue
      this.#skipTo(batch.first - 1)
      this.#deliver(batch)
    }
    this.#onTold(last)
    for (const batch of newer) if (this.#state !== 'ended') this.#receive(batch)
    if (overflowed && this.#state === 'live') this.#askSoon()
    if (before !== undefined && before !== life) void this.#follow()
  }

  /** Messages up to `last` were published. Those that have not come may be under way: the reply can overtake them. */
  #onTold(last: number): void {
    const awaited = this.#awaited
    this.#awaited = undefined
    if (this.#last === awaited?.since) this.#skipTo(awaited.last)
    if (this.#state !== 'resuming') return
    if (this.#last >= last) this.#enter('live')
    else {
      this.#awaited = { last, since: this.#last }
      this.#askAfter(ASK_INTERVAL)
    }
  }

  #onStarted(last: number): void {
    this.#last = last
    this.#enter('live')
    this.#listener.onSubscribed()
    this.#started?.resolve()
  }

  /** Goes on after message `last`, of which it is not known what it followed. */
  #restart(last: number): void {
    this.#last = last
    this.#listener.onGap(undefined)
  }

  /** The messages up to `last` are missing. */
  #skipTo(last: number): void {
    if (this.#state === 'ended' || last <= this.#last) return
    const missed = last - this.#last
    this.#last = last
    this.#listener.onGap(missed)
  }

  /** The record of the topic was lost: somebody may have made it at another instance before this subscription did here. */
  async #follow(): Promise<void> {
    const { places } = this.#context
    places.forget('topic', this.#topic)
    const member = await places.place('topic', this.#topic, async (found) => found).catch(() => this.#member)
    if (this.#state === 'ended' || !member || member === this.#member) return
    this.onDown()
    this.#listenAt(member)
  }

  /** Does nothing if it has ended. */
  end(): void {
    if (this.#state === 'ended') return
    this.#enter('ended')
    this.#stopAsking()
    this.#stopListening?.()
    this.#stopRenewing?.()
    this.#ahead.clear()
    this.#started?.reject(new ClosedError('The subscription has ended', { key: this.#topic }))
    unrefProcess(this.#context.clock)
  }
}
