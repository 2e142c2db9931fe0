import { MAX_LOG_LINES, MESSAGE_LIMIT } from '../kernel/keys.ts'

/** Most characters of the lines that wait to be sent, of which there are MAX_LOG_LINES at most; and those of one line. */
const MAX_CHARACTERS = 512 * 1024
const MAX_LINE = 16 * 1024

/** What is to be told of a job and was not sent yet: the last progress, and lines of its log. Bounded: the oldest lines go. */
export class Notes {
  /** JSON. */
  #progress: string | undefined
  #lines: string[] = []
  #length = 0

  get isEmpty(): boolean {
    return this.#progress === undefined && this.#lines.length === 0
  }

  /** @throws TypeError if the value is not JSON, or too large. */
  setProgress(value: unknown): void {
    const text = JSON.stringify(value) as string | undefined
    if (text === undefined) throw new TypeError('Expected the progress to be JSON')
    if (Buffer.byteLength(text) >= MESSAGE_LIMIT)
      throw new TypeError(`Expected the progress to have less than ${MESSAGE_LIMIT} bytes`)
    this.#progress = text
  }

  addLine(line: string): void {
    const text = String(line).slice(0, MAX_LINE).toWellFormed()
    this.#lines.push(text)
    this.#length += text.length
    while (this.#lines.length > MAX_LOG_LINES || this.#length > MAX_CHARACTERS)
      this.#length -= this.#lines.shift()?.length ?? 0
  }

  /** The body of the next request, and what gives its content back if it was not sent. */
  take(): { body: string; restore: () => void } {
    const progress = this.#progress
    const lines = this.#lines
    this.#progress = undefined
    this.#lines = []
    this.#length = 0
    const members = [
      ...(progress === undefined ? [] : [`"progress":${progress}`]),
      ...(lines.length === 0 ? [] : [`"log":${JSON.stringify(lines)}`]),
    ]
    const restore = () => {
      this.#progress ??= progress
      const later = this.#lines
      this.#lines = []
      this.#length = 0
      for (const line of [...lines, ...later]) this.addLine(line)
    }
    return { body: `{${members.join(',')}}`, restore }
  }
}
