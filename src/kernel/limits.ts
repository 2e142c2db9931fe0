// Limits that the stores of all layers share.

/** How long a call may take. */
export interface CallLimits {
  /** Longest wait for the store, ms. */
  within: number
}

/** Flights, or calls of a queue, that may be parked on one record, unless `maxParked` is given. */
export const MAX_PARKED: number = 10_000

/** A larger value, in bytes, is not sent in messages: parked waiters read it from the record. */
export const MESSAGE_LIMIT: number = 64 * 1024

/** Longest trace context that is stored, in characters. */
export const MAX_TRACE_LENGTH = 512
