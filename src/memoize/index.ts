/**
 * The HTTP cache on plain messages. Adapters: `soloflight/memoize/node` for node:http, Express and Connect,
 * `soloflight/memoize/fetch` for handlers from Request to Response. `Locker.memoize` memoizes functions.
 */

export { HttpCache } from './engine/http-cache.ts'
export type {
  HeaderFields,
  HttpRequest,
  HttpResponse,
  Origin,
  OriginBody,
  OriginRequest,
  OriginResponse,
} from './engine/message.ts'
export { HTTP_CACHE_DEFAULTS, type HttpCacheOptions } from './engine/options.ts'
export { fromRawHeaders } from './policy/fields.ts'
