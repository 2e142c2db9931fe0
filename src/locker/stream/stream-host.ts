import type { RemoteFailure } from '../../errors.ts'
import type { Codec } from '../../kernel/codec/codec.ts'
import type { AsyncContext, Clock } from '../../kernel/event-loop.ts'
import type { WorkScheduler } from '../../kernel/work-scheduler.ts'
import type { WaitNode } from '../flight/deadlock.ts'
import type { Counters } from '../flight/locker-context.ts'
import type { LogStore } from './log/log-store.ts'
import type { ResolvedStreamOptions, StreamDefaults, StreamWork } from './options.ts'
import type { StreamRecord } from './stream-record.ts'

/** The right to produce one stream; a Lease, or the grant of an unshared stream. */
export interface StreamGrant {
  readonly fence: number
  readonly shared: boolean
  readonly signal: AbortSignal
  /** The node of its work in the wait-for graph. */
  readonly node?: WaitNode | undefined
  progress(record: StreamRecord): void
  publish(record: StreamRecord, options: { ttl: number }): Promise<void>
  release(): Promise<void>
}

/** The namespace of the locker that holds the records of streams. */
export interface StreamSpace {
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
      onProgress(record: unknown): void
    },
  ): Promise<
    ({ readonly status: 'locked' } & StreamGrant) | { status: 'done'; result: { value: StreamRecord } }
  >
  invalidate(...keys: string[]): Promise<void>
}

/** What streams use of their locker. */
export interface StreamHost {
  readonly space: StreamSpace
  readonly clock: Clock
  readonly prefix: string
  /** Shared logs. */
  readonly logs: LogStore
  /** Encodes chunks. */
  readonly codec: Codec
  readonly scheduler: WorkScheduler
  readonly counters: Counters
  readonly defaults: StreamDefaults
  /** Longest silence of Redis, ms. */
  readonly unavailableAfter: number
  /** Whether a reader that was delivered nothing may replace a producer that lost its lease. */
  readonly takeover: boolean
  readonly exposeError: (failure: RemoteFailure, error: unknown) => RemoteFailure
}

/** One call of `stream`. */
export interface StreamCall {
  /** The async context of the call; its work and hooks run in it. */
  readonly context: AsyncContext
  readonly key: string
  readonly work: StreamWork<unknown>
  readonly options: ResolvedStreamOptions
}
