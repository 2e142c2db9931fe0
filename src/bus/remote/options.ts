import {
  type Check,
  checkFunction,
  checkOptions,
  defaultsOf,
  durationFrom,
  type OptionTable,
  withDefaults,
} from '../../kernel/options.ts'
import type { LinkOptions, WebSocketClass } from './link.ts'

/** Options of a {@link RemoteBus}. Durations are ms. */
export interface RemoteBusOptions {
  /** A token of the gateway. Absent: it needs none, or the page has signed in to it. */
  token?: string | undefined
  /** A call fails with UnavailableError if the gateway does not answer within this time, or is away for it. @default 5_000 */
  unavailableAfter?: number | undefined
  /** The class of WebSockets, where there is no global one: in Node 20, that of the package `ws`. */
  WebSocket?: WebSocketClass | undefined
}

interface RemoteBusDefaults {
  unavailableAfter: number
}

const checkToken: Check = (name, value) => {
  // It is a secret: the message must not show it.
  if (typeof value !== 'string' || value === '' || value.length > MAX_TOKEN)
    throw new TypeError(`Expected \`${name}\` to be text of 1 to ${MAX_TOKEN} characters`)
}

/** Longest token, as in a gateway. */
const MAX_TOKEN = 4_096

const REMOTE_BUS_OPTIONS: OptionTable<RemoteBusOptions, RemoteBusDefaults> = {
  token: [checkToken],
  unavailableAfter: [durationFrom(1), 5_000],
  WebSocket: [checkFunction],
}

const REMOTE_BUS_DEFAULTS = defaultsOf(REMOTE_BUS_OPTIONS)

/** Checks the options and fills in the defaults. @throws TypeError, also if there is no WebSocket. */
export function resolveRemoteOptions(given: RemoteBusOptions): Omit<LinkOptions, 'url'> {
  checkOptions(given, REMOTE_BUS_OPTIONS)
  const WebSocket = given.WebSocket ?? (globalThis as { WebSocket?: WebSocketClass }).WebSocket
  if (WebSocket === undefined)
    throw new TypeError('Expected the option `WebSocket`, as of the package ws: there is no global one here')
  return { ...withDefaults(given, REMOTE_BUS_DEFAULTS), token: given.token, WebSocket }
}

/** @throws TypeError, which does not show it: it may have a secret. */
export function checkUrl(url: unknown): void {
  const { protocol, username, password, search } =
    typeof url === 'string' && URL.canParse(url) ? new URL(url) : NO_URL
  const isSocket = protocol === 'ws:' || protocol === 'wss:'
  if (isSocket && username === '' && password === '' && search === '') return
  throw new TypeError(
    'Expected `url` to be a URL as wss://jobs.example.com/ws, without credentials and parameters',
  )
}

const NO_URL = { protocol: '', username: '', password: '', search: '' }
