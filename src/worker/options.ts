import { constants } from 'node:os'
import { MAX_HELD_LEASE } from '../kernel/keys.ts'
import { checkLogger, checkLogLevel, type Logger, type LogLevel } from '../kernel/logging.ts'
import { DEFAULT_COMMAND, isPrintableName, MAX_NAME } from '../kernel/names.ts'
import {
  type Check,
  type Complete,
  checkDuration,
  checkFunction,
  checkOptions,
  defaultsOf,
  durationFrom,
  expectedError,
  integerUpTo,
  numberBetween,
  type OptionTable,
  oneOf,
  REQUIRED,
  withDefaults,
} from '../kernel/options.ts'
import type { JobContext } from './context.ts'

/** Runs a job. Its result, as JSON, is that of the job; an exception is the reason of a failed attempt. */
export type WorkFunction<Job = unknown, Result = unknown> = (
  job: Job,
  context: JobContext,
) => Result | Promise<Result>

/** Called when a job has failed without a further attempt. `reason`: the exception of its last attempt. */
export type FailFunction<Job = unknown> = (job: Job, reason: unknown, context: JobContext) => unknown

/** Options of an {@link HttpWorker}. Durations are in ms. */
export interface HttpWorkerOptions<Job = unknown, Result = unknown> {
  /** Address of the gateway, with its base path if it has one. With several, the next one is used while one is away. */
  url: string | readonly string[]
  /** Sent as `Authorization: Bearer`. It needs the scope 'work'. */
  token?: string | undefined
  /** The queues whose jobs are taken. */
  queues: string | readonly string[]
  /**
   * 'turns': the queues take turns, a job each. 'priority': a job of a queue is taken only if the queues before it are empty.
   * @default 'turns'
   */
  order?: 'turns' | 'priority' | undefined
  /** Runs a job. Required, unless a subclass has a method `work`. */
  work?: WorkFunction<Job, Result> | undefined
  /** Called when a job has failed and is not tried again. */
  fail?: FailFunction<Job> | undefined
  /** Called when no job has come for `interval` ms, and none runs. Once until the next job. */
  idle?: (() => unknown) | undefined
  /** The jobs of this command are taken. @default 'job' */
  command?: string | undefined
  /** Jobs that run at once, from 1 to 1000. No job is taken without a free slot. @default 1 */
  concurrency?: number | undefined
  /** Lease of a job. It is renewed after a third of it. From 1000. @default 60_000 */
  lease?: number | undefined
  /** How long one request waits for a job. The gateway may end it earlier. @default 20_000 */
  wait?: number | undefined
  /**
   * Longest wait of a request that could delay another queue: with several queues, unless there are twice as many free slots as
   * queues. From 100. @default 1000
   */
  interval?: number | undefined
  /** How long a gateway has to answer, beside the `wait`. From 100. @default 10_000 */
  timeout?: number | undefined
  /** How long running jobs may go on after a signal of `stopOn`, or `stop()`, before they are given back. @default 30_000 */
  grace?: number | undefined
  /** Signals of the process that stop the worker. A second one gives the running jobs back at once. @default [] */
  stopOn?: readonly NodeJS.Signals[] | undefined
  /** Name of the worker, in visible ASCII characters. By default its class, host, process and a random part. */
  workerId?: string | undefined
  /** Largest job that is read, bytes. A larger one fails. @default 67_108_864 */
  maxJob?: number | undefined
  /** The console, pino or a logger like them. @default none */
  logger?: Logger | undefined
  /** Least severe level that is logged. @default 'info' */
  level?: LogLevel | undefined
  /** The function that makes requests, as the global `fetch`: for a proxy, a client certificate, or a gateway in this process. */
  fetch?: typeof globalThis.fetch | undefined
}

const MAX_LIST = 1_000

/** Whether it is a name that can stand in a path: `.` and `..` would be steps of it. */
function isPathName(value: unknown): value is string {
  return isPrintableName(value) && value !== '.' && value !== '..'
}

function isUrl(value: unknown): boolean {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, search, hash, username, password } = new URL(value)
  return (protocol === 'http:' || protocol === 'https:') && `${search}${hash}${username}${password}` === ''
}

/** One, or a list of at least one and no two alike. */
function oneOrMore(what: string, isValid: (value: unknown) => boolean): Check {
  return (name, value) => {
    const list: unknown[] = Array.isArray(value) ? value : [value]
    const isList = list.length > 0 && list.length <= MAX_LIST && new Set(list).size === list.length
    if (!isList) throw expectedError(name, `1 to ${MAX_LIST} of ${what}, all different`, value)
    for (const each of list) if (!isValid(each)) throw expectedError(name, what, each)
  }
}

const checkName: Check = (name, value) => {
  if (!isPathName(value)) throw expectedError(name, `a name of 1 to ${MAX_NAME} characters`, value)
}

const checkToken: Check = (name, value) => {
  // It is a secret: the message must not show it.
  if (typeof value !== 'string' || !/^[\w\-.~+/]{1,4096}={0,9}$/.test(value))
    throw new TypeError(`Expected \`${name}\` to be letters, digits and -._~+/, then any =`)
}

const checkWorkerId: Check = (name, value) => {
  if (typeof value !== 'string' || !/^[\x21-\x7e]{1,128}$/.test(value))
    throw expectedError(name, '1 to 128 visible ASCII characters', value)
}

const checkSignals: Check = (name, value) => {
  const isSignal = (each: unknown) =>
    typeof each === 'string' && Object.hasOwn(constants.signals, each) && !/^SIG(?:KILL|STOP)$/.test(each)
  if (!Array.isArray(value) || !value.every(isSignal))
    throw expectedError(name, 'a list of signals that a process can receive', value)
}

const OPTIONS: OptionTable<HttpWorkerOptions, HttpWorkerDefaults> = {
  url: [oneOrMore('a URL of http or https without user, query and fragment', isUrl), REQUIRED],
  token: [checkToken],
  queues: [oneOrMore(`a name of 1 to ${MAX_NAME} characters`, isPathName), REQUIRED],
  order: [oneOf(['turns', 'priority']), 'turns'],
  work: [checkFunction],
  fail: [checkFunction],
  idle: [checkFunction],
  command: [checkName, DEFAULT_COMMAND],
  concurrency: [integerUpTo(1_000), 1],
  lease: [numberBetween(1_000, MAX_HELD_LEASE), 60_000],
  wait: [numberBetween(0, 24 * 60 * 60_000), 20_000],
  interval: [numberBetween(100, 24 * 60 * 60_000), 1_000],
  timeout: [durationFrom(100), 10_000],
  grace: [checkDuration, 30_000],
  stopOn: [checkSignals, []],
  workerId: [checkWorkerId],
  maxJob: [integerUpTo(2 ** 29), 64 * 1024 * 1024],
  logger: [checkLogger],
  level: [checkLogLevel, 'info'],
  fetch: [checkFunction],
}

type HttpWorkerDefaults = Complete<
  Pick<
    HttpWorkerOptions,
    | 'order'
    | 'command'
    | 'concurrency'
    | 'lease'
    | 'wait'
    | 'interval'
    | 'timeout'
    | 'grace'
    | 'stopOn'
    | 'maxJob'
    | 'level'
  >
>

/** Defaults of {@link HttpWorkerOptions}. */
export const HTTP_WORKER_DEFAULTS: Readonly<HttpWorkerDefaults> = Object.freeze(defaultsOf(OPTIONS))

/** Options that were checked, with the defaults. */
export interface ResolvedOptions extends HttpWorkerDefaults {
  readonly urls: readonly string[]
  readonly queueNames: readonly string[]
}

/** Checks the options of a worker and fills in the defaults. @throws TypeError */
export function resolveOptions(given: HttpWorkerOptions): ResolvedOptions {
  checkOptions(given, OPTIONS)
  for (const name of ['url', 'queues'] as const)
    if (given[name] === undefined) OPTIONS[name][0](name, undefined)
  return {
    ...withDefaults(given, HTTP_WORKER_DEFAULTS),
    urls: [given.url].flat().map(withoutSlashes),
    queueNames: [given.queues].flat(),
  }
}

/** A path is put behind it. */
function withoutSlashes(url: string): string {
  let end = url.length
  while (url[end - 1] === '/') end--
  return url.slice(0, end)
}

/** Checks the grace of `stop`. @throws TypeError */
export function checkGrace(grace: unknown): void {
  checkDuration('grace', grace)
}
