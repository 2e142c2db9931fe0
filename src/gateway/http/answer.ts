/**
 * An answer. A Response is made of it only where one is asked for: on node:http, to make one and to read it again would cost
 * more than all else that a request costs here.
 */
export class Answer {
  readonly status: number
  /** By their names in lower case. Those that all answers have are added when it is sent. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | Uint8Array

  constructor(status: number, headers: Readonly<Record<string, string>>, body: string | Uint8Array = '') {
    this.status = status
    this.headers = headers
    this.body = body
  }

  /** The headers as they are sent. `length`: of the body in bytes, if they say it. */
  fields(length?: number): Record<string, string> {
    const fields: Record<string, string> = { ...this.headers }
    // A cache must not keep an answer, unless that says for how long.
    fields['cache-control'] ??= 'no-store'
    fields['x-content-type-options'] = 'nosniff'
    if (length !== undefined) fields['content-length'] = String(length)
    return fields
  }

  /** As the answer to a request. That to HEAD has no body. */
  toResponse({ method }: Request): Response {
    const { status, body } = this
    const isEmpty = method === 'HEAD' || body.length === 0
    const content = typeof body === 'string' ? body : new Uint8Array(body)
    return new Response(isEmpty ? null : content, { status, headers: this.fields() })
  }
}

const NONE: Readonly<Record<string, string>> = {}

/** An answer of JSON, given as its text. */
export function jsonAnswer(
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = NONE,
): Answer {
  return new Answer(status, { ...headers, 'content-type': 'application/json' }, text)
}

export function emptyAnswer(status = 204, headers: Readonly<Record<string, string>> = NONE): Answer {
  return new Answer(status, headers)
}
