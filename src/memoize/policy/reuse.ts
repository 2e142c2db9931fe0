import type { Clock } from '../../kernel/time/clock.ts'
import type { ResultEntry } from '../../locker/key-namespace.ts'
import type { Place, Visit } from '../engine/lookup.ts'
import type { HttpRequest, HttpResponse } from '../engine/message.ts'
import type { Answers } from '../engine/response-builder.ts'
import { type Kept, StoredResponse } from '../engine/storage/stored-response.ts'
import { isFailure, judge, survivesError } from './judgement.ts'

/** An answer out of what is kept, and whether that is to be renewed now. */
export interface Reused {
  answer: HttpResponse
  refresh: boolean
}

/** Decides whether what was found answers a request. */
export class Reuse {
  readonly #answers: Answers
  readonly #clock: Clock
  readonly #shareAuthorized: boolean

  constructor(answers: Answers, clock: Clock, shareAuthorized: boolean) {
    this.#answers = answers
    this.#clock = clock
    this.#shareAuthorized = shareAuthorized
  }

  /** Out of what is kept, if it is fresh enough for this request, or may be stale. */
  kept(visit: Visit, found: ResultEntry<Kept>): Reused | undefined {
    const { value } = found
    if (!(value instanceof StoredResponse)) return undefined
    const authorized = visit.request.headers['authorization'] !== undefined
    if (authorized && !this.#shareAuthorized && !value.forAuthorized) return undefined
    const age = this.#ageOf(found, value)
    const judgement = judge(value.plan, age, visit.demands)
    if (judgement === 'ask' && !(found.unverified && this.#undemanded(visit, value, age))) return undefined
    const refresh = judgement === 'refresh' && !found.unverified
    if (refresh && visit.request.canRefresh === false) return undefined
    return { answer: this.#hit(visit.request, found, value, age), refresh }
  }

  /** While Redis is away: what is stale is served within its stale-if-error, unless the client demands more. */
  #undemanded({ demands }: Visit, { plan }: StoredResponse, age: number): boolean {
    const { noCache, maxAge, minFresh } = demands
    return !noCache && age <= maxAge && minFresh === 0 && survivesError(plan, age)
  }

  #hit(
    request: HttpRequest,
    { unverified }: ResultEntry<Kept>,
    stored: StoredResponse,
    age: number,
  ): HttpResponse {
    if (!unverified) return this.#answers.hit(request, stored, age)
    const status = { hit: true, ttl: stored.plan.lifetime - age, detail: 'unverified' } as const
    return this.#answers.shared(request, stored, age, status)
  }

  /** Out of what another's run came to, which was to be newer than the grant `newerThan`; or what was kept, as above. */
  outcome(
    visit: Visit,
    place: Place,
    found: ResultEntry<StoredResponse>,
    newerThan: number,
  ): Reused | undefined {
    const { value } = found
    if (found.unverified || !this.#madeFor(visit, found, newerThan)) return this.kept(visit, found)
    const status = { forwarded: place.stale ? 'stale' : 'miss', collapsed: true } as const
    const answer =
      (isFailure(value.status) && this.standIn(visit.request, place)) ||
      this.#answers.shared(visit.request, value, this.#ageOf(found, value), status)
    return { answer, refresh: false }
  }

  /** Whether a result was made for those who wait now, so that it answers them even when it is not fresh. */
  #madeFor(visit: Visit, found: ResultEntry<StoredResponse>, newerThan: number): boolean {
    if (found.stale) return false
    // For those of this process alone who waited.
    if (found.unshared || (newerThan > 0 && found.fence > newerThan)) return true
    const { plan } = found.value
    const resident = this.#ageOf(found, found.value) - plan.age
    return plan.collapse && !visit.demands.noCache && resident <= this.#clock.now() - visit.since
  }

  /** Out of what is stale, if that may stand in for an origin that failed. */
  standIn(request: HttpRequest, { stale }: Place): HttpResponse | undefined {
    if (!stale) return undefined
    const age = this.#ageOf(stale, stale.value)
    return survivesError(stale.value.plan, age) ? this.#hit(request, stale, stale.value, age) : undefined
  }

  /** How old a response is now: what it was when it came, and how long it has been kept since. */
  #ageOf(found: ResultEntry<Kept>, { plan }: StoredResponse): number {
    // It was made just now, for those who wait.
    if (plan.keep === 0 || found.invalidated || found.unshared) return plan.age
    return plan.age + Math.max(0, plan.keep - (found.until - this.#clock.now()))
  }
}
