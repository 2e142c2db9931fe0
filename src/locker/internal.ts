/** Names of the locker for the other layers of this package. */

export type { TagVersions } from './cache/tag-guard.ts'
export type { LockerCensusItem } from './flight/flight-census.ts'
export type { KeyNamespace, ResultEntry } from './key-namespace.ts'
export { leaseOf, namespaceFor } from './locker.ts'
export { ON_UNAVAILABLE, type OnUnavailable } from './options.ts'
