import { PROCESS_NAME_LENGTH } from '../../kernel/census.ts'
import { digestOf } from '../../kernel/keys.ts'
import type { ProcessInfo } from '../../services/index.ts'
import { inSeconds } from '../duration.ts'
import type { Answers } from './census-items.ts'
import type { ServiceView } from './overview.ts'

type ServingView = ServiceView['processes'][number]

/** The services, and the processes that serve each. */
export function serviceViews({ services }: Answers, prefix: string): ServiceView[] {
  const found = new Map<string, ServingView[]>()
  for (const { item, process, host, pid, since } of services) {
    if (item.prefix !== prefix) continue
    const { service, version, busy, capacity, leaseLeft } = item
    const processes = found.get(service) ?? []
    found.set(service, processes)
    const load = { version, busy, capacity, left: inSeconds(leaseLeft), since: since / 1000 }
    processes.push({ process, host, pid, ...load })
  }
  return [...found].map(([name, processes]) => ({ name, processes }))
}

/** The same of what a Services object lists. Its ids are addresses: they are not shown. */
export function listedServiceViews(listed: readonly ProcessInfo[]): ServiceView[] {
  const found = new Map<string, ServingView[]>()
  for (const { id, host, pid, since, services } of listed) {
    const process = digestOf(id).slice(0, PROCESS_NAME_LENGTH)
    for (const { service, version, busy, capacity, leaseLeft } of services) {
      const processes = found.get(service) ?? []
      found.set(service, processes)
      const limit = Number.isFinite(capacity) ? capacity : null
      const load = { version, busy, capacity: limit, left: inSeconds(leaseLeft), since: since / 1000 }
      processes.push({ process, host, pid, ...load })
    }
  }
  return [...found].map(([name, processes]) => ({ name, processes }))
}
