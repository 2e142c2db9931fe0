export { unflat } from '../policy/fields.ts'
export { HTTP_CACHE_DEFAULTS } from './check-options.ts'
export { HttpCache } from './http-cache.ts'
export type {
  Answer,
  HeaderFields,
  HttpRequest,
  Origin,
  OriginBody,
  OriginRequest,
  OriginResponse,
} from './message.ts'
export type { HttpCacheOptions } from './options.ts'
