import { UnavailableError } from '../../errors.ts'
import { masked, maskedValue } from '../../secrets.ts'
import { messageOf } from '../codec/codec.ts'
import { emit, warnOnce } from '../telemetry.ts'
import type { Clock } from '../time.ts'
import { isCluster, type RedisClient } from './client.ts'

/** Error replies of a server that serves no command at present. In a script, Redis 6 puts a text before them. */
export const OUTAGE_REPLY: RegExp = /(^|: -?)(LOADING|BUSY|MASTERDOWN|CLUSTERDOWN)\b/

/** Errors of the client when there was no reply. */
export const NO_REPLY: RegExp = new RegExp(
  [
    '^Connection is closed',
    "^Stream isn't writeable",
    '^Reached the max retries per request limit',
    '^Too many Cluster redirections',
    "^Cluster isn't ready",
    '^Failed to refresh slots cache',
  ].join('|'),
)

/** Errors after which a call is sent again, until its deadline. */
export const TRANSIENT_ERROR: RegExp = new RegExp(
  [
    OUTAGE_REPLY.source,
    NO_REPLY.source,
    '(^|: -?)(READONLY|TRYAGAIN|NOREPLICAS|UNBLOCKED)\\b',
    'max number of clients',
  ].join('|'),
)

/** Whether an error is a reply of Redis, by its text: its class may be of another copy, or renamed by a bundler. */
export function isErrorReply(error: unknown): error is Error {
  return /^[A-Z]{2,} /.test(messageOf(error))
}

/** A copy of a client's error without the command, whose arguments may be values and credentials. */
export function safeCopy(thrown: unknown): Error {
  const { name, code } = (thrown ?? {}) as { name?: unknown; code?: unknown }
  const fields = { name: typeof name === 'string' ? name : 'Error', ...(code !== undefined && { code }) }
  return Object.assign(new Error(safeMessage(thrown)), fields)
}

/** The masked message of an error, including the errors of the nodes of a cluster or of several addresses. */
export function safeMessage(error: unknown): string {
  const { lastNodeError, errors, code } = (error ?? {}) as {
    lastNodeError?: unknown
    errors?: unknown
    code?: unknown
  }
  const text = messageOf(error) || (Array.isArray(errors) ? errors.map(messageOf).join(', ') : String(code))
  const all = masked(lastNodeError ? `${text} (${messageOf(lastNodeError)})` : text)
  // The message quotes a host or socket that cannot be found. It may be a malformed URL with a password.
  return all.replace(/\S+/g, (word) =>
    word.includes('@') ? `***@${word.slice(word.lastIndexOf('@') + 1)}` : word,
  )
}

/** A hint for the message of a failed connection: if only one end uses TLS, neither reports that. */
export function tlsHint(client: RedisClient, cause: unknown): string {
  const { tls } = (client as { options?: { tls?: unknown } }).options ?? {}
  const text = cause === undefined ? '' : safeMessage(cause)
  if (tls && (text === '' || /ETIMEDOUT|ECONNRESET|EPROTO|closed|secure/.test(text)))
    return ' (does the server speak TLS at this port?)'
  return !tls && /ECONNRESET|EPIPE|closed|Protocol error/.test(text)
    ? ' (does the server expect TLS, rediss://…?)'
    : ''
}

/** The error for an error reply to a command, or to one item of a script. */
export function refusedError(thrown: unknown): UnavailableError {
  const cause = safeCopy(thrown)
  return new UnavailableError(`Redis refused: ${cause.message}`, { cause })
}

/** The errors that the command client has reported: replies of Redis, or errors of the socket. */
export class ClientErrors {
  readonly #client: RedisClient
  /** The last error; undefined while Redis replies. Cleared by the gate with each reply. */
  last: Error | undefined
  /** The database could not be selected: commands would run on another one. */
  wrongDatabase = false

  constructor(client: RedisClient) {
    this.#client = client
    // An 'error' event without a listener would end the process. Callers learn of errors from their calls.
    client.on('error', this.#onError)
    client.on('connect', this.#onConnect)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  readonly #onError = (thrown: Error & { command?: { name?: unknown } }): void => {
    const error = safeCopy(thrown)
    this.last = error
    if (thrown.command?.name === 'select') this.wrongDatabase = true
    emit('connection', { link: 'commands', up: false, error })
  }

  readonly #onConnect = (): void => {
    this.wrongDatabase = false
  }

  readonly #onReady = (): void => {
    // An error reply, as of a replica, may persist: it is cleared by the first reply that is none.
    if (!isErrorReply(this.last)) this.last = undefined
    emit('connection', { link: 'commands', up: true })
  }

  readonly #onClose = (): void => {
    this.last ??= new Error('The connection was closed')
    emit('connection', { link: 'commands', up: false })
  }

  /** The cause of a timeout, and its text for a message. `disconnected`: the call was not sent. */
  explain(callError: unknown, disconnected: boolean): { why: string; cause: unknown } {
    const cause = callError ?? this.last
    const text = cause === undefined ? '' : `: ${safeMessage(cause)}`
    return { why: text + (disconnected ? tlsHint(this.#client, cause) : ''), cause }
  }

  close(): void {
    this.#client.off('error', this.#onError)
    this.#client.off('connect', this.#onConnect)
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}

/** A server that starts at the same time is reachable before this. */
const WARN_AFTER_MS = 2000

/** The options of an ioredis client that define where it connects to. */
interface ClientAddress {
  path?: string | undefined
  host?: string | undefined
  port?: number | undefined
  tls?: unknown
  sentinels?: readonly ClientAddress[] | null | undefined
  name?: string | undefined
}

/**
 * Emits a process warning if a client does not reach Redis within two seconds. For workers, which have no caller that an
 * error could be thrown to. The returned function cancels it.
 */
export function warnIfUnreachable(client: RedisClient, clock: Clock): () => void {
  let reason: unknown
  const onError = (error: unknown) => {
    reason = error
  }
  const stop = () => {
    timer.cancel()
    client.off('error', onError)
    client.off('ready', stop)
  }
  const timer = clock.after(
    WARN_AFTER_MS,
    () => {
      stop()
      if (client.status === 'ready') return
      const why = reason === undefined ? `no connection within ${WARN_AFTER_MS} ms` : safeMessage(reason)
      warnOnce(
        'SOLOFLIGHT_REDIS_UNREACHABLE',
        `Redis at ${addressOf(client)} cannot be reached: ${why}. Trying again until it can.`,
      )
    },
    true,
  )
  client.on('error', onError)
  client.on('ready', stop)
  return stop
}

/** The URL that a client connects to, without user and password. */
function addressOf(client: RedisClient): string {
  const { options, startupNodes } = client as {
    options?: ClientAddress
    startupNodes?: readonly (ClientAddress | string)[]
  }
  if (isCluster(client)) return (startupNodes ?? []).map(nodeOf).join(', ') || 'the nodes of a cluster'
  if (options?.sentinels) {
    return `${options.name ?? 'the master'} of the sentinels ${options.sentinels.map(nodeOf).join(', ')}`
  }
  return nodeOf(options ?? {})
}

function nodeOf(node: ClientAddress | string): string {
  if (typeof node === 'string') return maskedValue(node)
  const { path, host = 'localhost', port = 6379, tls } = node
  return path ? `unix://${maskedValue(path)}` : `${tls ? 'rediss' : 'redis'}://${maskedValue(host)}:${port}`
}

/**
 * Emits a process warning if the server may evict keys that have an expiry, as all keys of the library have: leases, fences
 * and jobs would be lost. Without permission for INFO, or without a reply, there is no warning.
 */
export function warnOfEviction(client: RedisClient): void {
  client.callBuffer('info', ['memory']).then(
    (reply) => {
      const [, policy] = /^maxmemory_policy:(\S+)/m.exec(String(reply)) ?? []
      if (policy === undefined || policy === 'noeviction') return
      warnOnce(
        'SOLOFLIGHT_EVICTION',
        `The maxmemory-policy of Redis is ${policy}: it may evict locks, results and jobs before they expire. No guarantee holds then. Set it to noeviction, or use another Redis.`,
      )
    },
    () => {},
  )
}
