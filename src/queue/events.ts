import type { EventEmitter } from 'node:events'
import type { RemoteFailure } from '../errors.ts'
import { callHook } from '../kernel/hooks.ts'
import { checkFunction, checkOptions, type OptionTable } from '../kernel/options.ts'
import { emit, hasListeners } from '../kernel/telemetry.ts'
import { AsyncContext, microtask } from '../kernel/time.ts'
import { eventText } from './store/event-text.ts'
import type { DueResult, QueueStore } from './store/store.ts'
import { type AttemptResult, failureOf, type ResultSource } from './working/attempt-result.ts'

/** The job of an event. */
export interface JobEvent {
  id: string
  command: string
}

/** Events that a queue emits for jobs that this process submits or runs. */
export interface QueueEvents {
  /** A submission was accepted. */
  submitted: [JobEvent & { disposition: Disposition }]
  /** A handler was called. */
  active: [JobEvent & { attempt: number; fence: number }]
  /** The result of a handler was accepted. `ms`: duration of the attempt. */
  completed: [JobEvent & { attempt: number; fence: number; ms: number }]
  /** A handler failed. The next attempt starts in `delay` ms. */
  retrying: [JobEvent & { attempt: number; fence: number; ms: number; delay: number; failure: RemoteFailure }]
  /** A handler failed and no attempt is left. */
  failed: [JobEvent & { attempt: number; fence: number; ms: number; failure: RemoteFailure }]
  /** A job lost its worker and is requeued; `failed`: it failed instead, by `maxStalls`. Emitted by the process that noticed. */
  stalled: [JobEvent & { failed: boolean }]
  /** An attempt of this process was lost, or its job was cancelled. `code`: error code of the reason of the signal. */
  lost: [JobEvent & { attempt: number; fence: number; code: string }]
}

/**
 * Lines that were appended to the log of a job, in any process: the last ones of one call, as far as a message has room.
 * `skipped`: how many before them were left out.
 */
export interface LogEvent extends JobEvent {
  fence: number
  lines: string[]
  skipped: number
}

/** An event of any process: its name, its fields, and the process that emitted it. */
export type FeedEvent =
  | {
      [Name in keyof QueueEvents]: { event: Name; process: string } & QueueEvents[Name][0]
    }[keyof QueueEvents]
  | ({ event: 'log'; process: string } & LogEvent)

/**
 * Effect of a submission. 'created': it created a new run. 'joined': it joined a run that waits or is active, or its post was
 * submitted before. 'cached': the outcome of an earlier run was still valid.
 */
export type Disposition = 'created' | 'joined' | 'cached'

/** Counters of a queue in this process, since its construction. */
export interface QueueCounters {
  submitted: number
  completed: number
  failed: number
  retried: number
  lost: number
  stalled: number
}

/** Statistics of a queue in this process. */
export interface QueueStats extends QueueCounters {
  /** Number of jobs whose outcome this process waits for. */
  waiting: number
  /** Number of jobs that run in this process. */
  running: number
  /** Whether the subscription to messages is established. */
  subscribed: boolean
}

/** The attempt of an event. */
export interface ReportedAttempt extends ResultSource {
  readonly command: string
  readonly delivery: { readonly id: string; readonly fence: number }
}

/** Emits events to the listeners of this process, to watchers in other processes, and to telemetry. */
export class EventReporter {
  readonly counters: QueueCounters = {
    submitted: 0,
    completed: 0,
    failed: 0,
    retried: 0,
    lost: 0,
    stalled: 0,
  }
  readonly #queue: string
  readonly #emitter: EventEmitter
  readonly #store: QueueStore

  constructor(queue: string, emitter: EventEmitter, store: QueueStore) {
    this.#queue = queue
    this.#emitter = emitter
    this.#store = store
  }

  #publish<Name extends keyof QueueEvents>(event: Name, details: QueueEvents[Name][0]): void {
    if (this.#emitter.listenerCount(event) > 0) {
      // In a separate microtask, since listeners may call the queue.
      microtask(() => this.#emitter.emit(event, details))
    }
    if (!this.#store.hasWatchers) return
    try {
      this.#store.publishEvent(eventText(event, details))
    } catch {
      // A failure that `exposeError` returned is not representable in JSON. The event is dropped.
    }
  }

  submitted(id: string, command: string, disposition: Disposition): void {
    this.#publish('submitted', { id, command, disposition })
  }

  /** The handler was called, or the job was taken. */
  started({ delivery, number, command }: Pick<ReportedAttempt, 'delivery' | 'number' | 'command'>): void {
    this.#publish('active', { id: delivery.id, command, attempt: number, fence: delivery.fence })
  }

  /** The store accepted the result. `ms`: duration of the attempt. */
  ended(attempt: ReportedAttempt, { kind, error, delay }: AttemptResult, ms: number): void {
    const { delivery, number, command } = attempt
    const { id, fence } = delivery
    const details = { id, command, attempt: number, fence, ms }
    if (hasListeners('attempt')) emit('attempt', { queue: this.#queue, ...details, failed: kind !== 'value' })
    if (kind === 'value') {
      this.counters.completed++
      this.#publish('completed', details)
    } else if (kind === 'retry') {
      this.counters.retried++
      this.#publish('retrying', { ...details, delay, failure: failureOf(attempt, error) })
    } else {
      this.counters.failed++
      this.#publish('failed', { ...details, failure: failureOf(attempt, error) })
    }
  }

  /** The attempt was lost or cancelled, or the store refused its result. */
  lost({ delivery, number, command }: ReportedAttempt, reason: unknown): void {
    this.counters.lost++
    const { id, fence } = delivery
    const { code = 'E_LEASE_LOST' } = (reason ?? {}) as { code?: string }
    emit('lost', { key: id, fence })
    this.#publish('lost', { id, command, attempt: number, fence, code: String(code) })
  }

  dueProcessed(results: readonly DueResult[]): void {
    for (const { id, command, status } of results) {
      if (status !== 'stalled' && status !== 'failed') continue
      this.counters.stalled++
      this.#publish('stalled', { id, command, failed: status === 'failed' })
    }
  }
}

/** Options of one `watch`. */
export interface WatchOptions {
  /** Called when the connection is back after a loss: events may have been lost. */
  onGap?: (() => void) | undefined
}

const WATCH_OPTIONS: OptionTable<WatchOptions> = { onGap: [checkFunction] }

/** See `RedisQueue.watch`. */
export async function watchFeed(
  { store, within }: { readonly store: QueueStore; readonly within: number },
  listener: (event: FeedEvent) => void,
  options: WatchOptions,
): Promise<() => void> {
  checkFunction('listener', listener)
  checkOptions(options, WATCH_OPTIONS)
  const { onGap } = options
  const context = new AsyncContext()
  const stop = await store.watchEvents((text) => {
    const event = parseFeedEvent(text)
    if (event) callHook(context, 'watch', listener, event)
  }, within)
  if (!onGap) return stop
  let isDown = !store.subscribed
  const unlisten = store.listen({
    up: () => {
      if (isDown) callHook(context, 'onGap', onGap)
      isDown = false
    },
    down: () => {
      isDown = true
    },
  })
  return () => {
    unlisten()
    stop()
  }
}

/** Parses an event of another process; undefined if it is invalid. */
function parseFeedEvent(text: string): FeedEvent | undefined {
  try {
    const event = JSON.parse(text) as FeedEvent
    return typeof event?.event === 'string' && typeof event.id === 'string' ? event : undefined
  } catch {
    return undefined
  }
}
