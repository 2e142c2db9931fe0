/**
 * What must not be told: credentials in texts, and the fields of foreign errors that are known to carry some. Everything
 * that the library says passes through here: its errors and warnings, and what travels of a failure. Keys do not.
 */

/** A host, as it stands behind the slashes of a URL without user and password: an `@` further on is part of its path. */
const PLAIN_HOST = /(?:\[[^\]]{0,64}\]|[^/?#@:[]{0,256})(?::\d{0,5})?(?:[/?#]|$)/y

/** What names of secrets contain, in letters and digits alone. */
export const SECRET_WORDS: readonly string[] =
  'passw passphrase pwd secret token authoriz authent credential cookie signature apikey accesskey privatekey'.split(
    ' ',
  )

/** A parameter in the query of a URL. */
const PARAMETER = /([?&;]([\w.-]{1,64})=)[^\s&#]+/g

/** Redis quotes the arguments of a command that it does not know: AUTH and HELLO may be renamed, or not be known yet. */
const ARGUMENTS = /(with args beginning with:).*/g

/**
 * Fields of errors that carry requests, statements, settings and what came in, of any of which a secret may be part: of
 * ioredis, pg, mysql2, mongodb, axios, got, undici, the AWS SDK, node:url, node:http and node:child_process, and of what
 * is built on those. In small letters and digits alone.
 */
export const CARRIERS: ReadonlySet<string> = new Set(
  [
    'command args arguments argv cmd escapedcommand spawnargs spawnfile env stdin stdout stderr stdio output',
    'sql query internalquery where detail parameters params bindings values keyvalue statement op document',
    'config options settings auth pass jwt bearer session sessionid connection connectionstring dsn client socket',
    'request req response res errorresponse headers rawheaders rawpacket body rawbody metadata',
    'url uri href input base',
  ].flatMap((line) => line.split(' ')),
)

/** Whether a field of this name may carry a secret. */
export function isSecret(name: string): boolean {
  const plain = name.toLowerCase().replace(/[^a-z\d]/g, '')
  return CARRIERS.has(plain) || SECRET_WORDS.some((word) => plain.includes(word))
}

/** A word without the user and password of its URL, which should have been encoded but may hold whatever is no blank. */
function withoutUser(word: string): string {
  const end = word.lastIndexOf('@')
  for (let at = word.indexOf('//'); at >= 0 && at < end; at = word.indexOf('//', at + 1)) {
    PLAIN_HOST.lastIndex = at + 2
    if (!PLAIN_HOST.test(word)) return `${word.slice(0, at)}//***${word.slice(end)}`
  }
  return word
}

/** A text without the user and password of its URLs, and without what their parameters hold that are named like secrets. */
export function masked(text: string): string {
  return text
    .replace(/\S+/g, withoutUser)
    .replace(PARAMETER, (all, head: string, name: string) => (isSecret(name) ? `${head}***` : all))
    .replace(ARGUMENTS, '$1 ***')
}

/** A value that came in the place of another, and may be a URL, or what was to be one: less of it is shown. */
export function maskedValue(text: string): string {
  const [, scheme = '', rest = ''] = /^(\w+:\/\/)?(.*)$/s.exec(text) ?? []
  const at = rest.lastIndexOf('@') + 1
  const query = rest.indexOf('?')
  // It may be part of a password, or a password part of the query.
  if (query >= 0 && query < at) return `${scheme}***`
  return `${scheme}${at > 0 ? '***@' : ''}${rest.slice(at).replace(/\?.*$/s, '?***')}`
}
