/**
 * The HTTP cache on plain messages. Adapters: `soloflight/memoize/node` for node:http, Express and Connect,
 * `soloflight/memoize/fetch` for handlers from Request to Response. `Locker.memoize` memoizes functions.
 */

export {
  fromRawHeaders,
  type HeaderFields,
  HTTP_CACHE_DEFAULTS,
  HttpCache,
  type HttpCacheOptions,
  type HttpRequest,
  type HttpResponse,
  type Origin,
  type OriginBody,
  type OriginRequest,
  type OriginResponse,
} from './engine/index.ts'
