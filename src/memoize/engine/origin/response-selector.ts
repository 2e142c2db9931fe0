import { OverloadedError, RemoteError, TimeoutError, UnavailableError } from '../../../errors.ts'
import type { ForwardReason } from '../../policy/cache-status.ts'
import { isOriginError } from '../../policy/judgement.ts'
import type { StoredResponses } from '../../policy/reuse.ts'
import type { EntryRef } from '../lookup.ts'
import type { HttpRequest, HttpResponse } from '../message.ts'
import type { ResponseBuilder } from '../response-builder.ts'
import { discard } from '../storage/body.ts'
import type { OriginWork } from './origin-work.ts'

/** Selects the response to a request from the outcome of its own work. */
export class ResponseSelector {
  readonly #builder: ResponseBuilder
  readonly #reuse: StoredResponses

  constructor(builder: ResponseBuilder, reuse: StoredResponses) {
    this.#builder = builder
    this.#reuse = reuse
  }

  /**
   * The response of a work that has called the origin; undefined when it has not, or is not far enough. `stored`: whether
   * the response was accepted into the store; undefined: not known yet. Throws what the origin threw.
   */
  fromFetch({ request, entry, fetch }: OriginWork, stored: boolean | undefined): HttpResponse | undefined {
    if (!fetch) return undefined
    const { shareable, privateResponse, streaming, originStatus, privateFields, privateReason, failure } =
      fetch
    const forwardReason: ForwardReason = entry.stale ? 'stale' : entry.index ? 'vary-miss' : 'uri-miss'
    const failed = failure !== undefined || isOriginError(shareable?.status ?? privateResponse?.status ?? 0)
    const stale = failed && this.#reuse.staleIfError(request, entry)
    if (stale) {
      discard(privateResponse?.body ?? streaming?.response.body)
      return stale
    }
    if (failure) throw failure.error
    if (privateResponse)
      return this.#builder.privateResponse(request, privateResponse, { forwardReason, detail: privateReason })
    const plan = shareable?.plan ?? streaming?.plan
    if (!plan) return undefined
    const ttl = plan.keep > 0 && { ttl: plan.lifetime - plan.age }
    // A response that streams has been promised to the client, though it may be complete by now.
    if (!shareable || streaming)
      return (
        streaming && this.#builder.fromStreaming(streaming.response, { forwardReason, ...ttl }, privateFields)
      )
    const validated = originStatus !== undefined && originStatus !== shareable.status && { originStatus }
    const fate = !ttl ? undefined : stored ? { stored, ...ttl } : { detail: 'not-stored' as const }
    return this.#builder.fromFetched(
      request,
      shareable,
      { forwardReason, ...validated, ...fate },
      privateFields,
    )
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
