const CONNECTION_CLOSED =
  'The origin closes the connection without an answer. The proxy answers by 502 and does not serve the stale response, as the test wants; but it counts only an answer that came from the origin, which there is none. No published cache passes it. (It depends on stale-close, which is no requirement, and so does not apply by the suite’s own rules.)'
const SET_COOKIE =
  'A response that sets a cookie is not shared unless the cache is told to (`shareSetCookie`, with which it passes): a session that is handed to everybody is worse than a miss.'

/** Why each required test that fails should: by its id. */
export const REASONS: Readonly<Record<string, string>> = {
  'stale-close-must-revalidate': CONNECTION_CLOSED,
  'stale-close-proxy-revalidate': CONNECTION_CLOSED,
  'stale-close-no-cache': CONNECTION_CLOSED,
  'stale-close-s-maxage=2': CONNECTION_CLOSED,
  'headers-store-Set-Cookie': SET_COOKIE,
  '304-etag-update-response-Set-Cookie': SET_COOKIE,
}

const PARTS = 'Parts are not kept, only whole responses, from which parts are served.'

/** Why an optimal one does. */
export const OPTIMAL_REASONS: Readonly<Record<string, string>> = {
  'method-POST': 'The answer to a POST is not kept for those who GET.',
  'vary-normalise-lang-order': 'To some servers the order of languages tells which one is liked best.',
  'vary-normalise-lang-select': 'Which language a response is in is left to the origin.',
  'vary-normalise-space':
    'A field that is not known is compared as it stands: blanks may mean something in it.',
  'conditional-lm-fresh-no-lm':
    'The response is newer than the date that the client asks about: 304 would leave it with the old one.',
  'partial-store-partial-reuse-partial': PARTS,
  'partial-store-partial-reuse-partial-byterange': PARTS,
  'partial-store-partial-reuse-partial-absent': PARTS,
  'partial-store-partial-reuse-partial-suffix': PARTS,
  'partial-store-partial-complete': PARTS,
  'other-set-cookie': SET_COOKIE,
  'other-cookie':
    'Requests with a Cookie pass by the cache unless it is told that cookies do not matter (`cookies`).',
}
