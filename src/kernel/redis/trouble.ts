import { emit } from '../telemetry.ts'
import { isErrorReply, type RedisClient, safeCopy, safeMessage, tlsHint } from './client.ts'

/** Why the command client is of no use, as far as it said: what Redis answered, or the socket. */
export class ClientErrors {
  readonly #client: RedisClient
  #last: Error | undefined
  #wrongDatabase = false

  constructor(client: RedisClient) {
    this.#client = client
    // An 'error' event without a listener would end the process. What failed is told by the calls themselves.
    client.on('error', this.#onError)
    client.on('connect', this.#onConnect)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  get last(): Error | undefined {
    return this.#last
  }

  /** The database could not be selected: commands would go to another one. */
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
    // What Redis refuses, as a replica does, it may go on refusing: it is over when it answers.
    if (!isErrorReply(this.#last)) this.#last = undefined
    emit('connection', { link: 'commands', up: true })
  }

  readonly #onClose = (): void => {
    this.#last ??= new Error('The connection was closed')
    emit('connection', { link: 'commands', up: false })
  }

  /** Redis has answered. */
  onReply(): void {
    this.#last = undefined
  }

  /** The end of a message that something was not answered, and its cause. `away`: it was not even sent. */
  explain(refusal: unknown, away: boolean): { why: string; cause: unknown } {
    const cause = refusal ?? this.#last
    const said = cause === undefined ? '' : `: ${safeMessage(cause)}`
    return { why: said + (away ? tlsHint(this.#client, cause) : ''), cause }
  }

  close(): void {
    this.#client.off('error', this.#onError)
    this.#client.off('connect', this.#onConnect)
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}
