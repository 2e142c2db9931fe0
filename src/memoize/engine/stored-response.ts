import type { Codec } from '../../kernel/codec/codec.ts'
import { endToEndFields, fromRawHeaders, isFieldValue, toRawHeaders } from '../policy/fields.ts'
import type { VaryIndex } from '../policy/request.ts'
import type { PrivateScope, StoragePlan } from '../policy/response.ts'
import type { HeaderFields } from './message.ts'

/** A complete response in the cache. */
export class StoredResponse {
  readonly kind = 'response'
  readonly status: number
  readonly statusText: string | undefined
  readonly headers: HeaderFields
  readonly plan: StoragePlan
  /** Whether it may answer requests with Authorization. RFC 9111 §3.5. */
  readonly forAuthorized: boolean
  readonly body: Buffer

  constructor(fields: Omit<StoredResponse, 'kind'>) {
    this.status = fields.status
    this.statusText = fields.statusText
    this.headers = fields.headers
    this.plan = fields.plan
    this.forAuthorized = fields.forAuthorized
    this.body = fields.body
  }
}

/** A Vary index: it leads to the entries of the variants. */
export interface IndexEntry {
  readonly kind: 'index'
  readonly index: VaryIndex
}

/** In place of a private response, for the requests that waited for it. Never stored. */
export interface PrivateResult {
  readonly kind: 'private'
  readonly scope: PrivateScope
}

/** The values of the cache's records, and the results of its works. */
export type CacheEntry = StoredResponse | IndexEntry | PrivateResult

/** An entry without its body, as JSON. */
type EntryHeader =
  | {
      kind: 'response'
      status: number
      text?: string
      fields: string[]
      plan: StoragePlan
      authorized: boolean
    }
  | IndexEntry
  | PrivateResult

const SCOPES: ReadonlySet<unknown> = new Set<PrivateScope>(['resource', 'request', 'failure'])

const LENGTH_BYTES = 4

/**
 * The format of a record: the length of the header (4 bytes, big-endian), the header (JSON), the bytes of the body. A
 * decoded body shares the memory of the record.
 */
export const entryCodec: Codec = {
  encode(value) {
    const entry = value as CacheEntry
    const header = Buffer.from(JSON.stringify(headerOf(entry)))
    const length = Buffer.allocUnsafe(LENGTH_BYTES)
    length.writeUInt32BE(header.length)
    return Buffer.concat(entry.kind === 'response' ? [length, header, entry.body] : [length, header])
  },

  decode(bytes): CacheEntry {
    const end = LENGTH_BYTES + bytes.readUInt32BE(0)
    const header: unknown = JSON.parse(bytes.toString('utf8', LENGTH_BYTES, end))
    if (!isEntryHeader(header)) throw new Error('not the header of an entry')
    if (header.kind === 'private') return { kind: 'private', scope: header.scope }
    if (header.kind === 'index') return { kind: 'index', index: header.index }
    const { status, text: statusText, fields, plan, authorized: forAuthorized } = header
    // A record that was changed in Redis must not split a response.
    const headers = endToEndFields(fromRawHeaders(fields))
    const body = bytes.subarray(end)
    const length = headers['content-length']
    if (length !== undefined && length !== String(body.length)) throw new Error('cut short')
    return new StoredResponse({ status, statusText, headers, plan, forAuthorized, body })
  },

  // The body is a part of the record's bytes. The header is held as objects too.
  size(value, encoded) {
    const entry = value as CacheEntry
    const body = entry.kind === 'response' ? entry.body.length : 0
    return encoded + 3 * (encoded - body)
  },
}

/** Whether a value is a header as `encode` writes it, as far as the cache relies on it. */
function isEntryHeader(value: unknown): value is EntryHeader {
  const header = value as EntryHeader | null
  if (header?.kind === 'private') return SCOPES.has(header.scope)
  if (header?.kind === 'index')
    return isStringArray(header.index?.names) && typeof header.index.id === 'string'
  if (header?.kind !== 'response' || !isStringArray(header.fields)) return false
  const { status, text, plan } = header
  if (text !== undefined && !isFieldValue(text)) return false
  const times = [plan?.age, plan?.lifetime, plan?.keep, plan?.whileRevalidate, plan?.ifError, plan?.onDemand]
  const isTime = (time: unknown): boolean => Number.isFinite(time) && Number(time) >= 0
  return Number.isInteger(status) && status >= 200 && status <= 599 && times.every(isTime)
}

function isStringArray(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

function headerOf(entry: CacheEntry): EntryHeader {
  if (entry.kind !== 'response') return entry
  return {
    kind: 'response',
    status: entry.status,
    ...(entry.statusText !== undefined && { text: entry.statusText }),
    fields: toRawHeaders(entry.headers),
    plan: entry.plan,
    authorized: entry.forAuthorized,
  }
}
