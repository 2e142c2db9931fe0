import { readFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import type { AccessToken, Scope } from '../gateway/index.ts'
import { messageOf } from '../kernel/codec/codec.ts'
import { checkNames, shownValue } from '../kernel/options.ts'
import { UsageError } from './failure.ts'

// The settings of `soloflight serve` come from one table. Precedence: flag, environment, file, default.

/** What `serve` is told. Names are those of the configuration file. */
export interface Settings {
  /** Undefined: embedded. */
  redis: string | undefined
  /** The instances of the bus. Undefined: it is on `redis`. */
  bus: readonly string[] | undefined
  port: number
  host: string
  prefix: string | undefined
  token: readonly AccessToken[]
  tokenFile: string | undefined
  allowHost: readonly string[] | undefined
  basePath: string | undefined
  /** Bytes. */
  maxBody: number | undefined
  /** Ms. */
  drain: number
  /** Ms. */
  grace: number
}

/** One setting. */
export interface Row<Value> {
  /** For the help: what the value is. */
  readonly value: string
  readonly description: string
  /** What a valid value is, in an error. */
  readonly expected: string
  /** Returns undefined if the texts are no valid value. There is one text unless it is a list. */
  readonly parse: (...texts: readonly string[]) => Value | undefined
  /** As it would be given. */
  readonly fallback?: string
  readonly isList?: true
  readonly isSecret?: true
}

type Table = { readonly [Name in keyof Settings]: Row<Exclude<Settings[Name], undefined>> }

const SCOPES: readonly Scope[] = ['read', 'submit', 'work', 'admin']

const SECOND = 1000
const LONGEST_TIME = 24 * 60 * 60 * SECOND

const plain = (text: string): string => text

export const SETTINGS: Table = {
  redis: {
    value: 'URL',
    description:
      'the Redis that all gateways and workers share; without it jobs live and die with this process',
    expected: 'a URL',
    parse: plain,
    isSecret: true,
  },
  bus: {
    value: 'URL',
    description: 'a Redis of the bus, if that is not on --redis: all processes give the same; repeatable',
    expected: 'URLs',
    parse: (...texts) => texts.flatMap(words),
    isList: true,
    isSecret: true,
  },
  port: {
    value: 'NUMBER',
    description: 'the port to listen on; 0 is a free one',
    expected: 'a whole number from 0 to 65535',
    parse: (text) => integer(text, 65_535),
    fallback: '5000',
  },
  host: {
    value: 'ADDRESS',
    description: 'the address to listen on; any but loopback needs a token',
    expected: 'an address or a host name',
    parse: (text) => (/^[\w.:%-]+$/.test(text) ? text : undefined),
    fallback: '127.0.0.1',
  },
  prefix: {
    value: 'TEXT',
    description: 'begins all keys in Redis',
    expected: 'a text',
    parse: plain,
  },
  token: {
    value: 'SCOPES=TOKEN',
    description: `a token and its scopes, of ${SCOPES.join(', ')}: read,submit=secret; repeatable`,
    expected: `SCOPES=TOKEN, with scopes of ${SCOPES.join(', ')} and a token as in an Authorization field`,
    parse: (...texts) => grants(texts.flatMap(words)),
    isList: true,
    isSecret: true,
  },
  tokenFile: {
    value: 'FILE',
    description: 'a file with one SCOPES=TOKEN on each line; added to those of --token',
    expected: 'the path of a file',
    parse: plain,
  },
  allowHost: {
    value: 'NAME',
    description: 'a host name that requests may have, besides those of this machine; repeatable',
    expected: 'host names, without a scheme and a port',
    parse: (...texts) => hostNames(texts.flatMap(words)),
    isList: true,
  },
  basePath: {
    value: 'PATH',
    description: 'the path below which all routes are',
    expected: 'a path as /jobs',
    parse: (text) => (/^(?:\/[\w.~-]+)+$/.test(text) ? text : undefined),
  },
  maxBody: {
    value: 'SIZE',
    description: 'the largest body of a request: bytes, or as 512KiB or 2MiB',
    expected: 'a size as 1048576, 512KiB or 2MiB',
    parse: size,
  },
  drain: {
    value: 'TIME',
    description:
      'how long it serves on after SIGTERM or SIGINT while it says that it is not ready, until balancers have noticed',
    expected: 'a time as 10, 10s or 500ms, up to a day',
    parse: duration,
    fallback: '0s',
  },
  grace: {
    value: 'TIME',
    description: 'how long waiting requests run on after that: seconds, or as 500ms',
    expected: 'a time as 10, 10s or 500ms, up to a day',
    parse: duration,
    fallback: '5s',
  },
}

/** The names of all settings, in the order of the help. */
export const NAMES: readonly (keyof Settings)[] = Object.keys(SETTINGS) as (keyof Settings)[]

/** `maxBody` as a flag: `--max-body`. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

/** `maxBody` as a variable: `SOLOFLIGHT_MAX_BODY`. */
export function variableOf(name: string): string {
  return `SOLOFLIGHT_${flagOf(name).slice(2).toUpperCase().replaceAll('-', '_')}`
}

/** What was given of a setting, and what the giver calls it. */
export interface Given {
  readonly texts: readonly string[]
  readonly source: string
}

/** What was given, by flags and environment, of each setting. */
export type GivenSettings = { readonly [Name in keyof Settings]?: Given }

/** The settings, with those of a file and the defaults where nothing else is given. @throws UsageError */
export async function resolveSettings(given: GivenSettings, file: string | undefined): Promise<Settings> {
  const fromFile = file === undefined ? {} : await readSettings(file)
  const entries = NAMES.map((name) => {
    const row: Row<unknown> = SETTINGS[name]
    const usual = row.fallback === undefined ? undefined : { texts: [row.fallback], source: 'the default' }
    const chosen = given[name] ?? fromFile[name] ?? usual
    return [name, chosen && parsed(row, chosen)]
  })
  // Of the types that the table demands.
  const settings = Object.fromEntries(entries) as Settings
  return { ...settings, token: await allGrants(settings) }
}

function parsed<Value>(row: Row<Value>, { texts, source }: Given): Value {
  if (texts.length === 0 || texts.some((text) => text.trim() === ''))
    throw new UsageError(`${source} is empty: give it a value, or leave it out`)
  const value = row.parse(...texts)
  if (value !== undefined) return value
  const got = row.isSecret ? '' : `, got ${shownValue(texts.join(' '))}`
  throw new UsageError(`Expected ${source} to be ${row.expected}${got}`)
}

/** What a configuration file gives. @throws UsageError */
async function readSettings(file: string): Promise<GivenSettings> {
  const path = shownValue(file)
  let content: unknown
  try {
    content = JSON.parse(await textOf(file))
  } catch (error) {
    // The message of JSON.parse quotes the file, secrets included.
    throw error instanceof UsageError ? error : new UsageError(`The configuration ${path} is not valid JSON`)
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    throw new UsageError(`The configuration ${path} is not an object`)
  try {
    checkNames(file, content, SETTINGS)
  } catch (error) {
    throw new UsageError(messageOf(error))
  }
  const entries = Object.entries(content).map(([name, value]) => {
    const source = `\`${name}\` in ${path}`
    return [name, { texts: textsOf(value, SETTINGS[name as keyof Settings], source), source }] as const
  })
  return Object.fromEntries(entries)
}

/** A value of a configuration file as the texts that flags would be. @throws UsageError */
function textsOf(value: unknown, row: Row<unknown>, source: string): string[] {
  const values = row.isList && Array.isArray(value) ? value : [value]
  return values.map((item: unknown) => {
    if (typeof item === 'string' || typeof item === 'number') return String(item)
    throw new UsageError(`Expected ${source} to be ${row.expected}`)
  })
}

/** The tokens of both settings. @throws UsageError */
async function allGrants({ token = [], tokenFile }: Settings): Promise<AccessToken[]> {
  const all = [...token]
  if (tokenFile !== undefined) {
    const lines = (await textOf(tokenFile)).split('\n').map((line) => line.trim())
    const texts = lines.filter((line) => line !== '' && !line.startsWith('#'))
    all.push(...parsed(SETTINGS.token, { texts, source: `The token file ${shownValue(tokenFile)}` }))
  }
  if (new Set(all.map((grant) => grant.token)).size < all.length)
    throw new UsageError('The same token is given twice: give it once, with all its scopes')
  return all
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UsageError(`The file ${shownValue(file)} cannot be read: ${code}`)
  }
}

const words = (text: string): string[] => text.split(/\s+/).filter((word) => word !== '')

/** Tokens as RFC 6750 has them. */
function grants(texts: readonly string[]): AccessToken[] | undefined {
  const all = texts.map((text) => /^([a-z,]+)=([\w.~+/-]+=*)$/.exec(text))
  const found = all.flatMap((match) => {
    const scopes = match?.[1]?.split(',') ?? []
    const isKnown = scopes.every((scope) => SCOPES.some((known) => known === scope))
    return match?.[2] !== undefined && isKnown ? [{ token: match[2], scopes: scopes as Scope[] }] : []
  })
  return found.length === texts.length ? found : undefined
}

function hostNames(texts: readonly string[]): string[] | undefined {
  const names = texts.map(hostNameOf)
  return names.every((name) => name !== undefined) ? names : undefined
}

/** A host name, or an address, as it stands in a URL; undefined if it is none. */
export function hostNameOf(text: string): string | undefined {
  const host = isIPv6(text) ? `[${text}]` : text
  const isHost = /^([\w.-]+|\[[\da-f:.]+\])$/i.test(host) && URL.canParse(`http://${host}`)
  return isHost ? new URL(`http://${host}`).hostname : undefined
}

function integer(text: string, most: number): number | undefined {
  return /^\d{1,15}$/.test(text) && Number(text) <= most ? Number(text) : undefined
}

const KIBIBYTE = 1024
const UNITS: Readonly<Record<string, number>> = { '': 1, kib: KIBIBYTE, mib: KIBIBYTE ** 2 }

/** Bytes. */
function size(text: string): number | undefined {
  const [, digits = '', unit = ''] = /^(\d{1,12})(KiB|MiB)?$/i.exec(text) ?? []
  const bytes = Number(digits) * (UNITS[unit.toLowerCase()] ?? 1)
  return bytes > 0 ? bytes : undefined
}

/** Ms of a time in seconds, or with a unit. */
function duration(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s)?$/.exec(text) ?? []
  const ms = Number(digits) * (unit === 'ms' ? 1 : SECOND)
  return ms <= LONGEST_TIME ? ms : undefined
}
