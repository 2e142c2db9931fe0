import { emit } from '../telemetry.ts'
import { isErrorReply, type RedisClient, safeCopy, safeMessage, tlsHint } from './client.ts'

/** The errors that the command client has reported: replies of Redis, or errors of the socket. */
export class ClientErrors {
  readonly #client: RedisClient
  #last: Error | undefined
  #wrongDatabase = false

  constructor(client: RedisClient) {
    this.#client = client
    // An 'error' event without a listener would end the process. Callers learn of errors from their calls.
    client.on('error', this.#onError)
    client.on('connect', this.#onConnect)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  get last(): Error | undefined {
    return this.#last
  }

  /** The database could not be selected: commands would run on another one. */
  get wrongDatabase(): boolean {
    return this.#wrongDatabase
  }

  readonly #onError = (thrown: Error & { command?: { name?: unknown } }): void => {
    const error = safeCopy(thrown)
    this.#last = error
    if (thrown.command?.name === 'select') this.#wrongDatabase = true
    emit('connection', { link: 'commands', up: false, error })
  }

  readonly #onConnect = (): void => {
    this.#wrongDatabase = false
  }

  readonly #onReady = (): void => {
    // An error reply, as of a replica, may persist: it is cleared by the first reply that is none.
    if (!isErrorReply(this.#last)) this.#last = undefined
    emit('connection', { link: 'commands', up: true })
  }

  readonly #onClose = (): void => {
    this.#last ??= new Error('The connection was closed')
    emit('connection', { link: 'commands', up: false })
  }

  /** Redis has replied. */
  onReply(): void {
    this.#last = undefined
  }

  /** The cause of a timeout, and its text for a message. `disconnected`: the call was not sent. */
  explain(callError: unknown, disconnected: boolean): { why: string; cause: unknown } {
    const cause = callError ?? this.#last
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
