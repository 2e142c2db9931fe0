import { OverloadedError, RemoteError, TimeoutError, UnavailableError } from '../../../errors.ts'
import type { ForwardReason } from '../../policy/cache-status.ts'
import { isOriginError } from '../../policy/judgement.ts'
import type { StoragePlan } from '../../policy/plan.ts'
import type { StoredResponses } from '../../policy/reuse.ts'
import type { EntryRef } from '../lookup.ts'
import type { HttpRequest, HttpResponse } from '../message.ts'
import type { ResponseBuilder } from '../response-builder.ts'
import { discard } from '../storage/body.ts'
import type { OriginFetch } from './origin-fetch.ts'

/** Selects the response to a request from the outcome of its own work. */
export class ResponseSelector {
  readonly #builder: ResponseBuilder
  readonly #reuse: StoredResponses

  constructor(builder: ResponseBuilder, reuse: StoredResponses) {
    this.#builder = builder
    this.#reuse = reuse
  }

  /**
   * The response of a fetch to its own client; undefined when there is none yet. `stored`: whether the store has accepted
   * the response. Throws what the origin threw.
   */
  fromFetch({ request, entry, outcome }: OriginFetch, stored: boolean): HttpResponse | undefined {
    const forwardReason: ForwardReason = entry.stale ? 'stale' : entry.index ? 'vary-miss' : 'uri-miss'
    switch (outcome.kind) {
      case 'none':
        return undefined
      case 'streaming': {
        const { response, plan, privateFields } = outcome
        return this.#builder.fromStreaming(response, { forwardReason, ...ttlOf(plan) }, privateFields)
      }
      case 'failed': {
        discard(outcome.streamed?.body)
        const stale = this.#reuse.staleIfError(request, entry)
        if (stale) return stale
        throw outcome.error
      }
      case 'private': {
        const { response, reason } = outcome
        const stale = isOriginError(response.status) && this.#reuse.staleIfError(request, entry)
        if (!stale) return this.#builder.privateResponse(request, response, { forwardReason, detail: reason })
        discard(response.body)
        return stale
      }
      case 'complete': {
        const { response, privateFields, originStatus } = outcome
        const stale = isOriginError(response.status) && this.#reuse.staleIfError(request, entry)
        if (stale) return stale
        const ttl = ttlOf(response.plan)
        const fate = ttl && (stored ? { stored, ...ttl } : { detail: 'not-stored' as const })
        const validated = originStatus !== response.status && { originStatus }
        return this.#builder.fromFetched(
          request,
          response,
          { forwardReason, ...validated, ...fate },
          privateFields,
        )
      }
    }
  }

  /** The response when a run has failed: a stale one if that may be served, or 503 or 504. Undefined for other errors. */
  fallback(request: HttpRequest, entry: EntryRef, error: unknown): HttpResponse | undefined {
    const unavailable = error instanceof UnavailableError
    const timedOut = error instanceof TimeoutError
    const stale =
      (unavailable || timedOut || error instanceof RemoteError) && this.#reuse.staleIfError(request, entry)
    if (stale) return stale
    if (unavailable || error instanceof OverloadedError)
      return this.#builder.synthetic(503, 'Too busy', ['retry-after', '1'])
    return timedOut ? this.#builder.synthetic(504, 'No answer in time') : undefined
  }
}

/** The remaining freshness lifetime of a response that is to be stored. */
function ttlOf({ keep, lifetime, age }: StoragePlan): { ttl: number } | undefined {
  return keep > 0 ? { ttl: lifetime - age } : undefined
}
