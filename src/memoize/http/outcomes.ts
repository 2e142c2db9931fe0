import { OverloadedError, RemoteError, TimeoutError, UnavailableError } from '../../errors.ts'
import type { Answers } from './answer.ts'
import type { Attempt } from './attempt.ts'
import type { Forwarded } from './cache-status.ts'
import { isFailure } from './judgement.ts'
import type { Answer, HttpRequest } from './message.ts'
import type { Reuse } from './reuse.ts'
import type { Place } from './visit.ts'

/** Answers a request out of what its own attempt came to. */
export class Outcomes {
  readonly #answers: Answers
  readonly #reuse: Reuse

  constructor(answers: Answers, reuse: Reuse) {
    this.#answers = answers
    this.#reuse = reuse
  }

  /** The answer of an attempt that has asked the origin itself; undefined when it has not, or not to the end. */
  own(request: HttpRequest, attempt: Attempt): Answer | undefined {
    const { made, alone, coming, place, status, withheld } = attempt
    const forwarded: Forwarded = place.stale ? 'stale' : place.index ? 'vary-miss' : 'uri-miss'
    if (alone) return this.#answers.alone(request, alone, { forwarded })
    const plan = made?.plan ?? coming?.plan
    if (!plan) return undefined
    const stored = plan.keep > 0 && { stored: true, ttl: plan.lifetime - plan.age }
    if (!made) return coming && this.#answers.coming(coming.response, { forwarded, ...stored }, withheld)
    const standIn = isFailure(made.status) && this.#reuse.standIn(request, place)
    if (standIn) return standIn
    const forwardedStatus = status !== undefined && status !== made.status && { forwardedStatus: status }
    return this.#answers.made(request, made, { forwarded, ...forwardedStatus, ...stored }, withheld)
  }

  /** What is answered when there is no result: what is stale, if it may be; or that it is too busy here, or too late. */
  instead(request: HttpRequest, place: Place, error: unknown): Answer | undefined {
    const away = error instanceof UnavailableError
    const late = error instanceof TimeoutError
    const stale = (away || late || error instanceof RemoteError) && this.#reuse.standIn(request, place)
    if (stale) return stale
    if (away || error instanceof OverloadedError)
      return this.#answers.own(503, 'Too busy', ['retry-after', '1'])
    return late ? this.#answers.own(504, 'No answer in time') : undefined
  }
}
