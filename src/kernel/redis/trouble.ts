import { emit } from '../telemetry.ts'
import { causeOf, isReply, type RedisClient, reasonOf, tlsHint } from './client.ts'

/** Why the command client is of no use, as far as it said: what Redis answered, or the socket. */
export class Trouble {
  readonly #client: RedisClient
  #error: Error | undefined
  #misdirected = false

  constructor(client: RedisClient) {
    this.#client = client
    // An 'error' event without a listener would end the process. What failed is told by the calls themselves.
    client.on('error', this.#onError)
    client.on('connect', this.#onConnect)
    client.on('ready', this.#onReady)
    client.on('close', this.#onClose)
  }

  get error(): Error | undefined {
    return this.#error
  }

  /** The database could not be selected: commands would go to another one. */
  get misdirected(): boolean {
    return this.#misdirected
  }

  readonly #onError = (thrown: Error & { command?: { name?: unknown } }): void => {
    const error = causeOf(thrown)
    this.#error = error
    if (thrown.command?.name === 'select') this.#misdirected = true
    emit('connection', { link: 'commands', up: false, error })
  }

  readonly #onConnect = (): void => {
    this.#misdirected = false
  }

  readonly #onReady = (): void => {
    // What Redis refuses, as a replica does, it may go on refusing: it is over when it answers.
    if (!isReply(this.#error)) this.#error = undefined
    emit('connection', { link: 'commands', up: true })
  }

  readonly #onClose = (): void => {
    this.#error ??= new Error('The connection was closed')
    emit('connection', { link: 'commands', up: false })
  }

  /** Redis has answered. */
  answered(): void {
    this.#error = undefined
  }

  /** The end of a message that something was not answered, and its cause. `away`: it was not even sent. */
  why(refusal: unknown, away: boolean): { why: string; cause: unknown } {
    const cause = refusal ?? this.#error
    const said = cause === undefined ? '' : `: ${reasonOf(cause)}`
    return { why: said + (away ? tlsHint(this.#client, cause) : ''), cause }
  }

  close(): void {
    this.#client.off('error', this.#onError)
    this.#client.off('connect', this.#onConnect)
    this.#client.off('ready', this.#onReady)
    this.#client.off('close', this.#onClose)
  }
}
