import {
  type Complete,
  checkFlag,
  checkFunction,
  checkOptions,
  countFrom,
  defaultsOf,
  integerUpTo,
  type OptionTable,
  withDefaults,
} from '../../kernel/options.ts'
import { DEFAULT_PREFETCH, MAX_PREFETCH } from '../limits.ts'
import { checkLease, type Throttle } from '../queue/options.ts'

/** Options of {@link Channel.connect}. Durations are ms. */
export interface ChannelOptions {
  /** How long messages are kept after the last process has left; from 100. @default 30_000 */
  ttl?: number | undefined
  /** Most messages that may wait for the peer; 0: any number. @default 0 */
  maxsize?: number | undefined
  /** Each message must be acknowledged. Unacknowledged messages come again after a reconnection. @default false */
  reliable?: boolean | undefined
  /** Messages that are held or fetched at once, up to 1_000. @default 1 if reliable or throttled, else 50 */
  prefetch?: number | undefined
  /** Lease of the role, from 100: when it has ended, the peer is told, and another process can take the role. @default 10_000 */
  lease?: number | undefined
  /** Called before each fetch, which waits until it calls `ready`. */
  throttle?: Throttle | undefined
}

type ChannelDefaults = Complete<Omit<ChannelOptions, 'prefetch' | 'throttle'>>

const CHANNEL_OPTIONS: OptionTable<ChannelOptions, ChannelDefaults> = {
  ttl: [checkLease, 30_000],
  maxsize: [countFrom(0), 0],
  reliable: [checkFlag, false],
  prefetch: [integerUpTo(MAX_PREFETCH)],
  lease: [checkLease, 10_000],
  throttle: [checkFunction],
}
const CHANNEL_DEFAULTS = defaultsOf(CHANNEL_OPTIONS)

/** Validated options, with defaults filled in. */
export interface ResolvedChannelOptions extends ChannelDefaults {
  readonly prefetch: number
  readonly throttle: Throttle | undefined
}

/** @throws TypeError */
export function resolveChannelOptions(given: ChannelOptions): ResolvedChannelOptions {
  checkOptions(given, CHANNEL_OPTIONS)
  const options = withDefaults(given, CHANNEL_DEFAULTS)
  const prefetch = given.prefetch ?? (options.reliable || given.throttle ? 1 : DEFAULT_PREFETCH)
  const maxsize = Number.isFinite(options.maxsize) ? options.maxsize : 0
  return { ...options, maxsize, prefetch, throttle: given.throttle }
}
