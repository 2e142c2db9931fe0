/**
 * Functions and HTTP handlers that do their work once. Functions are memoized by `Locker.memoize`; here is the HTTP cache
 * on plain messages, and beside it the adapters: `soloflight/memoize/node` for node:http, Express and Connect, and
 * `soloflight/memoize/fetch` for whatever is built on Request and Response.
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
