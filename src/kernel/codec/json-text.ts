import { CodecError } from '../../errors.ts'
import { expectedError } from '../options.ts'

/**
 * JSON that is kept byte for byte: numbers, blanks, the order and the repetition of fields stay as they are. `jsonCodec`
 * writes one that is the whole value as its text, and the payload of a job may be one.
 */
export class JsonText {
  /** Well-formed JSON. */
  readonly text: string

  private constructor(text: string) {
    this.text = text
  }

  /** @throws CodecError unless the text is JSON, without lone surrogates; TypeError unless it is a string. */
  static parse(text: string): JsonText {
    if (typeof text !== 'string') throw expectedError('text', 'a string', text)
    // In UTF-8 it would become another text.
    if (!text.isWellFormed()) throw new CodecError('The text contains a lone surrogate')
    try {
      JSON.parse(text)
    } catch (cause) {
      throw new CodecError('The text is not JSON', { cause })
    }
    return new JsonText(text)
  }

  /** The value of the text: a new one each time. */
  get value(): unknown {
    return JSON.parse(this.text)
  }
}
