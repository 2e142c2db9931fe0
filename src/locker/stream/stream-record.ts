import { CodecError } from '../../errors.ts'
import { type Codec, jsonCodec } from '../../kernel/codec/codec.ts'
import { ID_LENGTH } from '../../kernel/ids.ts'

/** How a stream ended. */
export interface StreamEnd {
  /** How many chunks it has. */
  count: number
  /** The encoded failure that came after them, if one did. */
  failure?: Buffer
}

/** What the record of a stream says: while it is produced as progress, and at the end as its result. */
export interface StreamNote {
  /** Which log: the fence of the grant, or a random id when it is in the memory of this process alone. */
  log: string
  /** Whether its beginning is still there: else nobody may join. */
  open: boolean
  end?: StreamEnd
}

const SHARED = /^\d{1,16}$/
const LOCAL = new RegExp(`^[\\w-]{${ID_LENGTH}}$`)

/** Whether a log is in the store, for all processes. */
export function isShared(log: string): boolean {
  return SHARED.test(log)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/** Reads a note that may come from anybody. Throws CodecError. */
function checkedNote(value: unknown): StreamNote {
  const { log, open, end } = (value ?? {}) as Partial<StreamNote>
  if (typeof log !== 'string' || !(SHARED.test(log) || LOCAL.test(log)) || typeof open !== 'boolean')
    throw new CodecError('This is no note of a stream')
  if (end === undefined) return { log, open }
  const { count, failure } = end ?? {}
  if (!isCount(count) || !(failure === undefined || Buffer.isBuffer(failure)))
    throw new CodecError('This is no end of a stream')
  return { log, open, end: failure ? { count, failure } : { count } }
}

/** The codec of a stream's record. */
export const noteCodec: Codec = {
  encode: (note) => jsonCodec.encode(note),
  decode: (bytes) => checkedNote(jsonCodec.decode(bytes)),
}
