import {
  checkChoice,
  checkDuration,
  checkFlag,
  checkLease,
  checkOptions,
  checkSignal,
  checksOf,
  checkTimeout,
  checkWhole,
  withDefaults,
} from '../../kernel/options.ts'
import type { OnUnavailable } from '../flight/waiter.ts'

/** What the work of a stream is given. */
export interface StreamContext {
  /** The key that it produces. */
  readonly key: string
  /**
   * Aborts with LeaseLostError when the lease is lost, with ClosedError at the end of `close`, with AbortedError when
   * nobody reads any more and `abortUnwanted` is set. The generator is then asked to return as well.
   */
  readonly signal: AbortSignal
  /** Number of the grant: only grows, so a store that it writes to can refuse an older one. 0 when unshared. */
  readonly fence: number
  /** Whether the chunks reach other processes. */
  readonly shared: boolean
  /** Decides, until its end, how long the complete stream is kept, ms; instead of the option `ttl`. */
  setTtl(ms: number): void
}

/**
 * Chunks: an async generator as a rule; also any iterable, or a web ReadableStream. Not a text, nor bytes: they would come as
 * single characters or numbers.
 */
export type StreamSource<T> = AsyncIterable<T> | (Iterable<T> & object & { BYTES_PER_ELEMENT?: never })

/** What produces a stream. */
export type StreamWork<T> = (context: StreamContext) => StreamSource<T> | PromiseLike<StreamSource<T>>

/** Options of one `stream`. Durations are ms. `lease`, `ttl`, `errorTtl`, `maxBytes` and `abortUnwanted` are those of the producer. */
export interface StreamOptions {
  /** Ends the reading of this caller, with AbortedError. */
  signal?: AbortSignal | undefined
  /** Longest wait for a chunk, the first one too; the locker's when absent. The work goes on. */
  timeout?: number | undefined
  /** The locker's when absent. */
  lease?: number | undefined
  /** How long the complete stream is kept for later callers; the locker's when absent. */
  ttl?: number | undefined
  /** How long a failed one is; the locker's when absent. */
  errorTtl?: number | undefined
  /** As the locker's option, for this reader; the locker's when absent. */
  onUnavailable?: 'fail' | 'local' | undefined
  /**
   * Bytes of encoded chunks that are kept. Beyond it only the newest are: nobody may join any more, and who is further
   * behind is interrupted.
   * @default 16_777_216
   */
  maxBytes?: number | undefined
  /**
   * Whether the work is aborted when no reader is left in any process.
   * @default false
   */
  abortUnwanted?: boolean | undefined
}

/** What of a locker's options is the default for its streams. */
export interface StreamDefaults {
  timeout: number
  lease: number
  ttl: number
  errorTtl: number
  onUnavailable: OnUnavailable
}

/** The options of one stream, checked and complete. */
export interface StreamTerms extends StreamDefaults {
  onUnavailable: 'fail' | 'local'

  signal: AbortSignal | undefined
  maxBytes: number
  abortUnwanted: boolean
}

/** Bytes of encoded chunks that are kept, unless told otherwise. */
export const MAX_BYTES: number = 16 * 1024 * 1024

const STREAM_CHECKS = checksOf<StreamOptions>({
  signal: checkSignal,
  timeout: checkTimeout,
  lease: (_, value) => checkLease(value),
  ttl: checkDuration,
  errorTtl: checkDuration,
  onUnavailable: (name, value) => checkChoice(name, value, ['fail', 'local']),
  maxBytes: (name, value) => checkWhole(name, value, Number.MAX_SAFE_INTEGER),
  abortUnwanted: checkFlag,
})

/** Chunks are not cached in the process. */
function withoutCache({ onUnavailable }: StreamDefaults): 'fail' | 'local' {
  return onUnavailable === 'local' || onUnavailable === 'cached-local' ? 'local' : 'fail'
}

/** Checks the options of one stream and fills in the defaults. Throws TypeError. */
export function resolveTerms(options: StreamOptions, defaults: StreamDefaults): StreamTerms {
  checkOptions(options, STREAM_CHECKS)
  const { timeout, lease, ttl, errorTtl } = defaults
  const onUnavailable = withoutCache(defaults)
  const plain = { timeout, lease, ttl, errorTtl, onUnavailable, maxBytes: MAX_BYTES, abortUnwanted: false }
  const terms = withDefaults<Omit<StreamTerms, 'signal'>>(options, plain)
  return { ...terms, lease: checkLease(terms.lease), signal: options.signal }
}
