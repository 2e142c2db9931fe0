import { AbortedError, UnavailableError } from '../../errors.ts'
import { outsideWork, reportHookError } from '../../kernel/work/user-code.ts'
import type { TagVersions } from '../../locker/cache/tag-versions.ts'
import type { ResultEntry } from '../../locker/key-namespace.ts'
import type { Forwarded } from '../policy/cache-status.ts'
import { demandsOf } from '../policy/demands.ts'
import { isFailure } from '../policy/judgement.ts'
import { keyOf, tagsOf } from '../policy/key.ts'
import { Reuse, type Reused } from '../policy/reuse.ts'
import { routeOf } from '../policy/route.ts'
import { changedBy } from './change.ts'
import { resolveHttpOptions } from './check-options.ts'
import { firstPlace, indexIn, type Place, type Visit, variantPlace } from './lookup.ts'
import type { HttpRequest, HttpResponse, Origin, OriginResponse } from './message.ts'
import type { HttpCacheOptions, ResolvedHttpOptions } from './options.ts'
import { ask } from './origin/origin.ts'
import { OriginWork } from './origin/origin-work.ts'
import { Outcomes } from './origin/response-selector.ts'
import { Turns } from './origin/turns.ts'
import { Answers } from './response-builder.ts'
import { Holdings } from './storage/holdings.ts'
import { type KeptSpace, ownDecision } from './storage/placement.ts'
import { RecordedBytes } from './storage/recorded-bytes.ts'
import { type Kept, Lone, StoredResponse } from './storage/stored-response.ts'
import { Unsent } from './unsent-invalidations.ts'

/** How often a request is led to another key, or to a newer result, before it goes to the origin by itself. */
const MAX_ROUNDS = 8

/** After so many answers that were others' alone, a request does not wait for the next. */
const MAX_LONELY = 2

/** So many requests for one key ask by themselves at once then. */
const MOST_BY_THEMSELVES = 8

/** How long a refresh that failed is not tried again, ms. */
const REFRESH_AGAIN_AFTER = 1_000

/** See HttpCache: the same, on any space. */
export class HttpCore {
  readonly #space: KeptSpace
  readonly #options: ResolvedHttpOptions
  readonly #answers: Answers
  readonly #reuse: Reuse
  readonly #outcomes: Outcomes
  /** Keys that are being refreshed while stale responses are served. */
  readonly #refreshing = new Set<string>()
  readonly #turns: Turns
  readonly #unsent: Unsent
  readonly #recorded: RecordedBytes
  readonly #holdings: Holdings

  constructor(space: KeptSpace, options: HttpCacheOptions = {}) {
    this.#space = space
    this.#options = resolveHttpOptions(options)
    this.#answers = new Answers(this.#options.cacheStatus)
    this.#reuse = new Reuse(this.#answers, space.clock, this.#options.shareAuthorized)
    this.#outcomes = new Outcomes(this.#answers, this.#reuse)
    this.#turns = new Turns(MOST_BY_THEMSELVES, space.clock)
    this.#unsent = new Unsent(space)
    this.#recorded = new RecordedBytes(this.#options.maxRecorded)
    this.#holdings = new Holdings(space, this.#options)
  }

  handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    try {
      return this.#handle(request, origin)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  #handle(request: HttpRequest, origin: Origin): HttpResponse | Promise<HttpResponse> {
    const route = routeOf(request, this.#options)
    if (route === 'invalidate') return this.#change(request, origin)
    if (route !== 'cache') return this.#forward(request, origin, route)
    const primary = keyOf(request, this.#options)
    if (primary === undefined) return this.#forward(request, origin, 'bypass')
    const demands = demandsOf(request.headers)
    if (demands.noStore) return this.#forward(request, origin, 'request')
    const visit: Visit = { request, origin, demands, primary, since: this.#space.clock.now() }
    // It has changed, and Redis does not know yet.
    if (this.#unsent.has(primary)) return this.#unsent.send().then(() => this.#fromAfar(visit))
    return this.#atOnce(visit) ?? this.#fromAfar(visit)
  }

  /** Out of this process's cache. */
  #atOnce(visit: Visit): HttpResponse | undefined {
    let place = firstPlace(visit)
    let found = this.#space.cached(place.key)
    const index = indexIn(found)
    if (index) {
      place = variantPlace(visit, index)
      found = this.#space.cached(place.key)
    }
    return found && this.#reused(visit, place, found, this.#reuse.kept(visit, found))
  }

  #reused(
    visit: Visit,
    place: Place,
    found: ResultEntry<Kept>,
    reused: Reused | undefined,
  ): HttpResponse | undefined {
    if (reused?.refresh) this.#refresh(visit, { ...place, stale: found as ResultEntry<StoredResponse> })
    return reused?.answer
  }

  /** Renews a response for which stale ones are served meanwhile: by the first request whose client has its answer. */
  #refresh(visit: Visit, place: Place): void {
    if (this.#refreshing.has(place.key)) return
    const answered = visit.request.whenAnswered?.()
    if (!answered) return this.#renew(visit, place)
    const fence = place.stale?.fence
    answered.then(() => {
      const kept = this.#space.cached(place.key)
      if (!this.#refreshing.has(place.key) && (!kept || kept.fence === fence)) this.#renew(visit, place)
    })
  }

  #renew(visit: Visit, place: Place): void {
    this.#refreshing.add(place.key)
    // Whoever asked has its answer, and may be gone before this ends.
    const work = this.#work({ ...visit, request: { ...visit.request, signal: undefined } }, place)
    work.abandon()
    const ended = (failed: boolean): void => {
      const end = () => this.#refreshing.delete(place.key)
      if (failed) this.#space.clock.after(REFRESH_AGAIN_AFTER, end, true)
      else end()
    }
    // Not in the context of a work that asked: to the check for deadlocks it would wait for this.
    outsideWork(() => this.#run(work, place.stale?.fence ?? 0, this.#space.clock.now(), false))
      .then(({ value }) => {
        if (value instanceof Lone) ended(value.reason !== 'resource')
        else ended(value instanceof StoredResponse && isFailure(value.status))
      })
      // The stale one stays, and whoever asks after a while tries again.
      .catch(() => ended(true))
  }

  async #fromAfar(visit: Visit): Promise<HttpResponse> {
    const { request, demands } = visit
    const authorized = request.headers['authorization'] !== undefined && !this.#options.shareAuthorized
    if (!demands.onlyIfCached && !authorized && request.headers['range'] === undefined)
      return this.#obtain(visit)
    // These do not wait for anybody: they take what is there, or go alone. Noted before the origin is asked, so that a
    // change meanwhile is seen.
    const noted = authorized ? this.#note(visit) : undefined
    const { place, answer } = await this.#look(visit)
    if (answer) return answer
    if (demands.onlyIfCached) return this.#answers.own(504, 'Not in the cache')
    return authorized ? this.#solo(visit, place, await noted) : this.#forward(request, visit.origin, 'miss')
  }

  /** What is kept at a place; when that cannot be known, what was known last, if that may be served. */
  async #lookup({ key, primary }: Place): Promise<ResultEntry<Kept> | undefined> {
    if (this.#unsent.has(primary)) return undefined
    const { onUnavailable } = this.#options
    const servesLast = onUnavailable === 'cached' || onUnavailable === 'cached-local'
    return this.#space
      .lookup(key)
      .catch((error) =>
        servesLast && error instanceof UnavailableError ? this.#space.lastKnown(key) : undefined,
      )
  }

  /** Looks for an answer without having one made. */
  async #look(visit: Visit): Promise<{ place: Place; answer: HttpResponse | undefined }> {
    let place = firstPlace(visit)
    let found = await this.#lookup(place)
    const index = indexIn(found)
    if (index) {
      place = variantPlace(visit, index)
      found = await this.#lookup(place)
    }
    return { place, answer: found && this.#reused(visit, place, found, this.#reuse.kept(visit, found)) }
  }

  /** By what it will be known whether the resource has changed since. Undefined when that cannot be known. */
  async #note({ request, primary }: Visit): Promise<TagVersions | undefined> {
    try {
      return await this.#space.readVersions(primary, tagsOf(request, this.#options))
    } catch {
      // The answer that is kept already does not need it.
      return undefined
    }
  }

  /**
   * Asks the origin for one alone, with credentials, or because others' answers were not for it: nobody waits for that.
   * `since`: epochs that were noted before; without them the answer is not kept for others.
   */
  async #solo(visit: Visit, place: Place, since: TagVersions | undefined): Promise<HttpResponse> {
    const { signal, headers } = visit.request
    const work = this.#work(visit, place)
    const decision = ownDecision(signal)
    const keeping = work.run(decision).then(async (kept) => {
      const { ttl } = decision
      if (ttl > 0 && since)
        return this.#space.setIfUnclaimed(place.key, kept, { ttl, since }).catch(() => false)
      // Credentials are not asked about the page of the others.
      if (headers['authorization'] === undefined && withdraws(kept))
        await this.#space.invalidate(place.key).catch(() => undefined)
      return false
    })
    const running = keeping.finally(() => work.release())
    running.catch(() => undefined)
    const stored = (await Promise.race([running, work.begun])) ?? undefined
    const answer = this.#outcomes.own(work, stored)
    if (answer) return answer
    throw new AbortedError('The client has gone', { cause: signal?.reason })
  }

  /** Has an answer made, or waits for it to be made by whoever was first. */
  async #obtain(visit: Visit): Promise<HttpResponse> {
    let place = firstPlace(visit)
    let newerThan = 0
    let lonely = 0
    for (let round = 0; round < MAX_ROUNDS; round++) {
      // Nobody waits for a refresh that it does not need.
      const kept = newerThan === 0 && this.#refreshing.has(place.key) ? await this.#lookup(place) : undefined
      const found = kept ?? (await this.#settled(visit, this.#work(visit, place), newerThan))
      if ('headers' in found) return found
      if (found.value instanceof Lone) {
        const { reason } = found.value
        if (reason === 'resource') return this.#forward(visit.request, visit.origin, 'miss')
        const instead = reason === 'failed' ? this.#reuse.standIn(visit.request, place) : undefined
        if (instead) return instead
        if (++lonely > MAX_LONELY) return this.#byItself(visit, place)
        newerThan = Math.max(newerThan, found.fence)
        continue
      }
      const index = indexIn(found)
      if (index) {
        place = variantPlace(visit, index)
        newerThan = 0
        continue
      }
      const response = found as ResultEntry<StoredResponse>
      const answer = this.#reused(visit, place, found, this.#reuse.outcome(visit, place, response, newerThan))
      if (answer) return answer
      newerThan = found.fence
      place = { ...place, stale: response }
    }
    return this.#forward(visit.request, visit.origin, 'miss')
  }

  /** Others' answers were theirs alone, again and again: a few at once ask by themselves, until something is kept. */
  #byItself(visit: Visit, place: Place): Promise<HttpResponse> {
    const { signal } = visit.request
    const kept = () => (this.#unsent.has(place.primary) ? undefined : this.#atOnce(visit))
    return this.#turns
      .run(
        place.key,
        { signal, within: this.#left(visit.since) },
        async () => kept() ?? this.#solo(visit, place, await this.#note(visit)),
      )
      .catch((error) => {
        const instead = this.#outcomes.instead(visit.request, place, error)
        if (instead) return instead
        throw error
      })
  }

  /** What is left of the time that one who came then may wait, ms. */
  #left(since: number): number {
    const timeout = this.#options.timeout ?? this.#space.timeout
    return Math.max(1, timeout - (this.#space.clock.now() - since))
  }

  #work({ request, origin }: Visit, place: Place): OriginWork {
    return new OriginWork(request, place, {
      origin,
      options: this.#options,
      space: this.#space,
      recorded: this.#recorded,
      holdings: this.#holdings,
    })
  }

  async #run(
    work: OriginWork,
    newerThan: number,
    since: number,
    abortUnwanted = true,
  ): Promise<ResultEntry<Kept>> {
    const { onUnavailable, maxUnshared } = this.#options
    const { request, place, run } = work
    return this.#space.run(place.key, run, {
      afterFence: newerThan,
      // What is kept is not what it was before a change.
      refresh: this.#unsent.has(place.primary),
      tags: tagsOf(request, this.#options),
      signal: request.signal,
      timeout: this.#left(since),
      errorTtl: 0,
      // What is over is served by the rules of HTTP alone.
      staleWhileRevalidate: 0,
      staleIfError: 0,
      softTimeout: Number.POSITIVE_INFINITY,
      onUnavailable,
      maxUnshared,
      abortUnwanted,
    })
  }

  /** What a run came to: the answer to this visit whatever others get, or what was found. */
  async #settled(
    visit: Visit,
    work: OriginWork,
    newerThan: number,
  ): Promise<HttpResponse | ResultEntry<Kept>> {
    const running = this.#run(work, newerThan, visit.since).finally(() => work.release())
    // Once the answer is on its way nobody waits for that any more.
    running.catch(() => undefined)
    try {
      const found = await Promise.race([running, work.begun])
      // The attempt of this very request may go on when its lease is lost.
      if (found?.value instanceof Lone) await work.answered
      const stored = found ? !found.unshared && !found.invalidated : undefined
      return this.#outcomes.own(work, stored) ?? found ?? (await running)
    } catch (error) {
      const own = this.#outcomes.own(work, false)
      if (own) return own
      work.abandon()
      const other = this.#outcomes.instead(visit.request, work.place, error)
      if (other) return other
      throw error
    }
  }

  /** Hands a request to the origin as it is, for its own client alone. */
  async #forward(request: HttpRequest, origin: Origin, forwarded: Forwarded): Promise<HttpResponse> {
    return this.#answers.forwarded(request, await ask(request, origin), { forwarded })
  }

  /** What the user's function throws does not undo the change. */
  #keyOfChanged(changed: HttpRequest): string | undefined {
    try {
      return keyOf(changed, this.#options)
    } catch (error) {
      reportHookError('key', error)
      return undefined
    }
  }

  /** Hands on what changes something, and forgets what that has made wrong. RFC 9111 §4.4. */
  async #change(request: HttpRequest, origin: Origin): Promise<HttpResponse> {
    const response = await ask(request, origin)
    const tell = (told: OriginResponse): Promise<void> =>
      this.#unsent.tell(changedBy(request, told).flatMap((changed) => this.#keyOfChanged(changed) ?? []))
    // The change has happened: its answer is told in any case.
    await tell(response)
    // A client that has gone is told nothing more; what it has changed may come yet.
    response.completed?.then(tell)
    return this.#answers.forwarded(request, response, { forwarded: 'method' })
  }
}

/** Whether what came of a request alone means that what is kept is not there any more, or not for all. */
function withdraws(kept: Kept): boolean {
  if (kept instanceof Lone) return kept.reason === 'resource'
  return kept instanceof StoredResponse && kept.plan.keep === 0 && kept.status < 500
}
