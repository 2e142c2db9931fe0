import { CodecError } from '../../errors.ts'
import { type Codec, jsonCodec } from '../../kernel/codec/codec.ts'
import { ID_LENGTH } from '../../kernel/keys.ts'

/** How a stream ended. */
export interface StreamEnd {
  /** Number of its chunks. */
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

/** The codec of a stream's record. */
export const streamRecordCodec: Codec = {
  encode: (record) => jsonCodec.encode(record),
  decode: (bytes) => checkedRecord(jsonCodec.decode(bytes)),
}
