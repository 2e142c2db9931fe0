import pDefer from 'p-defer'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { onAbort } from '../../kernel/waiter.ts'
import { notModified } from '../policy/conditional.ts'
import { CacheControl, takeFields } from '../policy/fields.ts'
import { unkeyedFields } from '../policy/request.ts'
import {
  isOriginError,
  type PrivateReason,
  permitsAuthorized,
  planFor,
  privateFieldsOf,
  privateReason,
  type ResponseTiming,
  type StoragePlan,
  scopeOf,
  waitersOnly,
} from '../policy/response.ts'
import type { HeaderFields, HttpRequest, Origin, OriginResponse } from './message.ts'
import { freshenedResponse, OriginCall, sharedRequest } from './origin-call.ts'
import {
  bufferOf,
  checkLength,
  contentLength,
  discard,
  hasNoContent,
  isStreamed,
  Recording,
} from './recording.ts'
import type { EntryRef, ResponseStorage, ResultContext } from './storage.ts'
import { type CacheEntry, StoredResponse } from './stored-response.ts'

/** A body that is not complete after this time streams to the request's own client, ms. */
const STREAM_AFTER_MS = 50

/**
 * The receivers of the response of a fetch: the client of its request, and the requests that wait for the key.
 *
 * | audience | of whom            | the client stops waiting | the claim is lost                     |
 * | -------- | ------------------ | ------------------------ | ------------------------------------- |
 * | everyone | client and waiters | waiters                  | client; nobody if its client has gone |
 * | waiters  | waiters            | waiters                  | nobody                                |
 * | client   | client             | nobody                   |                                       |
 * | nobody   |                    | nobody                   |                                       |
 *
 * The claim is lost when the lease was, or when nobody waits any more.
 */
type Audience = 'everyone' | 'waiters' | 'client' | 'nobody'

const AUDIENCES: Transitions<Audience> = {
  everyone: ['waiters', 'client', 'nobody'],
  waiters: ['waiters', 'nobody'],
  client: ['nobody'],
  nobody: ['nobody'],
}

/**
 * What the request's own client gets from a fetch so far:
 *
 * | outcome   | meaning                                                     | next                         |
 * | --------- | ----------------------------------------------------------- | ---------------------------- |
 * | none      | no response yet, or its body is collected before it streams | any other                    |
 * | streaming | the response may be shared; its body is coming in           | private, failed, or it stays |
 * | complete  | the response may be shared, and is complete                 | failed: it cannot be stored  |
 * | private   | the response is for this client alone                       |                              |
 * | failed    | the origin, its body or the storage has failed              |                              |
 */
export type FetchOutcome =
  | { readonly kind: 'none' }
  | ({ readonly kind: 'streaming' } & Shareable)
  | {
      readonly kind: 'complete'
      readonly response: StoredResponse
      readonly privateFields: HeaderFields
      /** Differs from that of the response when a 304 has validated it. */
      readonly originStatus: number
    }
  | { readonly kind: 'private'; readonly response: OriginResponse; readonly reason: PrivateReason }
  | { readonly kind: 'failed'; readonly error: unknown; readonly streamed: OriginResponse | undefined }

const OUTCOMES: Transitions<FetchOutcome['kind']> = {
  none: ['streaming', 'complete', 'private', 'failed'],
  streaming: ['private', 'failed'],
  complete: ['failed'],
  private: [],
  failed: [],
}

/** A response that may be shared, before its body is complete. */
interface Shareable {
  readonly response: OriginResponse
  readonly plan: StoragePlan
  /** Fields that only the request's own client receives. */
  readonly privateFields: HeaderFields
}

const NONE: FetchOutcome = { kind: 'none' }
const FAILED: CacheEntry = { kind: 'private', scope: 'failure' }

/**
 * The work of one request for a key of the locker: calls the origin, and decides whether the response is shared. It calls
 * the origin at most once: not at all while another request's work runs, and not again when the claim is lost; the other
 * requests then fetch by themselves.
 */
export class OriginFetch {
  readonly request: HttpRequest
  readonly entry: EntryRef
  readonly #origin: Origin
  readonly #storage: ResponseStorage
  readonly #streaming = pDefer<void>()
  #audience: Audience = 'everyone'
  #outcome: FetchOutcome = NONE
  #recording: Recording | undefined
  /** Set by `run`. */
  #result: Promise<CacheEntry> | undefined

  constructor(request: HttpRequest, entry: EntryRef, origin: Origin, storage: ResponseStorage) {
    this.request = request
    this.entry = entry
    this.#origin = origin
    this.#storage = storage
  }

  get outcome(): FetchOutcome {
    return this.#outcome
  }

  /** Resolves when the outcome is 'streaming'. */
  get streaming(): Promise<void> {
    return this.#streaming.promise
  }

  /** Resolves at the end of the fetch; at once if there is none. */
  get done(): Promise<unknown> {
    return Promise.resolve(this.#result)
  }

  /** The work. Never rejects: what the origin throws is for this request alone, and the others fetch again. */
  readonly run = (context: ResultContext): Promise<CacheEntry> => {
    if (this.#result) return Promise.resolve(fail(context))
    this.#result = this.#run(context)
    return this.#result
  }

  /** The request does not wait any more, or does not need the response: the body of a private one is discarded. */
  dropReader(): void {
    this.#setAudience(this.#isClaimLost ? 'nobody' : 'waiters')
  }

  /** The response has been stored, or will not be: the client may receive the end of the body. */
  deliverEnd(): void {
    this.#recording?.deliverEnd()
  }

  #setAudience(audience: Audience): void {
    assertTransition('fetch', AUDIENCES, this.#audience, audience)
    this.#audience = audience
    if (!this.#hasReader && this.#outcome.kind === 'private') discard(this.#outcome.response.body)
  }

  #setOutcome(outcome: FetchOutcome): void {
    assertTransition('fetch', OUTCOMES, this.#outcome.kind, outcome.kind)
    this.#outcome = outcome
  }

  get #isClaimLost(): boolean {
    return this.#audience === 'client' || this.#audience === 'nobody'
  }

  get #hasReader(): boolean {
    return this.#audience === 'everyone' || this.#audience === 'client'
  }

  async #run(context: ResultContext): Promise<CacheEntry> {
    const { signal } = context
    if (signal.aborted) return fail(context)
    const call = new OriginCall(this.#storage.clock)
    const unlisten = onAbort(signal, () => this.#onClaimLost(call, signal.reason))
    try {
      return await this.#fetch(call, context)
    } catch (error) {
      const streamed = this.#outcome.kind === 'streaming' ? this.#outcome.response : undefined
      if (this.#audience !== 'nobody') this.#setOutcome({ kind: 'failed', error, streamed })
      return fail(context)
    } finally {
      unlisten()
    }
  }

  #onClaimLost(call: OriginCall, reason: unknown): void {
    const isWanted = this.#hasReader && this.request.signal?.aborted !== true
    this.#setAudience(isWanted ? 'client' : 'nobody')
    if (!isWanted) call.cancel(reason)
    this.#recording?.detach()
  }

  async #fetch(call: OriginCall, context: ResultContext): Promise<CacheEntry> {
    const { options, timeout, clock } = this.#storage
    const validated = options.revalidate ? this.entry.stale?.value : undefined
    const sentAt = clock.now()
    const request = sharedRequest(this.request, {
      signal: call.signal,
      validated,
      unkeyed: options.unkeyed === 'strip' ? unkeyedFields(this.request, options) : [],
      background: !this.#hasReader,
    })
    const response = await call.send(this.#origin, request, timeout)
    const timing = { responseTime: Date.now(), responseDelay: clock.now() - sentAt }
    try {
      const freshened = freshenedResponse(response, validated)
      const planned = planFor(freshened, CacheControl.of(freshened.headers), timing, options)
      const isForWaiters = call.timedOut || this.#isCoveredByStale(freshened.status)
      const plan = isForWaiters ? waitersOnly(planned) : planned
      return await this.#receive(freshened, plan, { ...timing, originStatus: response.status }, context)
    } catch (error) {
      discard(response.body)
      throw error
    }
  }

  /** Decides whether the response is shared, and stores it. */
  async #receive(
    response: OriginResponse,
    plan: StoragePlan,
    { responseTime, originStatus }: ResponseTiming & { originStatus: number },
    context: ResultContext,
  ): Promise<CacheEntry> {
    const { status, statusText, headers } = response
    const control = CacheControl.of(headers)
    const reason = this.#privateReason(response, control, plan)
    if (reason) return this.#makePrivate(response, reason, context)
    const privateFields = takeFields(headers, privateFieldsOf(control, response.privateFields))
    // A recipient adds a missing Date. RFC 9110 §6.6.1.
    headers['date'] ??= new Date(responseTime).toUTCString()
    const receivedAt = this.#storage.clock.now()
    const body = await this.#collect({ response, plan, privateFields })
    if (typeof body === 'string' || this.#isClaimLost) {
      Object.assign(headers, privateFields)
      return typeof body === 'string'
        ? this.#makePrivate(response, body, context)
        : this.#makePrivate({ ...response, body }, 'unshared', context)
    }
    if (hasNoContent(status)) delete headers['content-length']
    else headers['content-length'] = String(body.length)
    const age = plan.age + this.#storage.clock.now() - receivedAt
    const forAuthorized = permitsAuthorized(control)
    const stored = new StoredResponse({
      status,
      statusText,
      headers,
      plan: { ...plan, age },
      forAuthorized,
      body,
    })
    const placement = this.#storage.place(stored, this.request, this.entry)
    if (this.#outcome.kind === 'none')
      this.#setOutcome({ kind: 'complete', response: placement.response, privateFields, originStatus })
    return this.#storage.store(placement, this.request, this.entry, context)
  }

  #privateReason(
    response: OriginResponse,
    control: CacheControl,
    plan: StoragePlan,
  ): PrivateReason | undefined {
    const { status, headers } = response
    const authorized = this.request.headers['authorization'] !== undefined
    const reason = privateReason({ authorized, status, headers, control }, this.#storage.options)
    if (reason) return reason
    if (response.private === true || this.#isClaimLost) return 'unshared'
    return plan.keep === 0 && !plan.collapse ? 'not-fresh' : undefined
  }

  /** The whole body; or why it is not stored: then `response.body` is left to the request's own client. */
  async #collect(shareable: Shareable): Promise<Buffer | PrivateReason> {
    const { response } = shareable
    const { options, timeout, clock, recordingBudget } = this.#storage
    const { maxBody } = options
    // Half of the timeout: a request that has waited from the start has time left to fetch privately.
    const maxBodyTime = Math.min(options.maxBodyTime, timeout / 2)
    const length = hasNoContent(response.status) ? undefined : contentLength(response.headers)
    if (length !== undefined && length > maxBody) return 'body-size'
    if (!isStreamed(response.body)) {
      const body = bufferOf(response.body ?? '')
      checkLength(length, body.length)
      return body.length > maxBody ? 'body-size' : body
    }
    const recording = new Recording(response.body, length, recordingBudget)
    this.#recording = recording
    response.body = recording
    const stream = () => this.#stream(shareable)
    const timers = [clock.after(STREAM_AFTER_MS, stream)]
    let timedOut = false
    const onTimeout = (): void => {
      timedOut = true
      recording.detach()
    }
    if (maxBodyTime < Number.POSITIVE_INFINITY) timers.push(clock.after(maxBodyTime, onTimeout))
    try {
      const body = await recording.collect(maxBody, stream)
      if (typeof body !== 'string') return body
      if (body !== 'detached') return body === 'too-long' ? 'body-size' : 'no-room'
      // The claim may be lost instead: that says nothing about the body.
      return timedOut ? 'body-time' : 'unshared'
    } finally {
      for (const timer of timers) timer.cancel()
    }
  }

  /** Streams the response to the request's own client, unless that may yet get a 304 or a stale response instead. */
  #stream(shareable: Shareable): void {
    const { status, headers } = shareable.response
    const { method, headers: requestHeaders } = this.request
    if (this.#outcome.kind !== 'none' || !this.#hasReader) return
    if (method === 'HEAD' || this.#isCoveredByStale(status)) return
    // The client has this response already and gets a 304.
    if (status === 200 && notModified(requestHeaders, headers)) return
    this.#recording?.expectReader()
    this.#setOutcome({ kind: 'streaming', ...shareable })
    this.#streaming.resolve()
  }

  /** Whether a stale response may be served instead of this error. It must stay stored then. */
  #isCoveredByStale(status: number): boolean {
    const plan = this.entry.stale?.value.plan
    return isOriginError(status) && plan !== undefined && (plan.ifError > 0 || plan.whileRevalidate > 0)
  }

  #makePrivate(response: OriginResponse, reason: PrivateReason, context: ResultContext): CacheEntry {
    const scope = scopeOf(response.status, reason)
    const isGone = response.status === 404 || response.status === 410
    // A resource that is not shared any more: remove what is stored. Where nothing is, hit-for-pass: requests of this key
    // do not wait for each other for a while.
    if (this.entry.stale && (scope === 'resource' || isGone)) context.setTtl(0)
    else if (scope !== 'resource') context.noStore({ bypassFor: 0 })
    else context.noStore()
    this.#setOutcome({ kind: 'private', response, reason })
    this.#recording?.expectReader()
    if (!this.#hasReader) discard(response.body)
    return { kind: 'private', scope }
  }
}

/** The result of a work that has failed: nothing is stored, and the others fetch again at once. */
function fail(context: ResultContext): CacheEntry {
  context.noStore({ bypassFor: 0 })
  return FAILED
}
