import { MAX_HELD_LEASE, MIN_HELD_LEASE } from '../../kernel/keys.ts'
import {
  type Check,
  type Complete,
  checkOptions,
  checkSignal,
  checkTimeout,
  defaultsOf,
  numberBetween,
  type OptionTable,
} from '../../kernel/options.ts'

/** Options of {@link RedisQueue.take}. Durations are in ms. */
export interface TakeOptions {
  /** How long the job is held unless it is renewed, 100 to 2_592_000_000 (30 days). @default the `lease` of the queue */
  lease?: number | undefined
  /** How long it waits for a job if none is ready; Infinity is allowed. @default 0 */
  wait?: number | undefined
  /** Ends the wait. A job that is on its way goes back at once. */
  signal?: AbortSignal | undefined
}

/** Checks the lease of a taken job. @throws TypeError */
export const checkTakenLease: Check = numberBetween(MIN_HELD_LEASE, MAX_HELD_LEASE)

const TAKE_OPTIONS: OptionTable<TakeOptions, TakeDefaults> = {
  lease: [checkTakenLease],
  wait: [checkTimeout, 0],
  signal: [checkSignal],
}

type TakeDefaults = Complete<Pick<TakeOptions, 'wait'>>

const TAKE_DEFAULTS: TakeDefaults = defaultsOf(TAKE_OPTIONS)

/** Checks the options of a call of `take` and fills in the defaults. `lease`: that of the queue, ms. @throws TypeError */
export function resolveTakeOptions(given: TakeOptions, lease: number): TakeDefaults & { lease: number } {
  checkOptions(given, TAKE_OPTIONS)
  return { wait: given.wait ?? TAKE_DEFAULTS.wait, lease: given.lease ?? lease }
}
