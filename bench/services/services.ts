import type { Payload } from '../queues/payload.ts'
import type { Address } from '../queues/queue.ts'

/** What one process does with services. Each has one event, whose result is the sum of the payload. */
export interface ServicesTerms {
  serves: readonly string[]
  calls: readonly string[]
}

/** Answers a call. */
export type Answer = (payload: Payload) => number

/** One library's services, used as its documentation says. */
export interface BenchServices {
  /** The result of a call. */
  call(service: string, payload: Payload): Promise<unknown>
}

/** Opens what one process needs. Resolves when all that it calls are served. */
export type OpenServices = (address: Address, terms: ServicesTerms, answer: Answer) => Promise<BenchServices>

/** How long a caller waits at most, ms. */
export const TIMEOUT = 30_000
