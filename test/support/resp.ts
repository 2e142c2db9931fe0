const TYPE = { attribute: '|', map: '%' } as const
const BULKS = '$=!'
const SEQUENCES = '*~>'

/** The end of the RESP value that starts at `start`, or -1 as long as a part of it is missing. */
export function valueEnd(buffer: Buffer, start: number): number {
  let at = start
  for (let missing = 1; missing > 0; missing -= 1) {
    const eol = buffer.indexOf('\r\n', at)
    if (eol === -1) return -1
    const type = String.fromCharCode(buffer[at] ?? 0)
    const length = Math.max(Number(buffer.toString('latin1', at + 1, eol)), -1)
    at = eol + 2
    if (BULKS.includes(type) && length >= 0) at += length + 2
    else if (SEQUENCES.includes(type)) missing += Math.max(length, 0)
    else if (type === TYPE.map) missing += 2 * length
    // An attribute is followed by the value that it describes.
    else if (type === TYPE.attribute) missing += 2 * length + 1
  }
  return at <= buffer.length ? at : -1
}

/** Cuts a stream into whole RESP values. */
export class Values {
  #rest: Buffer = Buffer.alloc(0)

  /** The values that this chunk completes. */
  read(chunk: Buffer): Buffer[] {
    const buffer = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const values: Buffer[] = []
    let start = 0
    for (let end = valueEnd(buffer, start); end !== -1; end = valueEnd(buffer, start)) {
      values.push(buffer.subarray(start, end))
      start = end
    }
    this.#rest = buffer.subarray(start)
    return values
  }
}

/** The words of a command: the elements of an array of bulk strings, or an inline command's. */
export function wordsOf(command: Buffer): string[] {
  if (command[0] !== '*'.charCodeAt(0)) return command.toString().trim().split(/\s+/)
  const words: string[] = []
  let at = command.indexOf('\r\n') + 2
  while (at < command.length) {
    const text = command.indexOf('\r\n', at) + 2
    const end = valueEnd(command, at)
    words.push(command.toString('utf8', text, end - 2))
    at = end
  }
  return words
}

/** What a push message, or a RESP2 message of a subscription, says of itself: `MESSAGE`, `INVALIDATE`, … */
export function kindOf(value: Buffer): string | undefined {
  return /^[*>]\d+\r\n\$\d+\r\n(\w+)\r\n/.exec(value.toString('latin1', 0, 64))?.[1]?.toUpperCase()
}
