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
