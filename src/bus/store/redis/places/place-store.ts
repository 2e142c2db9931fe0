import type { Connection } from '../../../../kernel/redis/connection.ts'
import { refusedError } from '../../../../kernel/redis/diagnosis.ts'
import type { PlaceStore, RecordKind } from '../../store.ts'
import { recordBase, reservationKey } from '../keys.ts'
import { type PlaceScripts, placeScripts } from './scripts.ts'

/** For tests. */
export interface RedisPlaceStoreOptions {
  scripts?: PlaceScripts
}

/** The hash of each record: its field `e` says when it expires. */
const RECORD: Record<RecordKind, string> = { queue: 'Q', topic: 'T', object: 'O' }

/** The records that one instance on Redis has, and the reservations of names there. */
export class RedisPlaceStore implements PlaceStore {
  readonly #connection: Connection
  readonly #prefix: string
  readonly #scripts: PlaceScripts

  constructor(connection: Connection, prefix: string, options: RedisPlaceStoreOptions = {}) {
    const { scripts = placeScripts } = options
    this.#connection = connection
    this.#prefix = prefix
    this.#scripts = scripts
  }

  async exists(kind: RecordKind, name: string, within: number): Promise<boolean> {
    const script = this.#scripts.exists.with([this.#record(kind, name)], [])
    return Number(await this.#connection.call(script, within)) === 1
  }

  async reserve(
    kind: RecordKind,
    name: string,
    token: string,
    ttl: number,
    within: number,
  ): Promise<'exists' | 'reserved' | 'taken'> {
    const keys = [this.#record(kind, name), reservationKey(this.#prefix, kind, name)]
    const script = this.#scripts.reserve.with(keys, [token, String(Math.ceil(ttl))])
    const reply = String(await this.#connection.call(script, within))
    if (reply === 'exists' || reply === 'reserved' || reply === 'taken') return reply
    throw refusedError('a reply that is none')
  }

  async release(kind: RecordKind, name: string, token: string, within: number): Promise<void> {
    const script = this.#scripts.release.with([reservationKey(this.#prefix, kind, name)], [token])
    await this.#connection.call(script, within)
  }

  #record(kind: RecordKind, name: string): string {
    return `${recordBase(this.#prefix, kind, name)}${RECORD[kind]}`
  }
}
