import { readFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import type { AccessToken, Scope } from '../gateway/index.ts'
import { messageOf } from '../kernel/codec/codec.ts'
import { checkNames, shownValue } from '../kernel/options.ts'
import { UsageError } from './failure.ts'
import { PUSH_SETTINGS, type PushSettings } from './push-settings.ts'
import { duration, integer, plain, type Row, size, truth, words } from './values.ts'

// The settings of `soloflight serve` come from one table. Precedence: flag, environment, file, default.

/** What `serve` is told. Names are those of the configuration file. */
export interface Settings extends PushSettings {
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
  /** Ms. */
  maxWait: number | undefined
  maxStreams: number | undefined
  maxSockets: number | undefined
  /** Ms. */
  heartbeat: number | undefined
  attempts: number | undefined
  dashboard: boolean
  /** Which actions of clients are written to stderr. */
  audit: 'changes' | 'all' | undefined
}

type Table = { readonly [Name in keyof Settings]: Row<Exclude<Settings[Name], undefined>> }

const UP_TO_A_MILLION = 'a whole number from 1 to 1000000'

const upToAMillion = (text: string): number | undefined => integer(text, 1_000_000) || undefined

/** Ms: that of a gateway. */
const MIN_HEARTBEAT = 100

const SCOPES: readonly Scope[] = ['read', 'submit', 'work', 'admin']

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
    value: '[NAME:]SCOPES=TOKEN',
    description: `a token and its scopes, of ${SCOPES.join(', ')}: read,submit=secret; ann:admin=secret names its holder for --audit; repeatable`,
    expected: `[NAME:]SCOPES=TOKEN, with scopes of ${SCOPES.join(', ')} and a token as in an Authorization field`,
    parse: (...texts) => grants(texts.flatMap(words)),
    isList: true,
    isSecret: true,
  },
  tokenFile: {
    value: 'FILE',
    description: 'a file with one [NAME:]SCOPES=TOKEN on each line; added to those of --token',
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
  maxWait: {
    value: 'TIME',
    description: 'the longest time that a request waits: seconds, or as 500ms',
    expected: 'a time as 10, 10s or 500ms, up to a day',
    parse: duration,
  },
  maxStreams: {
    value: 'NUMBER',
    description: 'event streams that may be open at once; 10000 by default',
    expected: UP_TO_A_MILLION,
    parse: upToAMillion,
  },
  maxSockets: {
    value: 'NUMBER',
    description: 'WebSockets that may be open at once; 1000 by default',
    expected: UP_TO_A_MILLION,
    parse: upToAMillion,
  },
  heartbeat: {
    value: 'TIME',
    description: 'how often an event stream gets a comment that keeps it alive: seconds, or as 500ms',
    expected: 'a time as 10, 10s or 500ms, from 100ms up to a day',
    parse: (text) => {
      const ms = duration(text)
      return ms !== undefined && ms >= MIN_HEARTBEAT ? ms : undefined
    },
  },
  attempts: {
    value: 'NUMBER',
    description:
      'how often the jobs are tried that are posted here and do not set it themselves; 1 by default',
    expected: UP_TO_A_MILLION,
    parse: upToAMillion,
  },
  dashboard: {
    value: 'BOOLEAN',
    description: 'whether there is a dashboard at /',
    expected: 'true or false',
    parse: truth,
    fallback: 'true',
  },
  ...PUSH_SETTINGS,
  audit: {
    value: 'WHICH',
    description:
      'writes what clients cancel, retry, remove, stop and so on to stderr, one line of JSON each: changes, or all, with posts',
    expected: 'changes or all',
    parse: (text) => (text === 'changes' || text === 'all' ? text : undefined),
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
  return { ...settings, token: await allGrants(settings), pushSecret: await allSecrets(settings) }
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
    if (['string', 'number', 'boolean'].includes(typeof item)) return String(item)
    throw new UsageError(`Expected ${source} to be ${row.expected}`)
  })
}

/** The tokens of both settings. @throws UsageError */
async function allGrants({ token = [], tokenFile }: Settings): Promise<AccessToken[]> {
  const all = [...token]
  if (tokenFile !== undefined)
    all.push(...parsed(SETTINGS.token, await linesOf(tokenFile, `The token file ${shownValue(tokenFile)}`)))
  if (new Set(all.map((grant) => grant.token)).size < all.length)
    throw new UsageError('The same token is given twice: give it once, with all its scopes')
  return all
}

/** The secrets of both settings. @throws UsageError */
async function allSecrets({ pushSecret, pushSecretFile: file }: Settings): Promise<Settings['pushSecret']> {
  if (file === undefined) return pushSecret
  const lines = await linesOf(file, `The secret file ${shownValue(file)}`)
  return [...(pushSecret ?? []), ...parsed(SETTINGS.pushSecret, lines)]
}

/** The lines of a file that are no comments. @throws UsageError */
async function linesOf(file: string, source: string): Promise<Given> {
  const lines = (await textOf(file)).split('\n').map((line) => line.trim())
  return { texts: lines.filter((line) => line !== '' && !line.startsWith('#')), source }
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UsageError(`The file ${shownValue(file)} cannot be read: ${code}`)
  }
}

/** Tokens as RFC 6750 has them. */
function grants(texts: readonly string[]): AccessToken[] | undefined {
  const all = texts.map((text) => /^(?:([\w.@-]{1,100}):)?([a-z,]+)=([\w.~+/-]+=*)$/.exec(text))
  const found = all.flatMap((match) => {
    const [, name, list, token] = match ?? []
    const scopes = list?.split(',') ?? []
    const isKnown = scopes.every((scope) => SCOPES.some((known) => known === scope))
    if (token === undefined || !isKnown) return []
    return [{ token, scopes: scopes as Scope[], ...(name === undefined ? {} : { name }) }]
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
