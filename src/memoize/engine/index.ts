export { fromRawHeaders } from '../policy/fields.ts'
export { HttpCache } from './http-cache.ts'
export type {
  HeaderFields,
  HttpRequest,
  HttpResponse,
  Origin,
  OriginBody,
  OriginRequest,
  OriginResponse,
} from './message.ts'

export type { HttpCacheOptions } from './options.ts'
export { HTTP_CACHE_DEFAULTS } from './options.ts'
