import {
  type Complete,
  checkFlag,
  checkOptions,
  defaultsOf,
  durationFrom,
  expectedError,
  type OptionTable,
  withDefaults,
} from '../../kernel/options.ts'
import { MAX_KEEP } from '../limits.ts'

/** Options of a topic. If subscribers and publishers give different ones, the larger apply. */
export interface PubsubOptions {
  /** Number of the last messages that are kept for disconnected subscribers, up to 10,000. @default 0 */
  keep?: number | undefined
  /** Whether the last message is kept, and delivered first to each new subscriber. @default false */
  retain?: boolean | undefined
  /** How long messages are kept after the last one, ms. @default 86_400_000 (a day) */
  ttl?: number | undefined
}

const PUBSUB_OPTIONS: OptionTable<PubsubOptions, Complete<PubsubOptions>> = {
  keep: [checkKeep, 0],
  retain: [checkFlag, false],
  ttl: [durationFrom(1), 24 * 60 * 60_000],
}

/** Defaults of the options of a topic. */
export const PUBSUB_DEFAULTS: Complete<PubsubOptions> = defaultsOf(PUBSUB_OPTIONS)

function checkKeep(name: string, value: unknown): void {
  if (Number.isInteger(value) && Number(value) >= 0 && Number(value) <= MAX_KEEP) return
  throw expectedError(name, `a whole number from 0 to ${MAX_KEEP}`, value)
}

/** Checks the options and fills in the defaults. @throws TypeError */
export function resolvePubsubOptions(given: PubsubOptions): Complete<PubsubOptions> {
  checkOptions(given, PUBSUB_OPTIONS)
  return withDefaults(given, PUBSUB_DEFAULTS)
}
