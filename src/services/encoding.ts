import { type Ran, TooLargeError } from '../errors.ts'
import { encodeWith } from '../kernel/codec/codec.ts'
import type { ResolvedServicesOptions } from './options.ts'

/** Encodes what is to be sent. `what`: the beginning of a message, as `The result has`. @throws CodecError; TooLargeError above `maxMessage`. */
export function encodeLimited(
  { codec, maxMessage }: Pick<ResolvedServicesOptions, 'codec' | 'maxMessage'>,
  value: unknown,
  what: string,
  about: { key?: string; ran?: Ran } = {},
): Buffer {
  const bytes = encodeWith(codec, value, about.ran)
  if (bytes.length <= maxMessage) return bytes
  throw new TooLargeError(`${what} ${bytes.length} bytes, more than ${maxMessage}`, about)
}
