import { checkWellFormedName } from '../../kernel/names.ts'
import {
  type Check,
  type Complete,
  checkDuration,
  checkFlag,
  checkFunction,
  checkOptions,
  countFrom,
  defaultsOf,
  integerUpTo,
  numberBetween,
  type OptionTable,
  withDefaults,
} from '../../kernel/options.ts'
import { DEFAULT_PREFETCH, MAX_LEASE, MAX_PREFETCH, MIN_LEASE } from '../limits.ts'

/** Options of {@link Queue.attach}. Durations are ms. */
export interface AttachOptions {
  /**
   * How long the queue lives, with its messages, after the last attached process has left or died; from 100. An existing queue
   * keeps its own. @default 30_000
   */
  ttl?: number | undefined
  /** Most messages that may wait; 0: any number. An existing queue keeps its own. @default 0 */
  maxsize?: number | undefined
}

/** Checks the id of a message. @throws TypeError */
export const checkMessageId: Check = integerUpTo(Number.MAX_SAFE_INTEGER)

/** Checks the ttl of a queue or the lease of a consumer, ms. @throws TypeError */
export const checkLease: Check = numberBetween(MIN_LEASE, MAX_LEASE)

const ATTACH_OPTIONS: OptionTable<AttachOptions, Complete<AttachOptions>> = {
  ttl: [checkLease, 30_000],
  maxsize: [countFrom(0), 0],
}
const ATTACH_DEFAULTS = defaultsOf(ATTACH_OPTIONS)

/** @throws TypeError */
export function resolveAttachOptions(given: AttachOptions): Complete<AttachOptions> {
  checkOptions(given, ATTACH_OPTIONS)
  const options = withDefaults(given, ATTACH_DEFAULTS)
  return { ...options, maxsize: Number.isFinite(options.maxsize) ? options.maxsize : 0 }
}

/** Options of {@link Queue.push}. */
export interface PushOptions {
  /** 1 to 256 characters. The reliable consumers of all processes hold one message of a key at a time, in order. */
  key?: string | undefined
  /** How long it waits for room in a full queue, ms. @default 0 */
  wait?: number | undefined
}

const PUSH_OPTIONS: OptionTable<PushOptions> = {
  key: [checkWellFormedName],
  wait: [checkDuration],
}

/** @throws TypeError */
export function checkPushOptions(given: PushOptions): void {
  checkOptions(given, PUSH_OPTIONS)
}

/** Calls `ready` when the next messages may be fetched. */
export type Throttle = (ready: () => void) => void

/** Options of {@link Queue.consume}. */
export interface ConsumeOptions {
  /** Number of messages after which it stops; with `reliable`, when these are acknowledged. @default Infinity */
  max?: number | undefined
  /** `false`: reads without removing, so that every reader gets every message. @default true */
  remove?: boolean | undefined
  /** With `remove: false`: begins after the message with this id. @default 0 */
  index?: number | undefined
  /**
   * Each message must be acknowledged. Unacknowledged ones are delivered again, in order, when this consumer stops, detaches or
   * dies.
   * @default false
   */
  reliable?: boolean | undefined
  /** With `reliable`: discards messages up to this id that no other consumer holds. @default 0 */
  last?: number | undefined
  /** One exclusive consumer of all processes receives at a time. @default false */
  exclusive?: boolean | undefined
  /** Lease of the consumer, ms, from 100: another one takes over when it has ended. @default 10_000 */
  lease?: number | undefined
  /**
   * Messages that are held or fetched at once, up to 1_000. The fetched ones are lost with a process that dies, unless
   * `reliable`. @default 1 if reliable, throttled or iterated, else 50
   */
  prefetch?: number | undefined
  /** Is called before each fetch, which waits until it calls `ready`. */
  throttle?: Throttle | undefined
}

type ConsumeDefaults = Complete<Omit<ConsumeOptions, 'throttle' | 'prefetch'>>

const checkIndex = countFrom(0)

const CONSUME_OPTIONS: OptionTable<ConsumeOptions, ConsumeDefaults> = {
  // As in busmq, a negative number is endless.
  max: [checkMax, Number.POSITIVE_INFINITY],
  remove: [checkFlag, true],
  index: [checkIndex, 0],
  reliable: [checkFlag, false],
  last: [checkIndex, 0],
  exclusive: [checkFlag, false],
  lease: [checkLease, 10_000],
  prefetch: [integerUpTo(MAX_PREFETCH)],
  throttle: [checkFunction],
}
const CONSUME_DEFAULTS = defaultsOf(CONSUME_OPTIONS)

function checkMax(name: string, value: unknown): void {
  if (typeof value === 'number' && value < 0) return
  countFrom(1)(name, value)
}

/** Validated options, with defaults filled in. */
export interface ResolvedConsumeOptions extends ConsumeDefaults {
  readonly prefetch: number
  readonly throttle: Throttle | undefined
}

/** `isIterated`: messages are handed over one by one. @throws TypeError */
export function resolveConsumeOptions(given: ConsumeOptions, isIterated: boolean): ResolvedConsumeOptions {
  checkOptions(given, CONSUME_OPTIONS)
  const options = withDefaults(given, CONSUME_DEFAULTS)
  const { remove, reliable, exclusive, throttle } = { ...options, throttle: given.throttle }
  if (!remove && (reliable || exclusive))
    throw new TypeError('Expected `remove: false` without `reliable` and `exclusive`: a reader holds nothing')
  if (remove && options.index !== 0) throw new TypeError('Expected `index` only beside `remove: false`')
  if (!reliable && options.last !== 0) throw new TypeError('Expected `last` only beside `reliable`')
  if (isIterated && throttle)
    throw new TypeError('Expected no `throttle` of an iteration: the loop is what throttles')
  const max = options.max < 0 ? Number.POSITIVE_INFINITY : options.max
  const prefetch = given.prefetch ?? (reliable || throttle || isIterated ? 1 : DEFAULT_PREFETCH)
  return { ...options, max, prefetch, throttle }
}
