// Bounds of options of a bus, which its gateway checks in messages, and its remote client before it sends them.

/** Shortest and longest ttl of a queue or channel, and lease of a consumer or role, ms: a shorter one could not be renewed in time. */
export const MIN_LEASE = 100
export const MAX_LEASE: number = 365 * 24 * 60 * 60_000

/** Messages that are fetched at once without acknowledgement, by default; and those that may be fetched at once at most. */
export const DEFAULT_PREFETCH = 50
export const MAX_PREFETCH = 1_000

/** Messages of a topic that are kept at most. */
export const MAX_KEEP = 10_000

/** Properties of one object, at most. */
export const MAX_PROPERTIES = 1_000

/** Shortest ttl of an object that is kept, ms. */
export const MIN_OBJECT_TTL = 1_000
