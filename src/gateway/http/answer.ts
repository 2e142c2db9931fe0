/** Headers of all answers: a cache must not keep one, unless it says for how long. */
const ALWAYS: Readonly<Record<string, string>> = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
}

/**
 * An answer. A Response is made of it only where one is asked for: on node:http, to make one and to read it again would cost
 * more than all else that a request costs here.
 */
export class Answer {
  readonly status: number
  /** By their names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | Uint8Array

  constructor(status: number, headers: Readonly<Record<string, string>>, body: string | Uint8Array = '') {
    this.status = status
    this.headers = { ...ALWAYS, ...headers }
    this.body = body
  }

  /** As the answer to a request. That to HEAD has no body. */
  toResponse({ method }: Request): Response {
    const { status, headers, body } = this
    const isEmpty = method === 'HEAD' || body.length === 0
    const content = typeof body === 'string' ? body : new Uint8Array(body)
    return new Response(isEmpty ? null : content, { status, headers })
  }
}

/** An answer of JSON, given as its text. */
export function jsonAnswer(
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return new Answer(status, { 'content-type': 'application/json', ...headers }, text)
}

export function emptyAnswer(status = 204, headers: Readonly<Record<string, string>> = {}): Answer {
  return new Answer(status, headers)
}
