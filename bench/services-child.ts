// A process of the bench of services: calls, or serves.

import { serve } from '../test/support/process-child.ts'
import type { Pumped } from './pump.ts'
import { sumOf } from './queues/payload.ts'
import type { Address } from './queues/queue.ts'
import { SERVICES_ENTRANTS, type ServicesName } from './services/entrant.ts'
import type { BenchServices, ServicesTerms } from './services/services.ts'
import { PayloadTrips } from './trips.ts'

const trips = new PayloadTrips()
let services: BenchServices | undefined
let runs = 0

const handlers = {
  open: async (name: ServicesName, address: Address, terms: ServicesTerms): Promise<void> => {
    const { open } = await SERVICES_ENTRANTS[name].load()
    services = await open(address, terms, (payload) => {
      runs++
      return sumOf(payload)
    })
  },
  /** Calls, so many at once. */
  pump: (service: string, inFlight: number, ms: number): Promise<Pumped> => {
    const open = services
    if (!open) throw new Error('Expected services that are open')
    return trips.pump((payload) => open.call(service, payload), inFlight, ms)
  },
  /** Calls answered, and microseconds of CPU used, since the process began. */
  usage: (): { runs: number; cpu: number } => {
    const { user, system } = process.cpuUsage()
    return { runs, cpu: user + system }
  },
}

export type ServicesHandlers = typeof handlers

serve(handlers)
