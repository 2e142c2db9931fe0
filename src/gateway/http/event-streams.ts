import { ClosedError, OverloadedError } from '../../errors.ts'
import type { Clock, Timer } from '../../kernel/time.ts'
import { Shares } from '../clients/shares.ts'
import type { Caller } from '../env.ts'
import type { Lifecycle } from '../lifecycle.ts'
import type { ResolvedGatewayOptions } from '../options.ts'
import { Frame } from './event-frame.ts'
import { type EventProducer, EventStream, type StreamOwner } from './event-stream.ts'

/** One timer serves all streams: each belongs to one of so many groups, which take turns within an interval. */
const GROUPS = 8

/** When the client of a gateway that closes reconnects, ms. */
const RETRY_AFTER = 1_000

/** The event streams that are open in a gateway: bounds their number, keeps them alive, and ends them. */
export class EventStreams implements StreamOwner {
  pending = 0
  readonly #options: Pick<ResolvedGatewayOptions, 'heartbeat' | 'maxStreams'>
  readonly #shares: Shares
  readonly #clock: Clock
  readonly #lifecycle: Lifecycle
  readonly #groups: readonly Set<EventStream>[] = Array.from({ length: GROUPS }, () => new Set<EventStream>())
  readonly #openOf = new Map<EventStream, { readonly group: Set<EventStream>; leave(): void }>()
  /** Counts on: the group of the next stream, and the next group that gets a heartbeat. */
  #added = 0
  #turn = 0
  #timer: Timer | undefined
  #isClosed = false

  constructor(
    options: Pick<ResolvedGatewayOptions, 'heartbeat' | 'maxStreams'> & Partial<ResolvedGatewayOptions>,
    clock: Clock,
    lifecycle: Lifecycle,
  ) {
    this.#options = options
    this.#shares = new Shares(options.maxStreams, 'too many streams', options.tokens)
    this.#clock = clock
    this.#lifecycle = lifecycle
  }

  /** Number of streams that are open. */
  get size(): number {
    return this.#openOf.size
  }

  /**
   * `lifetime`: the stream ends after this time, at its next heartbeat, ms. It is of the share of `caller`.
   * @throws OverloadedError if too many are open; Problem 429 if the caller has too many; ClosedError after `close`.
   */
  create(
    producer: EventProducer,
    lifetime: number = Number.POSITIVE_INFINITY,
    caller?: Caller | undefined,
  ): EventStream {
    if (this.#isClosed) throw new ClosedError('The gateway is closing')
    if (this.size >= this.#options.maxStreams) throw new OverloadedError('Too many event streams are open')
    this.#shares.assertRoom(caller)
    const stream = new EventStream(this, producer, this.#clock.now() + lifetime)
    const group = this.#groups[this.#added++ % GROUPS] as Set<EventStream>
    group.add(stream)
    this.#openOf.set(stream, { group, leave: this.#shares.take(caller) })
    this.#schedule()
    return stream
  }

  run(producer: () => Promise<void>): void {
    void this.#lifecycle.track(producer)
  }

  remove(stream: EventStream): void {
    const open = this.#openOf.get(stream)
    open?.group.delete(stream)
    open?.leave()
    this.#openOf.delete(stream)
    if (this.size === 0) this.#timer?.cancel()
    if (this.size === 0) this.#timer = undefined
  }

  #schedule(): void {
    this.#timer ??= this.#clock.after(this.#options.heartbeat / GROUPS, this.#beat, true)
  }

  readonly #beat = (): void => {
    this.#timer = undefined
    const now = this.#clock.now()
    for (const stream of [...(this.#groups[this.#turn++ % GROUPS] ?? [])]) stream.beat(now)
    if (this.size > 0) this.#schedule()
  }

  /** Ends all streams, so that their clients reconnect elsewhere, and refuses further ones. */
  close(): void {
    this.#isClosed = true
    const retry = Frame.retry(RETRY_AFTER)
    for (const stream of [...this.#openOf.keys()]) {
      stream.send(retry)
      stream.end()
    }
  }
}
