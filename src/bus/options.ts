import { type Codec, checkCodec, jsonCodec } from '../kernel/codec/codec.ts'
import { checkPrefix } from '../kernel/keys.ts'
import {
  type Complete,
  checkOptions,
  defaultsOf,
  durationFrom,
  expectedError,
  instanceOf,
  integerUpTo,
  type OptionTable,
  unchecked,
  withDefaults,
} from '../kernel/options.ts'
import type { RedisSource } from '../kernel/redis/client.ts'
import type { Connection } from '../kernel/redis/connection.ts'
import type { Clock } from '../kernel/time.ts'
import { MemoryBus } from './store/memory-store.ts'

/** One instance of a bus: a URL, options of ioredis, a client or a Connection. */
export type InstanceSource = RedisSource | Connection

/** Options of a {@link Bus}. Durations are ms. */
export interface BusOptions {
  /**
   * The instances, up to 64: each a URL, options of ioredis, a client or a Connection. All processes must give the same
   * addresses, in any order. Without it, the bus works within this process alone.
   */
  redis?: InstanceSource | readonly InstanceSource[] | null | undefined
  /**
   * More instances: names on them are found, and no new name is made there. To add an instance, list it here first, and in
   * `redis` when all processes know it. To remove one, list it here until it is empty. @default []
   */
  existingOnly?: readonly InstanceSource[] | undefined
  /** The records of a bus within this process, shared with other Bus objects. */
  store?: MemoryBus | undefined
  /** For tests: the clock without Redis. A Connection or a store has its own `clock` option. */
  clock?: Clock | undefined
  /** Prefix of all Redis keys. @default 'soloflight' */
  prefix?: string | undefined
  /** A call fails with UnavailableError if its instance does not answer within this time. @default 2_000 */
  unavailableAfter?: number | undefined
  /** Largest message, property or metadata, in bytes when encoded, up to 16 MiB. @default 1_048_576 */
  maxMessage?: number | undefined
  /** Encodes messages. All processes must use the same codec. @default jsonCodec */
  codec?: Codec | undefined
}

const MAX_INSTANCES = 64

type BusDefaults = Complete<Pick<BusOptions, 'prefix' | 'unavailableAfter' | 'maxMessage'>>

const BUS_OPTIONS: OptionTable<BusOptions, BusDefaults> = {
  redis: [checkRedis],
  existingOnly: [checkSources],
  store: [instanceOf(MemoryBus, 'a MemoryBus')],
  clock: [unchecked],
  prefix: [checkPrefix, 'soloflight'],
  unavailableAfter: [durationFrom(1), 2_000],
  maxMessage: [integerUpTo(16 * 1024 * 1024), 1024 * 1024],
  codec: [checkCodec],
}

/** Defaults of the options of a Bus. */
export const BUS_DEFAULTS: BusDefaults = defaultsOf(BUS_OPTIONS)

/** Each source is checked where it is connected. */
function checkRedis(name: string, value: unknown): void {
  if (!Array.isArray(value)) return
  if (value.length === 0)
    throw new TypeError('Expected `redis` to have one instance at least; pass null to work without Redis')
  checkSources(name, value)
}

function checkSources(name: string, value: unknown): void {
  if (!Array.isArray(value)) throw expectedError(name, 'a list of instances', value)
  if (value.length > MAX_INSTANCES)
    throw new TypeError(`Expected \`${name}\` to have up to ${MAX_INSTANCES} instances, got ${value.length}`)
  for (const [index, source] of value.entries()) {
    if (source === undefined || source === null)
      throw expectedError(`${name}[${index}]`, 'a URL, ioredis options or an ioredis client', source)
  }
}

/** Validated options, with defaults filled in. */
export interface ResolvedBusOptions extends BusDefaults {
  readonly codec: Codec
}

/** Checks the options and fills in the defaults. @throws TypeError */
export function resolveBusOptions(given: BusOptions): ResolvedBusOptions {
  checkOptions(given, BUS_OPTIONS)
  const hasRedis = given.redis !== undefined && given.redis !== null
  if (given.existingOnly && !hasRedis) throw new TypeError('Expected `existingOnly` only beside `redis`')
  return { ...withDefaults(given, BUS_DEFAULTS), codec: given.codec ?? jsonCodec }
}
