/** Texts of answers, so that node:http is given them as they are: to read one from its Response costs more than all else. */
const texts = new WeakMap<Response, string>()

/** An answer with a text. */
export function textResponse(
  text: string,
  init: { status: number; headers: Record<string, string> },
): Response {
  const response = new Response(text, init)
  texts.set(response, text)
  return response
}

/** The text of an answer that {@link textResponse} made. */
export function knownText(response: Response): string | undefined {
  return texts.get(response)
}

/** An answer of JSON, given as its text. */
export function jsonResponse(
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return textResponse(text, { status, headers: { 'content-type': 'application/json', ...headers } })
}

export function emptyResponse(status = 204): Response {
  const response = new Response(null, { status })
  texts.set(response, '')
  return response
}
