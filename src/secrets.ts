/**
 * Masks credentials in texts, and names the fields of foreign errors that may contain some. Applied to all errors and
 * warnings of the library, and to failures that are sent to other processes. Keys are not masked.
 */

/** The host of a URL without user and password. A later `@` is part of the path. */
const PLAIN_HOST = /(?:\[[^\]]{0,64}\]|[^/?#@:[]{0,256})(?::\d{0,5})?(?:[/?#]|$)/y

/** Substrings of the names of secrets, in lower-case letters and digits. */
export const SECRET_WORDS: readonly string[] =
  'passw passphrase pwd secret token authoriz authent credential cookie signature apikey accesskey privatekey'.split(
    ' ',
  )

/** A parameter in the query of a URL. */
const PARAMETER = /([?&;]([\w.-]{1,64})=)[^\s&#]+/g

/** Redis quotes the arguments of an unknown command. AUTH and HELLO may be renamed, or unknown to an old server. */
const ARGUMENTS = /(with args beginning with:).*/g

/**
 * Fields of errors that contain requests, statements, settings or inputs, which may contain secrets: of ioredis, pg, mysql2,
 * mongodb, axios, got, undici, the AWS SDK, node:url, node:http and node:child_process, and of libraries on top of them. In
 * lower-case letters and digits.
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

/** Whether a field of this name may contain a secret. */
export function isSecret(name: string): boolean {
  const plain = name.toLowerCase().replace(/[^a-z\d]/g, '')
  return CARRIERS.has(plain) || SECRET_WORDS.some((word) => plain.includes(word))
}

/** A word without the user and password of its URL. These may be unencoded, and contain anything but blanks. */
function withoutUser(word: string): string {
  const end = word.lastIndexOf('@')
  for (let at = word.indexOf('//'); at >= 0 && at < end; at = word.indexOf('//', at + 1)) {
    PLAIN_HOST.lastIndex = at + 2
    if (!PLAIN_HOST.test(word)) return `${word.slice(0, at)}//***${word.slice(end)}`
  }
  return word
}

/** A text without the users and passwords of its URLs, and without the values of parameters that are named like secrets. */
export function masked(text: string): string {
  return text
    .replace(/\S+/g, withoutUser)
    .replace(PARAMETER, (all, head: string, name: string) => (isSecret(name) ? `${head}***` : all))
    .replace(ARGUMENTS, '$1 ***')
}

/** An invalid value for a message. It may be a URL, or a malformed one, so more of it is masked than of a text. */
export function maskedValue(text: string): string {
  const [, scheme = '', rest = ''] = /^(\w+:\/\/)?(.*)$/s.exec(text) ?? []
  const at = rest.lastIndexOf('@') + 1
  const query = rest.indexOf('?')
  // The password may contain the `?`, or the query a password.
  if (query >= 0 && query < at) return `${scheme}***`
  return `${scheme}${at > 0 ? '***@' : ''}${rest.slice(at).replace(/\?.*$/s, '?***')}`
}
