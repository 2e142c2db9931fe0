import type { Clock } from '../../../kernel/time/clock.ts'
import { onAbort } from '../../../kernel/waiting/on-abort.ts'
import type { Arrival } from '../../policy/age.ts'
import { CacheControl } from '../../policy/cache-control.ts'
import { freshened, notModified } from '../../policy/conditional.ts'
import { endToEnd, reasonOf } from '../../policy/fields.ts'
import { isFailure } from '../../policy/judgement.ts'
import { type Plan, planFor } from '../../policy/plan.ts'
import { unkeyedFields } from '../../policy/unkeyed.ts'
import type { Place } from '../lookup.ts'
import type { HeaderFields, HttpRequest, Origin, OriginResponse } from '../message.ts'
import type { ResolvedHttpOptions } from '../options.ts'
import { bufferOf, discard, inPieces } from '../storage/body.ts'
import type { Holdings } from '../storage/holdings.ts'
import { type Decision, type KeptSpace, placed } from '../storage/placement.ts'
import type { RecordedBytes } from '../storage/recorded-bytes.ts'
import { checkLength, Recording, statedLength } from '../storage/recording.ts'
import {
  type Cause,
  privateCause,
  reasonFor,
  reusableForAuthorized,
  withheldFields,
} from '../storage/storage.ts'
import { type Kept, Lone, StoredResponse } from '../storage/stored-response.ts'
import { question } from './origin.ts'
import { Asking } from './origin-call.ts'

/** How long a body may take to come in before whoever asked for it is given it as it comes, ms. */
const STREAM_AFTER = 50

/** What an attempt is made of, beside the request and its place. */
export interface AttemptTerms {
  origin: Origin
  options: ResolvedHttpOptions
  space: KeptSpace
  /** Of bodies that are recorded at the moment. */
  recorded: RecordedBytes
  /** What this process keeps. */
  holdings: Holdings
}

/** Asks the origin once on behalf of one request, for all who wait for its key, and decides who may have the answer. */
export class Attempt {
  readonly request: HttpRequest
  readonly place: Place
  readonly #origin: Origin
  readonly #options: ResolvedHttpOptions
  readonly #space: KeptSpace
  readonly #recorded: RecordedBytes
  readonly #holdings: Holdings
  readonly #clock: Clock
  /** Whether nobody will read what it answers. */
  #abandoned = false
  /** The lease was lost, or nobody waits: what it comes to is not for others. */
  #deserted = false
  /** Its own caller does not want it either. */
  #givenUp = false
  /** The status that the origin answered with. */
  status: number | undefined
  /** Set by `work`: the response that others may have, or the one that none may. */
  made: StoredResponse | undefined
  alone: OriginResponse | undefined
  /** Set while a response that others may have still comes in: its body reads it as it comes. */
  coming: { response: OriginResponse; plan: Plan } | undefined
  /** Fields that only its own caller may have. */
  readonly withheld: HeaderFields = Object.create(null)
  /** Called when there is something coming. */
  readonly #begin: () => void
  #recording: Recording | undefined
  readonly #asking: Asking
  /** What the origin threw while the answer was wanted. */
  failure: { error: unknown } | undefined
  /** Why the response is for its own client alone. */
  cause: Cause | undefined

  constructor(
    request: HttpRequest,
    place: Place,
    { origin, options, space, recorded, holdings }: AttemptTerms,
    begin: () => void,
  ) {
    this.request = request
    this.place = place
    this.#origin = origin
    this.#options = options
    this.#space = space
    this.#recorded = recorded
    this.#holdings = holdings
    this.#clock = space.clock
    this.#asking = new Asking(this.#clock)
    this.#begin = begin
  }

  /** Its caller waits no longer: what the origin answers for it alone is let go. */
  abandon(): void {
    this.#abandoned = true
    discard(this.alone?.body)
  }

  /** What came in is kept, or will not be: its caller may have the end of it. */
  release(): void {
    this.#recording?.release()
  }

  /** What the work of the key is to return. What the origin throws concerns its own caller alone: the others ask anew. */
  async work(decision: Decision): Promise<Kept> {
    const { signal } = decision
    if (signal.aborted) {
      decision.noStore({ bypassFor: 0 })
      return new Lone('failed')
    }
    const unlisten = onAbort(signal, () => this.#desert(signal.reason))
    try {
      return await this.#ask(decision)
    } catch (error) {
      if (!this.#givenUp) this.failure = { error }
      decision.noStore({ bypassFor: 0 })
      return new Lone('failed')
    } finally {
      unlisten()
    }
  }

  /** It is not made for others any more. Its own caller may want it all the same. */
  #desert(reason: unknown): void {
    this.#deserted = true
    this.#givenUp = this.#abandoned || this.request.signal?.aborted === true
    if (this.#givenUp) {
      this.abandon()
      this.#asking.giveUp(reason)
    }
    this.#recording?.stop()
  }

  get #timeout(): number {
    return this.#options.timeout ?? this.#space.timeout
  }

  async #ask(decision: Decision): Promise<Kept> {
    const sent = this.#clock.now()
    const unkeyed = this.#options.unkeyed === 'strip' ? unkeyedFields(this.request, this.#options) : []
    const asked = question(this.request, {
      signal: this.#asking.signal,
      stored: this.#validated,
      unkeyed,
      background: this.#abandoned,
    })
    const response = await this.#asking.ask(this.#origin, asked, this.#timeout)
    const arrival = { at: Date.now(), took: this.#clock.now() - sent }
    this.status = response.status
    try {
      return await this.#decide(this.#confirmed(response), arrival, decision)
    } catch (error) {
      discard(response.body)
      throw error
    }
  }

  /** What the origin is to confirm. */
  get #validated(): StoredResponse | undefined {
    return this.#options.revalidate ? this.place.stale?.value : undefined
  }

  /** The response with its own fields alone; the one that is kept, made fresh, when the origin has confirmed that. */
  #confirmed(response: OriginResponse): OriginResponse {
    const headers = endToEnd(response.headers)
    const stored = this.#validated
    if (response.status !== 304 || !stored) return { ...response, statusText: reasonOf(response), headers }
    discard(response.body)
    const { status, statusText, headers: fields, body } = stored
    return { ...response, status, statusText, headers: freshened(fields, headers), body }
  }

  async #decide(response: OriginResponse, arrival: Arrival, decision: Decision): Promise<Kept> {
    const { status, headers, privateFields: own = [], private: isPrivate = false } = response
    const control = CacheControl.of(headers)
    const authorized = this.request.headers['authorization'] !== undefined
    const plan = planFor({ status, headers }, control, arrival, this.#options)
    if (this.#asking.late || this.#isCovered(status)) Object.assign(plan, { keep: 0, collapse: true })
    const unshareable =
      isPrivate || this.#deserted ? 'unshared' : plan.keep === 0 && !plan.collapse ? 'not-fresh' : undefined
    const cause = privateCause({ authorized, status, headers, control }, this.#options) ?? unshareable
    if (cause) return this.#makePrivate(response, cause, decision)
    for (const name of withheldFields(control, own)) {
      this.withheld[name] = headers[name]
      delete headers[name]
    }
    // RFC 9110 §6.6.1.
    headers['date'] ??= new Date(arrival.at).toUTCString()
    const came = this.#clock.now()
    const body = await this.#whole(response, plan)
    if (typeof body === 'string') return this.#makePrivate(response, body, decision)
    if (this.#deserted) return this.#makePrivate({ ...response, body }, 'unshared', decision)
    plan.age += this.#clock.now() - came
    if (isBodiless(status)) delete headers['content-length']
    else headers['content-length'] = String(body.length)
    const forAuthorized = reusableForAuthorized(control)
    this.made = new StoredResponse({
      status,
      statusText: response.statusText,
      headers,
      plan,
      forAuthorized,
      body,
    })
    return placed(this.made, this.request, this.place, {
      space: this.#space,
      options: this.#options,
      holdings: this.#holdings,
      decision,
    })
  }

  /** The whole body; or why it is not kept: the response has one to be read by one alone then. */
  async #whole(response: OriginResponse, plan: Plan): Promise<Buffer | Cause> {
    const { maxBody } = this.#options
    // Half of it: whoever has waited from the start has time left to ask alone.
    const maxBodyTime = Math.min(this.#options.maxBodyTime, this.#timeout / 2)
    const length = isBodiless(response.status) ? undefined : statedLength(response.headers)
    if (length !== undefined && length > maxBody) return 'body-size'
    if (!inPieces(response.body)) {
      const body = bufferOf(response.body ?? '')
      checkLength(length, body.length)
      return body.length > maxBody ? 'body-size' : body
    }
    const recording = new Recording(response.body, length, this.#recorded)
    this.#recording = recording
    response.body = recording
    const stream = () => this.#stream(response, plan)
    const timers = [this.#clock.after(STREAM_AFTER, stream)]
    let late = false
    const stop = (): void => {
      late = true
      recording.stop()
    }
    if (maxBodyTime < Number.POSITIVE_INFINITY) timers.push(this.#clock.after(maxBodyTime, stop))
    try {
      return (
        (await recording.collect(maxBody, stream)) ??
        (late ? 'body-time' : recording.fits ? 'body-size' : 'no-room')
      )
    } finally {
      for (const timer of timers) timer.cancel()
    }
  }

  /** Lets its caller have the response as it comes, unless it may come to a 304 or to something stale instead. */
  #stream(response: OriginResponse, plan: Plan): void {
    const { method, headers } = this.request
    if (this.coming || this.#abandoned || method === 'HEAD' || this.#isCovered(response.status)) return
    // A client that has it already is not sent it again.
    if (response.status === 200 && notModified(headers, response.headers)) return
    this.#recording?.attach()
    this.coming = { response, plan }
    this.#begin()
  }

  /** Whether this is a failure, and what is kept may yet be served instead. That must stay then. */
  #isCovered(status: number): boolean {
    const plan = this.place.stale?.value.plan
    return isFailure(status) && plan !== undefined && (plan.ifError > 0 || plan.whileRevalidate > 0)
  }

  #makePrivate(response: OriginResponse, cause: Cause, decision: Decision): Kept {
    this.cause = cause
    const reason = reasonFor(response.status, cause)
    // What the resource does not share any more is forgotten; where nothing is kept, nobody waits for a while.
    if (this.place.stale && (reason === 'resource' || isGone(response.status))) decision.setTtl(0)
    else if (reason !== 'resource') decision.noStore({ bypassFor: 0 })
    else decision.noStore()
    Object.assign(response.headers, this.withheld)
    this.alone = response
    this.#recording?.attach()
    if (this.#abandoned) discard(response.body)
    return new Lone(reason)
  }
}

/** Whether the resource is not there any more, whoever is told so. */
function isGone(status: number): boolean {
  return status === 404 || status === 410
}

/** Whether its responses have no body, whatever they say. */
function isBodiless(status: number): boolean {
  return status === 204 || status === 205
}
