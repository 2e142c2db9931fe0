import type { HeaderFields } from '../engine/message.ts'
import { isAboutResource } from '../engine/storage/storage.ts'
import { type Arrival, initialAge } from './age.ts'
import type { CacheControl } from './cache-control.ts'
import {
  cacheableByDefault,
  heuristicLifetime,
  type StaleWindows,
  staleWindows,
  statedLifetime,
} from './freshness.ts'

/** What the user says of lifetimes, ms. */
export interface Lifetimes {
  ttl: number
  errorTtl: number
  heuristics: boolean
  staleWhileRevalidate: number
  staleIfError: number
  /** Whether the origin answers conditional requests. */
  revalidate: boolean
}

/** How long a response that may be shared is fresh, and how long it is worth keeping. All ms. */
export interface Plan extends StaleWindows {
  /** How old it was when it came. */
  age: number
  /** The age up to which it is fresh. */
  lifetime: number
  /** How long it is kept from its arrival on. 0: only those who wait for it receive it. */
  keep: number
  /** Whether those may have it who asked before it came and wait for it, even when it is not fresh. */
  collapse: boolean
}

/** Of a response that is for nobody else. */
const UNSHARED: Plan = {
  whileRevalidate: 0,
  ifError: 0,
  onDemand: 0,
  age: 0,
  lifetime: 0,
  keep: 0,
  collapse: false,
}

/** The longest that anything is kept. */
export const LONGEST_KEEP: number = 30 * 24 * 60 * 60_000

/** How long past its freshness a response is kept to be validated. */
const VALIDATION_WINDOW = 24 * 60 * 60_000

/** How long a response is to be kept, and as what. */
export function planFor(
  response: { status: number; headers: HeaderFields },
  control: CacheControl,
  arrival: Arrival,
  lifetimes: Lifetimes,
): Plan {
  const { status, headers } = response
  const stated = statedLifetime(headers, control)
  const guessed = lifetimes.heuristics ? heuristicLifetime(status, headers, control) : 0
  // Nobody else is to be told what was wrong with one request.
  if (stated === undefined && guessed === 0 && !isAboutResource(status)) return { ...UNSHARED }
  const lifetime = stated ?? (guessed || unstatedLifetime(status, control, lifetimes))
  const windows = windowsFor(status, control, lifetimes)
  const age = initialAge(headers, arrival)
  const usable = lifetime + Math.max(windows.whileRevalidate, windows.ifError) - age
  const validated = lifetimes.revalidate && hasValidator(headers) && status < 500
  const worth = Math.max(usable, validated ? Math.max(0, lifetime - age) + VALIDATION_WINDOW : 0)
  const keep = Math.floor(Math.min(Math.max(0, worth), LONGEST_KEEP))
  // What a handler throws is a page of this status to most frameworks: it says nothing to the others.
  const thrown = status === 500 && lifetime === 0
  return { ...windows, age, lifetime, keep, collapse: stated === undefined && !thrown }
}

/** An error never stands in for the answer that should have been. */
function windowsFor(status: number, control: CacheControl, lifetimes: Lifetimes): StaleWindows {
  if (status >= 500) return { whileRevalidate: 0, ifError: 0, onDemand: 0 }
  return staleWindows(control, status < 400 ? lifetimes : { staleWhileRevalidate: 0, staleIfError: 0 })
}

function unstatedLifetime(status: number, control: CacheControl, { ttl, errorTtl }: Lifetimes): number {
  if (status >= 400) return errorTtl
  return cacheableByDefault(status) || control.has('public') ? ttl : 0
}

/** Whether a client or a cache can ask if the response has changed. */
export function hasValidator(headers: HeaderFields): boolean {
  return headers['etag'] !== undefined || headers['last-modified'] !== undefined
}
