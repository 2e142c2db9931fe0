import type { HeaderFields } from '../engine/message.ts'
import { isAboutResource } from '../engine/storage/storage.ts'
import { initialAge, type ResponseTiming } from './age.ts'
import type { CacheControl } from './cache-control.ts'
import {
  explicitLifetime,
  heuristicLifetime,
  isHeuristicallyCacheable,
  type StaleWindows,
  staleWindows,
} from './freshness.ts'

/** The options that decide how long a response is fresh and stored, ms. */
export interface LifetimeOptions {
  ttl: number
  errorTtl: number
  heuristics: boolean
  staleWhileRevalidate: number
  staleIfError: number
  /** Whether the origin answers conditional requests with 304. */
  revalidate: boolean
}

/** How long a shareable response is fresh, and how long it is stored, ms. */
export interface StoragePlan extends StaleWindows {
  /** Its age when it was received. */
  readonly age: number
  /** The freshness lifetime: the age up to which it is fresh. */
  readonly lifetime: number
  /** How long it is stored, from its reception on. 0: only the requests that wait for it receive it. */
  readonly keep: number
  /** Whether requests that arrived before it, and wait for it, receive it even if it is not fresh. */
  readonly collapse: boolean
}

/** The plan of a private response. */
const NOT_STORED: StoragePlan = {
  whileRevalidate: 0,
  ifError: 0,
  onDemand: 0,
  age: 0,
  lifetime: 0,
  keep: 0,
  collapse: false,
}

/** The longest time that an entry is stored. */
export const MAX_KEEP_MS: number = 30 * 24 * 60 * 60_000

/** How long past its lifetime a response is stored for validation. */
const VALIDATION_WINDOW_MS = 24 * 60 * 60_000

/** Decides how long a response is fresh and stored. */
export function planFor(
  response: { status: number; headers: HeaderFields },
  control: CacheControl,
  timing: ResponseTiming,
  lifetimes: LifetimeOptions,
): StoragePlan {
  const { status, headers } = response
  const stated = explicitLifetime(headers, control)
  const heuristic = lifetimes.heuristics ? heuristicLifetime(status, headers, control) : 0
  // The error is about this one request.
  if (stated === undefined && heuristic === 0 && !isAboutResource(status)) return NOT_STORED
  const lifetime = stated ?? (heuristic || defaultLifetime(status, control, lifetimes))
  const windows = staleWindowsFor(status, control, lifetimes)
  const age = initialAge(headers, timing)
  const servable = lifetime + Math.max(windows.whileRevalidate, windows.ifError) - age
  const validated = lifetimes.revalidate && hasValidator(headers) && status < 500
  const useful = Math.max(servable, validated ? Math.max(0, lifetime - age) + VALIDATION_WINDOW_MS : 0)
  const keep = Math.floor(Math.min(Math.max(0, useful), MAX_KEEP_MS))
  // Most frameworks turn an exception of the handler into a 500: it says nothing about other requests.
  const isThrown = status === 500 && lifetime === 0
  return { ...windows, age, lifetime, keep, collapse: stated === undefined && !isThrown }
}

/** The plan of a response that only the requests that wait for it receive: it is not stored. */
export function waitersOnly(plan: StoragePlan): StoragePlan {
  return { ...plan, keep: 0, collapse: true }
}

/** A stale error is never served. */
function staleWindowsFor(status: number, control: CacheControl, lifetimes: LifetimeOptions): StaleWindows {
  if (status >= 500) return { whileRevalidate: 0, ifError: 0, onDemand: 0 }
  return staleWindows(control, status < 400 ? lifetimes : { staleWhileRevalidate: 0, staleIfError: 0 })
}

function defaultLifetime(status: number, control: CacheControl, { ttl, errorTtl }: LifetimeOptions): number {
  if (status >= 400) return errorTtl
  return isHeuristicallyCacheable(status) || control.has('public') ? ttl : 0
}

/** Whether the response can be validated. RFC 9110 §8.8. */
export function hasValidator(headers: HeaderFields): boolean {
  return headers['etag'] !== undefined || headers['last-modified'] !== undefined
}
