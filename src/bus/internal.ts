/** Of the bus, what only this library uses: bounds that a gateway checks in messages. */

export {
  DEFAULT_PREFETCH,
  MAX_KEEP,
  MAX_LEASE,
  MAX_PREFETCH,
  MAX_PROPERTIES,
  MIN_LEASE,
  MIN_OBJECT_TTL,
} from './limits.ts'
