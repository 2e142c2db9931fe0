import type { RemoteFailure } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import type { Clock } from '../../kernel/time/clock.ts'
import type { AsyncContext } from '../../kernel/work/user-code.ts'
import type { WorkScheduler } from '../../kernel/work/work-scheduler.ts'
import type { WaitNode } from '../flight/deadlock.ts'
import type { Counters } from '../flight/locker-context.ts'
import type { LogStore } from './log/log-store.ts'
import type { LogView } from './log/log-view.ts'
import type { StreamDefaults, StreamTerms, StreamWork } from './options.ts'
import type { StreamNote } from './stream-record.ts'

/** The right to produce one stream. A Lease is one. */
export interface Grant {
  readonly fence: number
  readonly shared: boolean
  readonly signal: AbortSignal
  /** What deadlock.ts knows of those who wait for it. */
  readonly node?: WaitNode | undefined
  progress(note: StreamNote): void
  publish(note: StreamNote, options: { ttl: number }): Promise<void>
  release(): Promise<void>
}

/** The records of streams: a namespace of the locker, whose values are notes. */
export interface StreamSpace {
  readonly clock: Clock
  request(
    key: string,
    options: {
      signal: AbortSignal
      timeout: number
      lease: number
      afterFence: number
      onUnavailable: 'fail' | 'local'
      staleWhileRevalidate: 0
      staleIfError: 0
      softTimeout: number
      onProgress(note: unknown): void
    },
  ): Promise<({ readonly status: 'locked' } & Grant) | { status: 'done'; result: { value: StreamNote } }>
  invalidate(...keys: string[]): Promise<void>
}

/** The locker, as its streams know it. */
export interface StreamHost {
  readonly space: StreamSpace
  readonly prefix: string
  /** Logs for all processes. */
  readonly logs: LogStore
  /** How chunks become bytes. */
  readonly codec: Codec
  readonly scheduler: WorkScheduler
  readonly counters: Counters
  readonly defaults: StreamDefaults
  readonly unavailableAfter: number
  /** Whether a reader that was delivered nothing replaces a producer that is lost. */
  readonly takeover: boolean
  readonly exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
}

/** One call of `stream`. */
export interface StreamCall {
  /** In which its work and hooks run. */
  readonly context: AsyncContext
  readonly key: string
  readonly work: StreamWork<unknown>
  readonly terms: StreamTerms
}

/** A reader, as the streams of its locker know it. */
export interface DeskReader {
  readonly key: string
  close(error: Error): void
}

/** The streams of a locker, as their readers know them. */
export interface ReaderDesk {
  readonly host: StreamHost
  began(reader: DeskReader): void
  ended(reader: DeskReader): void
  /** Whether a log is known to come to no end. */
  isDead(call: StreamCall, log: string): boolean
  /** The view of a log; the same for all who have to do with it here. */
  view(call: StreamCall, log: string): LogView
  /** Produces under a grant; returns the log and its view. */
  produce(call: StreamCall, grant: Grant): { log: string; view: LogView }
  /** Has it produced for this process alone; returns the log and its view. */
  goAlone(call: StreamCall): { log: string; view: LogView }
}
