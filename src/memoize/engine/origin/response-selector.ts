import { OverloadedError, RemoteError, TimeoutError, UnavailableError } from '../../../errors.ts'
import type { Forwarded } from '../../policy/cache-status.ts'
import { isFailure } from '../../policy/judgement.ts'
import type { Reuse } from '../../policy/reuse.ts'
import type { Place } from '../lookup.ts'
import type { HttpRequest, HttpResponse } from '../message.ts'
import type { Answers } from '../response-builder.ts'
import { discard } from '../storage/body.ts'
import type { OriginWork } from './origin-work.ts'

/** Answers a request out of what its own work came to. */
export class Outcomes {
  readonly #answers: Answers
  readonly #reuse: Reuse

  constructor(answers: Answers, reuse: Reuse) {
    this.#answers = answers
    this.#reuse = reuse
  }

  /**
   * The answer of a work that has asked the origin itself; undefined when it has not, or not to the end. `stored`: whether
   * the response was accepted to be kept; undefined: that is not known yet. Throws what the origin threw.
   */
  own({ request, place, attempt }: OriginWork, stored: boolean | undefined): HttpResponse | undefined {
    if (!attempt) return undefined
    const { made, alone, coming, status, withheld, cause, failure } = attempt
    const forwarded: Forwarded = place.stale ? 'stale' : place.index ? 'vary-miss' : 'uri-miss'
    const failed = failure !== undefined || isFailure(made?.status ?? alone?.status ?? 0)
    const standIn = failed && this.#reuse.standIn(request, place)
    if (standIn) {
      discard(alone?.body ?? coming?.response.body)
      return standIn
    }
    if (failure) throw failure.error
    if (alone) return this.#answers.alone(request, alone, { forwarded, detail: cause })
    const plan = made?.plan ?? coming?.plan
    if (!plan) return undefined
    const kept = plan.keep > 0 && { ttl: plan.lifetime - plan.age }
    // Somebody is going to read it as it comes.
    if (!made || coming)
      return coming && this.#answers.coming(coming.response, { forwarded, ...kept }, withheld)
    const forwardedStatus = status !== undefined && status !== made.status && { forwardedStatus: status }
    const fate = !kept ? undefined : stored ? { stored, ...kept } : { detail: 'not-stored' as const }
    return this.#answers.made(request, made, { forwarded, ...forwardedStatus, ...fate }, withheld)
  }

  /** What is answered when there is no result: what is stale, if it may be; or that it is too busy here, or too late. */
  instead(request: HttpRequest, place: Place, error: unknown): HttpResponse | undefined {
    const away = error instanceof UnavailableError
    const late = error instanceof TimeoutError
    const stale = (away || late || error instanceof RemoteError) && this.#reuse.standIn(request, place)
    if (stale) return stale
    if (away || error instanceof OverloadedError)
      return this.#answers.own(503, 'Too busy', ['retry-after', '1'])
    return late ? this.#answers.own(504, 'No answer in time') : undefined
  }
}
