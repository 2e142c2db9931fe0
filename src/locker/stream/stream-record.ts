import {
  ClosedError,
  CodecError,
  LeaseLostError,
  LockTimeoutError,
  OverloadedError,
  StreamInterruptedError,
  UnavailableError,
} from '../../errors.ts'
import { type Codec, jsonCodec } from '../../kernel/codec/codec.ts'
import { ID_LENGTH } from '../../kernel/keys.ts'
import type { WaitNode } from '../../kernel/work-scheduler.ts'

/** How a stream ended. */
export interface StreamEnd {
  count: number
  /** The encoded failure of the work, which readers receive after the chunks. */
  failure?: Buffer
}

/** The value of a stream's record: published as progress while the stream is produced, and as the result at its end. */
export interface StreamRecord {
  /** Identifies the log: the fence of the grant, or a random id if the log is unshared. */
  log: string
  /** Whether readers may join: false after the log was trimmed. */
  open: boolean
  end?: StreamEnd
}

const SHARED_LOG = /^\d{1,16}$/
const UNSHARED_LOG = new RegExp(`^[\\w-]{${ID_LENGTH}}$`)

/** Whether a log is in the store that all processes share. */
export function isShared(log: string): boolean {
  return SHARED_LOG.test(log)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/** Validates a record, which anybody may have written. @throws CodecError */
function checkedRecord(value: unknown): StreamRecord {
  const { log, open, end } = (value ?? {}) as Partial<StreamRecord>
  if (
    typeof log !== 'string' ||
    !(SHARED_LOG.test(log) || UNSHARED_LOG.test(log)) ||
    typeof open !== 'boolean'
  )
    throw new CodecError('Expected the record of a stream')
  if (end === undefined) return { log, open }
  const { count, failure } = end ?? {}
  if (!isCount(count) || !(failure === undefined || Buffer.isBuffer(failure)))
    throw new CodecError('Expected the end of a stream')
  return { log, open, end: failure ? { count, failure } : { count } }
}

export const streamRecordCodec: Codec = {
  encode: (record) => jsonCodec.encode(record),
  decode: (bytes) => checkedRecord(jsonCodec.decode(bytes)),
}

/** A log that will never be complete. */
export interface Interruption {
  /** Whether a reader that was delivered nothing of it locates the stream once more. */
  readonly canRestart: boolean
  /** The error of a reader that does not. */
  error(key: string): Error
}

/** The interruption of a log whose producer was stopped. `local`: its readers may produce unshared without Redis. */
export function interruptionBy(reason: Error, local: boolean, takeover: boolean): Interruption {
  if (reason instanceof ClosedError)
    return { canRestart: false, error: (key) => new ClosedError('The locker was closed', { key }) }
  if (reason instanceof UnavailableError) {
    const { message, cause } = reason
    return { canRestart: local, error: (key) => new UnavailableError(message, { key, cause }) }
  }
  if (reason instanceof OverloadedError)
    return { canRestart: false, error: (key) => new OverloadedError(reason.message, { key }) }
  if (reason instanceof LeaseLostError && !takeover) {
    const message = 'The producer lost its lease, and takeover is off'
    return { canRestart: false, error: (key) => new LockTimeoutError(message, { key, cause: reason }) }
  }
  const message = 'The producer was stopped'
  return { canRestart: true, error: (key) => new StreamInterruptedError(message, { key, cause: reason }) }
}

/** The reason to stop a producer after a failure of its log or its record. */
export function stopReason(cause: unknown, key: string): Error {
  const known = [UnavailableError, ClosedError, OverloadedError].some((kind) => cause instanceof kind)
  if (known) return cause as Error
  return new StreamInterruptedError('The log of the stream cannot be written', { key, cause })
}

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
  wait(
    key: string,
    options: {
      signal: AbortSignal
      timeout: number
      afterFence: number
      staleWhileRevalidate: 0
      staleIfError: 0
      softTimeout: number
      onProgress(record: unknown): void
      onParked(isHeld: boolean): void
    },
  ): Promise<{ readonly value: StreamRecord }>
  invalidate(...keys: string[]): Promise<void>
}
