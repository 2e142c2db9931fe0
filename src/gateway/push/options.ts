import { DEFAULT_COMMAND } from '../../kernel/names.ts'
import {
  type Check,
  type Complete,
  checkFlag,
  checkOptions,
  countFrom,
  defaultsOf,
  expectedError,
  integerUpTo,
  numberBetween,
  type OptionTable,
  REQUIRED,
  unchecked,
  withDefaults,
} from '../../kernel/options.ts'
import type { Backoff } from '../../queue/index.ts'
import { isInternal } from './addresses.ts'
import { parseSecret } from './signature.ts'

/** A push worker: the jobs of a queue are posted to a URL. Durations are in ms. */
export interface PushWorkerOptions {
  /** The queue whose jobs are pushed. */
  queue: string
  /** The command of the jobs. @default 'job' */
  command?: string | undefined
  /** The URL of the receiver, http: or https:. A user and a password in it are sent as Basic authorization. */
  url: string
  /**
   * Secrets of Standard Webhooks, `whsec_` and base64 of 24 to 64 bytes. A request is signed with each, so that one can be
   * replaced. Without any it is not signed.
   */
  secret?: string | readonly string[] | undefined
  /** Largest number of requests at once from this gateway, 1 to 1_000. @default 10 */
  concurrency?: number | undefined
  /** Longest duration of a request, from the name's resolution to the end of its answer, up to a day. @default 30_000 */
  timeout?: number | undefined
  /** Number of attempts of jobs that do not set it; Infinity is allowed. @default 5 */
  attempts?: number | undefined
  /**
   * Delay between attempts of jobs that do not set it. A longer Retry-After of the receiver replaces it.
   * @default { type: 'exponential', delay: 1_000, max: 300_000 }
   */
  backoff?: Backoff | undefined
  /** Allow addresses of internal networks and of this machine. @default false */
  allowInternal?: boolean | undefined
}

type Defaulted = 'command' | 'concurrency' | 'timeout' | 'attempts' | 'backoff' | 'allowInternal'

/** The options of a push worker with a constant default. */
export type PushWorkerDefaults = Complete<Pick<PushWorkerOptions, Defaulted>>

/** Validated options of a push worker, with defaults filled in. */
export interface ResolvedPushWorkerOptions extends PushWorkerDefaults {
  readonly queue: string
  readonly url: URL
  /** Keys of the signatures. */
  readonly keys: readonly Buffer[]
}

/** Longest duration of a request, ms. */
const MAX_PUSH_TIMEOUT = 24 * 60 * 60_000

/** Names of queues and commands, and a backoff, are checked by the queue. */
const PUSH_WORKER_OPTIONS: OptionTable<PushWorkerOptions, PushWorkerDefaults> = {
  queue: [unchecked, REQUIRED],
  command: [unchecked, DEFAULT_COMMAND],
  url: [checkUrl, REQUIRED],
  secret: [checkSecrets],
  concurrency: [integerUpTo(1_000), 10],
  timeout: [numberBetween(1, MAX_PUSH_TIMEOUT), 30_000],
  attempts: [countFrom(1), 5],
  backoff: [unchecked, { type: 'exponential', delay: 1_000, max: 300_000 }],
  allowInternal: [checkFlag, false],
}

/** Defaults of the options of a push worker. */
export const PUSH_WORKER_DEFAULTS: PushWorkerDefaults = defaultsOf(PUSH_WORKER_OPTIONS)

/** Checks the option `push` of a gateway. */
export const checkPushes: Check = (name, value) => {
  if (!Array.isArray(value)) throw expectedError(name, 'an array', value)
  const known = new Set<string>()
  for (const [index, push] of value.entries()) {
    const path = `${name}[${index}]`
    checkOptions(push as PushWorkerOptions, PUSH_WORKER_OPTIONS, path)
    const { queue, command, url, allowInternal } = push as PushWorkerOptions
    if (allowInternal !== true && isInternalHost(url))
      throw new TypeError(`\`${path}.url\` is an internal address: \`allowInternal\` allows it`)
    const key = JSON.stringify([queue, command ?? PUSH_WORKER_DEFAULTS.command])
    if (known.has(key)) throw new TypeError(`\`${path}\` pushes the same jobs as another one`)
    known.add(key)
  }
}

/** Fills in the defaults of options that were checked. */
export function resolvePushWorkerOptions(given: PushWorkerOptions): ResolvedPushWorkerOptions {
  const secrets = [given.secret ?? []].flat()
  return {
    ...withDefaults(given, PUSH_WORKER_DEFAULTS),
    queue: given.queue,
    url: new URL(given.url),
    keys: secrets.flatMap((secret) => parseSecret(secret) ?? []),
  }
}

function checkUrl(name: string, value: unknown): void {
  // The value may hold a secret: the message does not show it.
  const { protocol } = typeof value === 'string' && URL.canParse(value) ? new URL(value) : { protocol: '' }
  if (protocol !== 'http:' && protocol !== 'https:')
    throw new TypeError(`Expected \`${name}\` to be an http: or https: URL`)
}

function checkSecrets(name: string, value: unknown): void {
  const secrets: unknown[] = [value].flat()
  const isValid = (secret: unknown) => typeof secret === 'string' && parseSecret(secret) !== undefined
  if (secrets.length > 0 && secrets.every(isValid)) return
  throw new TypeError(`Expected \`${name}\` to be whsec_ and base64 of 24 to 64 bytes, or an array of these`)
}

/** Whether a URL names an internal address by its digits. Those behind a name are checked when it is dialled. */
function isInternalHost(url: string): boolean {
  const host = new URL(url).hostname
  const address = host.startsWith('[') ? host.slice(1, -1) : host
  return /^[\d.]+$|:/.test(address) && isInternal(address)
}
