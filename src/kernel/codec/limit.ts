import { type Ran, TooLargeError } from '../../errors.ts'
import { type Codec, encodeWith } from './codec.ts'

/** How values are encoded that one process sends, and how large they may be. */
interface Encoding {
  readonly codec: Codec
  /** Bytes. */
  readonly maxMessage: number
}

/** Encodes what is to be sent. `what`: the beginning of an error, as `The result has`. @throws CodecError; TooLargeError above `maxMessage`. */
export function encodeLimited(
  { codec, maxMessage }: Encoding,
  value: unknown,
  what: string,
  about: { key?: string; ran?: Ran } = {},
): Buffer {
  const bytes = encodeWith(codec, value, about.ran)
  if (bytes.length <= maxMessage) return bytes
  throw new TooLargeError(`${what} ${bytes.length} bytes, more than ${maxMessage}`, about)
}
