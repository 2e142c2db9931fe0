import type { Connection } from '../../../../kernel/redis/connection.ts'
import type { ObjectStore, SaveRequest, StoredObject } from '../../store.ts'
import { recordBase } from '../keys.ts'
import { type Argument, renewAll } from '../records.ts'
import { type ObjectScripts, objectScripts } from './scripts.ts'

/** For tests. */
export interface RedisObjectStoreOptions {
  scripts?: ObjectScripts
}

/** The persisted objects of one instance on Redis: each transition is one script on one key. */
export class RedisObjectStore implements ObjectStore {
  readonly #connection: Connection
  readonly #prefix: string
  readonly #scripts: ObjectScripts

  constructor(connection: Connection, prefix: string, options: RedisObjectStoreOptions = {}) {
    const { scripts = objectScripts } = options
    this.#connection = connection
    this.#prefix = prefix
    this.#scripts = scripts
  }

  async save(name: string, request: SaveRequest, within: number): Promise<boolean> {
    const { base, version, properties, ttl } = request
    const args: Argument[] = [base, version, String(Math.ceil(ttl))]
    // As JSON: it escapes lone surrogates, which are all the same in UTF-8.
    for (const [property, bytes] of properties) args.push(JSON.stringify(property), bytes)
    const script = this.#scripts.save.with([this.#key(name)], args)
    return Number(await this.#connection.call(script, within)) === 1
  }

  async load(name: string, within: number): Promise<StoredObject | undefined> {
    const reply = await this.#connection.call(this.#scripts.load.with([this.#key(name)], []), within)
    return parseObject(reply)
  }

  renew(ttls: ReadonlyMap<string, number>, within: number): Promise<(Error | undefined)[]> {
    const records = [...ttls].map(([name, ttl]) => ({
      key: this.#key(name),
      args: [String(Math.ceil(ttl))],
    }))
    return renewAll(this.#connection, this.#scripts.renew, records, within)
  }

  #key(name: string): string {
    return `${recordBase(this.#prefix, 'object', name)}O`
  }
}

/** Fields that are neither the version nor a property are ignored. */
function parseObject(reply: unknown): StoredObject | undefined {
  const fields = Array.isArray(reply) ? reply : []
  let version: string | undefined
  const properties = new Map<string, Buffer>()
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const field = String(fields[at])
    if (field === 'version') version = String(fields[at + 1])
    const property = propertyOf(field)
    if (property !== undefined) properties.set(property, fields[at + 1])
  }
  return version === undefined ? undefined : { version, properties }
}

function propertyOf(field: string): string | undefined {
  if (!field.startsWith('"')) return undefined
  try {
    return JSON.parse(field)
  } catch {
    return undefined
  }
}
