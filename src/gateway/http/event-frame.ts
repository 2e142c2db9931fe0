/** An event of a stream of server-sent events. Any text is safe in any of its fields. */
export interface ServerSentEvent {
  /** A client that reconnects sends the last id that it has seen. */
  readonly id?: string | undefined
  /** Its type: 'message' unless it is given. */
  readonly event?: string | undefined
  readonly data: string
}

const LINE_END = /\r\n|\r|\n/

/** An event as it is sent. One frame may be sent to many clients: it is encoded once. */
export class Frame {
  readonly bytes: Buffer

  private constructor(text: string) {
    this.bytes = Buffer.from(text)
  }

  /** Each line of `data` becomes a field of its own: data cannot begin another field or event. */
  static of({ id, event, data }: ServerSentEvent): Frame {
    const head = `${field('event', event)}${field('id', id)}`
    const lines = data.split(LINE_END).map((line) => `data: ${line}\n`)
    return new Frame(`${head}${lines.join('')}\n`)
  }

  /** Keeps the connection alive, and shows whether the client is there. */
  static readonly HEARTBEAT: Frame = new Frame(':\n\n')

  /** A client whose stream ends reconnects after so many ms. */
  static retry(ms: number): Frame {
    return new Frame(`retry: ${Math.ceil(ms)}\n\n`)
  }
}

/** A field of one line: a line end would begin another field, and an id with NUL is ignored. */
function field(name: string, value: string | undefined): string {
  if (value === undefined) return ''
  let line = ''
  for (const character of value) line += BREAKS.includes(character) ? ' ' : character
  return `${name}: ${line}\n`
}

const BREAKS = '\r\n\0'
