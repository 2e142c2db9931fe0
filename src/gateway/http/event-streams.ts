import { ClosedError, OverloadedError } from '../../errors.ts'
import type { Clock, Timer } from '../../kernel/time.ts'
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
  readonly #clock: Clock
  readonly #lifecycle: Lifecycle
  readonly #groups: readonly Set<EventStream>[] = Array.from({ length: GROUPS }, () => new Set<EventStream>())
  readonly #groupOf = new Map<EventStream, Set<EventStream>>()
  /** Counts on: the group of the next stream, and the next group that gets a heartbeat. */
  #added = 0
  #turn = 0
  #timer: Timer | undefined
  #isClosed = false

  constructor(
    options: Pick<ResolvedGatewayOptions, 'heartbeat' | 'maxStreams'>,
    clock: Clock,
    lifecycle: Lifecycle,
  ) {
    this.#options = options
    this.#clock = clock
    this.#lifecycle = lifecycle
  }

  /** Number of streams that are open. */
  get size(): number {
    return this.#groupOf.size
  }

  /**
   * `lifetime`: the stream ends after this time, at its next heartbeat, ms.
   * @throws OverloadedError if too many are open; ClosedError after `close`.
   */
  create(producer: EventProducer, lifetime: number = Number.POSITIVE_INFINITY): EventStream {
    if (this.#isClosed) throw new ClosedError('The gateway is closing')
    if (this.size >= this.#options.maxStreams) throw new OverloadedError('Too many event streams are open')
    const stream = new EventStream(this, producer, this.#clock.now() + lifetime)
    const group = this.#groups[this.#added++ % GROUPS] as Set<EventStream>
    group.add(stream)
    this.#groupOf.set(stream, group)
    this.#schedule()
    return stream
  }

  run(producer: () => Promise<void>): void {
    void this.#lifecycle.track(producer)
  }

  remove(stream: EventStream): void {
    this.#groupOf.get(stream)?.delete(stream)
    this.#groupOf.delete(stream)
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
    for (const stream of [...this.#groupOf.keys()]) {
      stream.send(retry)
      stream.end()
    }
  }
}
