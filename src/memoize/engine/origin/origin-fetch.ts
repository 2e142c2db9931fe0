import type { Clock } from '../../../kernel/event-loop.ts'
import { onAbort } from '../../../kernel/waiter.ts'
import type { ResponseTiming } from '../../policy/age.ts'
import { CacheControl } from '../../policy/cache-control.ts'
import { freshenedFields, notModified } from '../../policy/conditional.ts'
import { endToEndFields, reasonPhraseOf } from '../../policy/fields.ts'
import { isOriginError } from '../../policy/judgement.ts'
import { planFor, type StoragePlan } from '../../policy/plan.ts'
import { unkeyedFields } from '../../policy/unkeyed.ts'
import type { EntryRef } from '../lookup.ts'
import type { HeaderFields, HttpRequest, Origin, OriginResponse } from '../message.ts'
import type { ResolvedHttpOptions } from '../options.ts'
import { bufferOf, discard, isStreamed } from '../storage/body.ts'
import type { KeptResponses } from '../storage/holdings.ts'
import { type EntryNamespace, type ResultContext, storeResponse } from '../storage/placement.ts'
import type { RecordingBudget } from '../storage/recorded-bytes.ts'
import { checkLength, contentLength, Recording } from '../storage/recording.ts'
import {
  type PrivateReason,
  permitsAuthorized,
  privateFieldsOf,
  privateReason,
  scopeOf,
} from '../storage/storage.ts'
import { type CacheEntry, PrivateResult, StoredResponse } from '../storage/stored-response.ts'
import { sharedRequest } from './origin.ts'
import { OriginCall } from './origin-call.ts'

/** A body that is not complete after this time streams to the request's own client, ms. */
const STREAM_AFTER_MS = 50

/** What all fetches of a cache have in common, and the origin. */
export interface OriginFetchTerms {
  origin: Origin
  options: ResolvedHttpOptions
  namespace: EntryNamespace
  recordingBudget: RecordingBudget
  keptResponses: KeptResponses
}

/** Calls the origin once for one request, and decides whether the response is shared with all that wait for the key. */
export class OriginFetch {
  readonly request: HttpRequest
  readonly entry: EntryRef
  readonly #origin: Origin
  readonly #options: ResolvedHttpOptions
  readonly #namespace: EntryNamespace
  readonly #recordingBudget: RecordingBudget
  readonly #keptResponses: KeptResponses
  readonly #clock: Clock
  /** Whether the request waits no longer: no client reads a private response. */
  #hasNoReader = false
  /** Whether the claim is gone (lost lease, no waiters): the response is private then. */
  #cancelled = false
  /** Whether the request's own client does not want the response either. */
  #unwanted = false
  /** The status of the origin's response, before a 304 was replaced by the response that it validates. */
  originStatus: number | undefined
  /** Set by `run`: the response that may be shared. */
  shareable: StoredResponse | undefined
  /** Set by `run`: the response that may not. */
  privateResponse: OriginResponse | undefined
  /** Set while a shareable response still streams, for the request's own client. */
  streaming: { response: OriginResponse; plan: StoragePlan } | undefined
  /** Fields of the shareable response that only the request's own client receives. */
  readonly privateFields: HeaderFields = Object.create(null)
  /** Called when `streaming` is set. */
  readonly #onStreaming: () => void
  #recording: Recording | undefined
  readonly #call: OriginCall
  /** What the origin threw, unless the response was unwanted by then. */
  failure: { error: unknown } | undefined
  /** Why `privateResponse` may not be shared. */
  privateReason: PrivateReason | undefined

  constructor(
    request: HttpRequest,
    entry: EntryRef,
    { origin, options, namespace, recordingBudget, keptResponses }: OriginFetchTerms,
    onStreaming: () => void,
  ) {
    this.request = request
    this.entry = entry
    this.#origin = origin
    this.#options = options
    this.#namespace = namespace
    this.#recordingBudget = recordingBudget
    this.#keptResponses = keptResponses
    this.#clock = namespace.clock
    this.#call = new OriginCall(this.#clock)
    this.#onStreaming = onStreaming
  }

  /** The request does not wait any more: discards a private response. */
  dropReader(): void {
    this.#hasNoReader = true
    discard(this.privateResponse?.body)
  }

  /** The response has been stored, or will not be: the client may receive the end of the body. */
  deliverEnd(): void {
    this.#recording?.deliverEnd()
  }

  /**
   * Returns the result of the work for the key. Never rejects: what the origin throws is for this request alone (see
   * `failure`), and the others fetch again.
   */
  async run(context: ResultContext): Promise<CacheEntry> {
    const { signal } = context
    if (signal.aborted) {
      context.noStore({ bypassFor: 0 })
      return new PrivateResult('failure')
    }
    const unlisten = onAbort(signal, () => this.#onCancelled(signal.reason))
    try {
      return await this.#fetch(context)
    } catch (error) {
      if (!this.#unwanted) this.failure = { error }
      context.noStore({ bypassFor: 0 })
      return new PrivateResult('failure')
    } finally {
      unlisten()
    }
  }

  /** The claim is gone. The request's own client may want the response all the same. */
  #onCancelled(reason: unknown): void {
    this.#cancelled = true
    this.#unwanted = this.#hasNoReader || this.request.signal?.aborted === true
    if (this.#unwanted) {
      this.dropReader()
      this.#call.cancel(reason)
    }
    this.#recording?.detach()
  }

  get #timeout(): number {
    return this.#options.timeout ?? this.#namespace.timeout
  }

  async #fetch(context: ResultContext): Promise<CacheEntry> {
    const sentAt = this.#clock.now()
    const unkeyed = this.#options.unkeyed === 'strip' ? unkeyedFields(this.request, this.#options) : []
    const request = sharedRequest(this.request, {
      signal: this.#call.signal,
      validated: this.#validated,
      unkeyed,
      background: this.#hasNoReader,
    })
    const response = await this.#call.send(this.#origin, request, this.#timeout)
    const timing = { responseTime: Date.now(), responseDelay: this.#clock.now() - sentAt }
    this.originStatus = response.status
    try {
      return await this.#receive(this.#freshened(response), timing, context)
    } catch (error) {
      discard(response.body)
      throw error
    }
  }

  /** The stored response that the origin may validate. */
  get #validated(): StoredResponse | undefined {
    return this.#options.revalidate ? this.entry.stale?.value : undefined
  }

  /** The response with its end-to-end fields; after a 304, the stored response that it validates. RFC 9111 §4.3.3. */
  #freshened(response: OriginResponse): OriginResponse {
    const headers = endToEndFields(response.headers)
    const stored = this.#validated
    if (response.status !== 304 || !stored)
      return { ...response, statusText: reasonPhraseOf(response), headers }
    discard(response.body)
    const { status, statusText, headers: fields, body } = stored
    return { ...response, status, statusText, headers: freshenedFields(fields, headers), body }
  }

  async #receive(
    response: OriginResponse,
    timing: ResponseTiming,
    context: ResultContext,
  ): Promise<CacheEntry> {
    const { status, headers, privateFields = [], private: isPrivate = false } = response
    const control = CacheControl.of(headers)
    const authorized = this.request.headers['authorization'] !== undefined
    const plan = planFor({ status, headers }, control, timing, this.#options)
    if (this.#call.timedOut || this.#isCoveredByStale(status))
      Object.assign(plan, { keep: 0, collapse: true })
    const unshareable =
      isPrivate || this.#cancelled ? 'unshared' : plan.keep === 0 && !plan.collapse ? 'not-fresh' : undefined
    const reason = privateReason({ authorized, status, headers, control }, this.#options) ?? unshareable
    if (reason) return this.#makePrivate(response, reason, context)
    for (const name of privateFieldsOf(control, privateFields)) {
      this.privateFields[name] = headers[name]
      delete headers[name]
    }
    // A recipient adds a missing Date. RFC 9110 §6.6.1.
    headers['date'] ??= new Date(timing.responseTime).toUTCString()
    const receivedAt = this.#clock.now()
    const body = await this.#collect(response, plan)
    if (typeof body === 'string') return this.#makePrivate(response, body, context)
    if (this.#cancelled) return this.#makePrivate({ ...response, body }, 'unshared', context)
    plan.age += this.#clock.now() - receivedAt
    if (isBodiless(status)) delete headers['content-length']
    else headers['content-length'] = String(body.length)
    const forAuthorized = permitsAuthorized(control)
    this.shareable = new StoredResponse({
      status,
      statusText: response.statusText,
      headers,
      plan,
      forAuthorized,
      body,
    })
    return storeResponse(this.shareable, this.request, this.entry, {
      namespace: this.#namespace,
      options: this.#options,
      keptResponses: this.#keptResponses,
      context,
    })
  }

  /** The whole body; or why it is not stored: then `response.body` is left to the request's own client. */
  async #collect(response: OriginResponse, plan: StoragePlan): Promise<Buffer | PrivateReason> {
    const { maxBody } = this.#options
    // Half of the timeout: a request that has waited from the start has time left to fetch privately.
    const maxBodyTime = Math.min(this.#options.maxBodyTime, this.#timeout / 2)
    const length = isBodiless(response.status) ? undefined : contentLength(response.headers)
    if (length !== undefined && length > maxBody) return 'body-size'
    if (!isStreamed(response.body)) {
      const body = bufferOf(response.body ?? '')
      checkLength(length, body.length)
      return body.length > maxBody ? 'body-size' : body
    }
    const recording = new Recording(response.body, length, this.#recordingBudget)
    this.#recording = recording
    response.body = recording
    const stream = () => this.#stream(response, plan)
    const timers = [this.#clock.after(STREAM_AFTER_MS, stream)]
    let timedOut = false
    const onTimeout = (): void => {
      timedOut = true
      recording.detach()
    }
    if (maxBodyTime < Number.POSITIVE_INFINITY) timers.push(this.#clock.after(maxBodyTime, onTimeout))
    try {
      const body = await recording.collect(maxBody, stream)
      if (typeof body !== 'string') return body
      if (body !== 'detached') return body === 'too-long' ? 'body-size' : 'no-room'
      // The claim may be gone instead: that says nothing about the body.
      return timedOut ? 'body-time' : 'unshared'
    } finally {
      for (const timer of timers) timer.cancel()
    }
  }

  /** Streams the response to the request's own client, unless that may yet get a 304 or a stale response instead. */
  #stream(response: OriginResponse, plan: StoragePlan): void {
    const { method, headers } = this.request
    if (this.streaming || this.#hasNoReader || method === 'HEAD' || this.#isCoveredByStale(response.status))
      return
    // The client has this response already and gets a 304.
    if (response.status === 200 && notModified(headers, response.headers)) return
    this.#recording?.expectReader()
    this.streaming = { response, plan }
    this.#onStreaming()
  }

  /** Whether a stale response may be served instead of this error. It must stay stored then. */
  #isCoveredByStale(status: number): boolean {
    const plan = this.entry.stale?.value.plan
    return isOriginError(status) && plan !== undefined && (plan.ifError > 0 || plan.whileRevalidate > 0)
  }

  #makePrivate(response: OriginResponse, reason: PrivateReason, context: ResultContext): CacheEntry {
    this.privateReason = reason
    const scope = scopeOf(response.status, reason)
    // A resource that is not shared any more: remove what is stored. Where nothing is, hit-for-pass: requests of this key
    // do not wait for each other for a while.
    if (this.entry.stale && (scope === 'resource' || isGone(response.status))) context.setTtl(0)
    else if (scope !== 'resource') context.noStore({ bypassFor: 0 })
    else context.noStore()
    Object.assign(response.headers, this.privateFields)
    this.privateResponse = response
    this.#recording?.expectReader()
    if (this.#hasNoReader) discard(response.body)
    return new PrivateResult(scope)
  }
}

/** Whether the resource does not exist any more, for any client. */
function isGone(status: number): boolean {
  return status === 404 || status === 410
}

/** Whether a response has no content, whatever its fields say. RFC 9110 §15.3.5, §15.3.6. */
function isBodiless(status: number): boolean {
  return status === 204 || status === 205
}
