import type { ServerResponse } from 'node:http'
import pDefer, { type DeferredPromise } from 'p-defer'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { reportHookError } from '../../kernel/hooks.ts'
import type { Access } from '../access.ts'
import type { Caller, RouteContext } from '../env.ts'
import { internalProblem, problemOf } from '../problem.ts'
import { Answer } from './answer.ts'
import { isClosed } from './client.ts'
import { Frame, type ServerSentEvent } from './event-frame.ts'
import { BodyPipe, type EventPipe, NodePipe, type PipeListener } from './event-pipe.ts'

/**
 * Sends the events of a stream. The stream ends when it settles; a rejection is told as the event `error`. It is called once in
 * any case, so that it can release what it was made with: if the client was gone before, the stream is over.
 */
export type EventProducer = (stream: EventStream) => Promise<void>

/** What a stream uses of those that are open in its gateway. */
export interface StreamOwner {
  /** Bytes that are pending in all streams that are congested. Each stream keeps its share up to date. */
  pending: number
  /** Calls the producer. `close` of the gateway waits for it. */
  run(producer: () => Promise<void>): void
  /** The stream is closed. */
  remove(stream: EventStream): void
}

type State =
  /** The answer has not begun. */
  | { readonly kind: 'created' }
  | { readonly kind: 'open'; readonly pipe: EventPipe }
  /** Nothing is sent any more. The client has not taken all that was sent. */
  | { readonly kind: 'flushing'; readonly pipe: EventPipe }
  | { readonly kind: 'closed' }

const TRANSITIONS: Transitions<State['kind']> = {
  created: ['open', 'closed'],
  open: ['flushing', 'closed'],
  flushing: ['closed'],
  closed: [],
}

/** A client that leaves more than this pending is slow: a producer that can should wait for {@link EventStream.drained}. */
const HIGH_WATER = 16 * 1024

/** Most bytes that may be pending when one more event is sent. */
const MAX_PENDING = 1024 * 1024

/** Most bytes that may be pending in all congested streams of a gateway. */
const MAX_PENDING_IN_ALL = 64 * 1024 * 1024

/** A client that takes nothing of what is pending for so long is cut, ms. */
const MAX_STALL = 120_000

/**
 * A stream of server-sent events to one client. It ends when its producer has ended, the gateway closes, the client is gone, or
 * the client does not read: more than 1 MiB is pending when one more event is sent, or none of it was taken for 2 minutes. One
 * event may be larger than that.
 *
 *   state     event                                             next state
 *   created   the answer begins                                 open
 *   created   `end`, or the client was gone before              closed
 *   open      the producer has ended, or `end`                  flushing; closed if the client has taken about all
 *   open      the client is gone, or is cut                     closed
 *   open      the response fails: that is reported              closed
 *   flushing  the client has taken all, is gone, or is cut      closed
 *   flushing  the response fails: that is reported              closed
 *   closed    the answer begins                                 closed: it has no events
 */
export class EventStream implements PipeListener {
  readonly #owner: StreamOwner
  readonly #producer: EventProducer
  /** When it must end, by the clock. */
  readonly #endsAt: number
  #state: State = { kind: 'created' }
  /** Its share of `pending` of the owner. */
  #counted = 0
  /** Since when the client has taken nothing of what is pending, and how much that is. */
  #stall: { readonly since: number; readonly pending: number } | undefined
  #drained: DeferredPromise<void> | undefined
  #ended: DeferredPromise<void> | undefined
  #controller: AbortController | undefined

  /** `endsAt`: when it must end, by the clock; the next heartbeat ends it. */
  constructor(owner: StreamOwner, producer: EventProducer, endsAt: number) {
    this.#owner = owner
    this.#producer = producer
    this.#endsAt = endsAt
  }

  #enter(state: State): void {
    assertTransition('event stream', TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /** Whether it has ended: what is sent is dropped. */
  get isOver(): boolean {
    return this.#state.kind === 'flushing' || this.#state.kind === 'closed'
  }

  /** Whether the client is slow: see {@link drained}. */
  get isCongested(): boolean {
    return this.#state.kind === 'open' && this.#state.pipe.pending > HIGH_WATER
  }

  /** Resolves when it is over. */
  get ended(): Promise<void> {
    if (this.isOver) return Promise.resolve()
    this.#ended ??= pDefer()
    return this.#ended.promise
  }

  /** Aborts when it is over. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.isOver) this.#controller.abort()
    return this.#controller.signal
  }

  /** Resolves when the client is not slow, or the stream is over. */
  drained(): Promise<void> {
    if (!this.isCongested) return Promise.resolve()
    this.#drained ??= pDefer()
    return this.#drained.promise
  }

  /** Sends an event. A client that does not read is cut instead. */
  send(event: ServerSentEvent | Frame): void {
    const state = this.#state
    if (state.kind !== 'open') return
    if (state.pipe.pending > MAX_PENDING) return this.#cut(state.pipe)
    state.pipe.write((event instanceof Frame ? event : Frame.of(event)).bytes)
    if (this.isOver) return
    this.#count(state.pipe)
    if (this.#counted > 0 && this.#owner.pending > MAX_PENDING_IN_ALL) this.#cut(state.pipe)
  }

  /** Ends it behind what was sent. */
  end(): void {
    const state = this.#state
    if (state.kind === 'created') this.#close()
    if (state.kind !== 'open') return
    this.#enter({ kind: 'flushing', pipe: state.pipe })
    state.pipe.end()
    this.#tellEnd()
    if (state.pipe.pending <= HIGH_WATER) this.#close()
  }

  /** Begins the answer on a response of node:http. */
  attachTo(outgoing: ServerResponse): void {
    if (!this.isOver && !isClosed(outgoing)) return this.#open(new NodePipe(outgoing, this))
    outgoing.end()
    this.abandon()
  }

  /** There will be no answer. */
  abandon(): void {
    this.#close()
    this.#run()
  }

  /** Begins the answer as the body of a Response. `signal`: of the request. */
  toBody(signal: AbortSignal): ReadableStream<Uint8Array> {
    if (this.isOver) {
      this.abandon()
      return new ReadableStream({ start: (controller) => controller.close() })
    }
    const pipe = new BodyPipe(signal, this)
    this.#open(pipe)
    return pipe.body
  }

  #open(pipe: EventPipe): void {
    this.#enter({ kind: 'open', pipe })
    this.#run()
  }

  #run(): void {
    this.#owner.run(async () => {
      try {
        await this.#producer(this)
      } catch (error) {
        this.#fail(error)
      }
      this.end()
    })
  }

  #fail(error: unknown): void {
    const problem = problemOf(error)
    if (!problem) reportHookError('gateway', error)
    this.send({ event: 'error', data: JSON.stringify(problem ?? internalProblem()) })
  }

  /** Called at each interval of heartbeats: sends one, ends it when its time is over, or cuts a client that takes nothing. `now`: by the clock. */
  beat(now: number): void {
    const state = this.#state
    if (state.kind === 'created' || state.kind === 'closed') return
    if (state.kind === 'open' && now >= this.#endsAt) return this.end()
    const { pending } = state.pipe
    this.#count(state.pipe)
    if (pending === 0) {
      this.#stall = undefined
      if (state.kind === 'open') state.pipe.write(Frame.HEARTBEAT.bytes)
      else this.#close()
    } else if (!this.#stall || pending < this.#stall.pending) {
      this.#stall = { since: now, pending }
    } else if (now - this.#stall.since >= MAX_STALL) {
      this.#cut(state.pipe)
    }
  }

  onDrained(): void {
    if (this.#state.kind === 'open') this.#count(this.#state.pipe)
    this.#tellDrained()
  }

  onClosed(): void {
    this.#close()
  }

  onFailed(error: unknown): void {
    reportHookError('gateway', error)
    const state = this.#state
    if (state.kind === 'open' || state.kind === 'flushing') this.#cut(state.pipe)
  }

  #cut(pipe: EventPipe): void {
    pipe.cut()
    this.#close()
  }

  #close(): void {
    if (this.#state.kind === 'closed') return
    this.#enter({ kind: 'closed' })
    this.#owner.pending -= this.#counted
    this.#counted = 0
    this.#owner.remove(this)
    this.#tellEnd()
  }

  #count({ pending }: EventPipe): void {
    const counted = pending > HIGH_WATER ? pending : 0
    this.#owner.pending += counted - this.#counted
    this.#counted = counted
  }

  #tellEnd(): void {
    this.#controller?.abort()
    this.#ended?.resolve()
    this.#tellDrained()
  }

  #tellDrained(): void {
    this.#drained?.resolve()
    this.#drained = undefined
  }
}

/** What an answer of server-sent events uses. */
interface StreamDeps {
  readonly access: Pick<Access, 'caller'>
  /** `lifetime`: after this time it ends, ms. */
  readonly streams: { create(producer: EventProducer, lifetime?: number, caller?: Caller): EventStream }
}

const HEADERS = { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' }

/** An answer of server-sent events. */
export class EventAnswer extends Answer {
  readonly stream: EventStream

  constructor(stream: EventStream) {
    super(200, HEADERS)
    this.stream = stream
  }

  override toResponse({ signal }: Request): Response {
    return new Response(this.stream.toBody(signal), { status: this.status, headers: this.fields() })
  }
}

/**
 * An answer of server-sent events. What must be answered by a status is checked before. It ends with the session of its caller.
 * @throws OverloadedError if too many streams are open, Problem 429 if its caller has too many; ClosedError if the gateway closes.
 */
export function eventStream(
  c: RouteContext,
  { streams, access }: StreamDeps,
  producer: EventProducer,
): Answer {
  const caller = access.caller(c)
  const lifetime = caller?.until === undefined ? undefined : caller.until - Date.now()
  const stream = streams.create(producer, lifetime, caller)
  // A client that asks for the headers alone gets no body, and nothing would end it.
  if (c.req.raw.method !== 'HEAD') return new EventAnswer(stream)
  stream.abandon()
  return new Answer(200, HEADERS)
}
