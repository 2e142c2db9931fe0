import type { CensusMember } from '../kernel/census.ts'
import { isAddress } from '../kernel/keys.ts'
import type { EventStats } from './serving/service-host.ts'
import type { ServingProcess } from './serving/serving-process.ts'

/** The name of the layer in a census. */
const LAYER = 'services'

/** The load of one process for one service. */
export interface ServiceLoad {
  readonly service: string
  readonly version: string
  /** The rest of its lease, ms. */
  readonly leaseLeft: number
  /** Calls that run or wait there. */
  readonly busy: number
  /** Calls that it runs at once. */
  readonly capacity: number
  /** Calls beyond `capacity` that may wait there. */
  readonly backlog: number
  readonly events: Readonly<Record<string, EventStats>>
}

/** A process that serves services. */
export interface ProcessInfo {
  /** Id of its Services object. */
  readonly id: string
  readonly host: string
  readonly pid: number
  /** Start of the process, by the wall clock of its host: ms since the epoch. */
  readonly since: number
  readonly services: readonly ServiceLoad[]
}

/** A census item: JSON has no Infinity. */
interface Item extends Omit<ServiceLoad, 'capacity' | 'backlog'> {
  readonly id: string
  readonly prefix: string
  readonly capacity: number | null
  readonly backlog: number | null
}

/** Adds what the Services object `id` answers to a census. The returned function removes it. */
export function contribute(
  census: CensusMember,
  id: string,
  prefix: string,
  serving: ServingProcess,
): () => void {
  return census.contribute(LAYER, ({ filter }) => answer(id, prefix, serving, filter))
}

/** `filter`: the name of one service. */
function* answer(
  id: string,
  prefix: string,
  serving: ServingProcess,
  filter: string | undefined,
): Generator<Item> {
  for (const { service, busy, options, stats } of serving.hosts) {
    if (filter !== undefined && filter !== service) continue
    const { capacity, backlog, version } = options
    yield {
      ...{ id, prefix, service, version, busy },
      leaseLeft: serving.leaseLeft(service),
      capacity: Number.isFinite(capacity) ? capacity : null,
      backlog: Number.isFinite(backlog) ? backlog : null,
      events: Object.fromEntries(stats),
    }
  }
}

/** Asks all processes. Answers are checked: anybody can forge one. */
export async function listProcesses(
  census: CensusMember,
  prefix: string,
  service: string | undefined,
): Promise<ProcessInfo[]> {
  const { answers } = await census.census<Partial<Item>>({ layer: LAYER, filter: service })
  const found = new Map<string, ProcessInfo & { services: ServiceLoad[] }>()
  for (const { host, pid, since, items } of answers) {
    for (const { id, prefix: itsPrefix, ...item } of items) {
      if (itsPrefix !== prefix || !isAddress(id) || !isLoad(item)) continue
      const info = found.get(id) ?? { id, host, pid, since, services: [] }
      found.set(id, info)
      const { capacity, backlog } = item
      info.services.push({
        ...item,
        capacity: capacity ?? Number.POSITIVE_INFINITY,
        backlog: backlog ?? Number.POSITIVE_INFINITY,
      })
    }
  }
  return [...found.values()]
}

function isLoad(item: Partial<Omit<Item, 'id' | 'prefix'>>): item is Omit<Item, 'id' | 'prefix'> {
  const { service, version, leaseLeft, busy, capacity, backlog, events } = item
  const numbers = [leaseLeft, busy, capacity ?? 0, backlog ?? 0]
  return (
    [service, version].every((text) => typeof text === 'string') &&
    numbers.every((number) => typeof number === 'number') &&
    typeof events === 'object' &&
    events !== null
  )
}
