/** An answer of JSON, given as its text. */
export function jsonResponse(
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(text, { status, headers: { 'content-type': 'application/json', ...headers } })
}

export function emptyResponse(status = 204): Response {
  return new Response(null, { status })
}
