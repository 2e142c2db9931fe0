import type { EventEmitter } from 'node:events'
import { hostname } from 'node:os'
import { emit, hasListeners } from '../../kernel/telemetry.ts'
import { microtask } from '../../kernel/time/timers.ts'
import type { DueResult, QueueStore } from '../store/store.ts'
import type { Attempt, Result } from '../working/attempt.ts'
import type { WorkerEvents } from '../working/worker.ts'
import type { Disposition, FeedEvent, QueueEvents } from './events.ts'

/** Counts of what a queue did in this process. */
export interface QueueCounters {
  submitted: number
  completed: number
  failed: number
  retried: number
  lost: number
  stalled: number
}

/** This process, as events name it. */
const PROCESS = `${hostname().slice(0, 48)}:${process.pid}`

/** Tells what happens: to the listeners of this process, to those who watch from another, and to telemetry. */
export class Reports {
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

  #report<Name extends keyof QueueEvents>(event: Name, about: QueueEvents[Name][0]): void {
    if (this.#emitter.listenerCount(event) > 0) {
      // In a tick of its own: listeners may call the queue.
      microtask(() => this.#emitter.emit(event, about))
    }
    if (!this.#store.hasWatchers) return
    try {
      this.#store.publishEvent(JSON.stringify({ event, process: PROCESS, ...about }))
    } catch {
      // What a hook has made of a failure cannot be told: nor can what it belongs to.
    }
  }

  submitted(id: string, command: string, disposition: Disposition): void {
    this.#report('submitted', { id, command, disposition })
  }

  /** What the worker of a command tells. */
  worker(command: string): Omit<WorkerEvents, 'due' | 'refused'> {
    return {
      started: (attempt) => this.#started(attempt, command),
      ended: (attempt, result, ms) => this.#ended(attempt, result, ms, command),
      lost: (attempt, reason) => this.#lost(attempt, reason, command),
    }
  }

  #started({ delivery, number }: Attempt, command: string): void {
    this.#report('active', { id: delivery.id, command, attempt: number, fence: delivery.fence })
  }

  #ended(attempt: Attempt, { kind, error, delay }: Result, ms: number, command: string): void {
    const { delivery, number } = attempt
    const { id, fence } = delivery
    const about = { id, command, attempt: number, fence, ms }
    if (hasListeners('attempt')) emit('attempt', { queue: this.#queue, ...about, failed: kind !== 'value' })
    if (kind === 'value') {
      this.counters.completed++
      this.#report('completed', about)
    } else if (kind === 'retry') {
      this.counters.retried++
      this.#report('retrying', { ...about, delay, failure: attempt.exposed(error) })
    } else {
      this.counters.failed++
      this.#report('failed', { ...about, failure: attempt.exposed(error) })
    }
  }

  #lost({ delivery, number }: Attempt, reason: unknown, command: string): void {
    this.counters.lost++
    const { id, fence } = delivery
    const { code = 'E_LEASE_LOST' } = (reason ?? {}) as { code?: string }
    emit('lost', { key: id, fence })
    this.#report('lost', { id, command, attempt: number, fence, code: String(code) })
  }

  ticked(ticks: readonly DueResult[]): void {
    for (const { id, command, status } of ticks) {
      if (status !== 'stalled' && status !== 'failed') continue
      this.counters.stalled++
      this.#report('stalled', { id, command, failed: status === 'failed' })
    }
  }
}

/** Reads an event of another process; undefined for what is none. */
export function feedEventOf(text: string): FeedEvent | undefined {
  try {
    const event = JSON.parse(text) as FeedEvent
    return typeof event?.event === 'string' && typeof event.id === 'string' ? event : undefined
  } catch {
    return undefined
  }
}
