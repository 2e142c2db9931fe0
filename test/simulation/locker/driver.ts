import { SoloflightError } from '../../../src/errors.ts'
import type { Done } from '../../../src/locker/cache/result-cache.ts'
import { Lease } from '../../../src/locker/lease.ts'
import type { RunOptions } from '../../../src/locker/options.ts'
import { type Ending, endingOf, identityOf } from '../history.ts'
import type { CallRecord, Invalidation } from './history.ts'
import { useLease, workOf } from './works.ts'
import type { Actor, World } from './world.ts'

/** The options of a simulated call. */
interface Manner {
  options: RunOptions
  /** When the caller aborts, ms after the call. */
  abortAfter: number
}

/** Makes calls to the lockers of a world, and records their results in the history. */
export class Driver {
  readonly #world: World

  constructor(world: World) {
    this.#world = world
  }

  #manner(): Manner {
    const { random, plan } = this.#world
    const lease = plan.leases[0] ?? 100
    const options: RunOptions = {
      timeout: random.chance(0.4) ? Number.POSITIVE_INFINITY : lease * random.between(0, 5),
    }
    if (random.chance(0.3)) options.lease = random.pick(plan.leases)
    if (random.chance(plan.mix.abort)) return { options, abortAfter: lease * random.between(0, 3) }
    return { options, abortAfter: Number.POSITIVE_INFINITY }
  }

  #begin(actor: Actor, key: string, { options, abortAfter }: Manner): CallRecord {
    const { history, scheduler, server } = this.#world
    const { timeout = Number.POSITIVE_INFINITY, refresh = false } = options
    const of = { ...actor.options, ...options }
    const record: CallRecord = {
      id: history.calls.length,
      process: actor.process.id,
      key,
      begun: history.moment(),
      serverNow: server.clock.now(),
      refresh,
      strict: actor.options.cache === false,
      local: actor.options.onUnavailable === 'local',
      takeover: actor.options.takeover ?? true,
      staleWhileRevalidate: of.staleWhileRevalidate ?? 0,
      staleIfError: of.staleIfError ?? 0,
      softTimeout: of.softTimeout ?? Number.POSITIVE_INFINITY,
      deadline: scheduler.now + Math.min(timeout, abortAfter),
      ended: undefined,
    }
    history.calls.push(record)
    history.say(() => `p${record.process} asks for ${key} (#${record.id}) ${JSON.stringify(options)}`)
    return record
  }

  #end(record: CallRecord, ending: Ending): void {
    const { history } = this.#world
    history.say(() => `p${record.process} has ${record.key} (#${record.id}): ${JSON.stringify(ending)}`)
    record.ended = { ...history.moment(), ending }
  }

  #abortLater(actor: Actor, { options, abortAfter }: Manner): void {
    if (abortAfter === Number.POSITIVE_INFINITY) return
    const controller = new AbortController()
    options.signal = controller.signal
    actor.process.at(this.#world.scheduler.now + abortAfter, () => controller.abort(new Error('enough')))
  }

  /** Calls `run`, with options from the seed unless given. */
  async run(actor: Actor, key: string, given?: RunOptions, nesting = true): Promise<CallRecord> {
    const { random, plan } = this.#world
    const manner = given ? { options: { ...given }, abortAfter: Number.POSITIVE_INFINITY } : this.#manner()
    const { options } = manner
    if (!given && random.chance(plan.mix.refresh)) options.refresh = true
    if (!given && random.chance(0.4)) options.ttl = random.pick(plan.ttls)
    if (!given && random.chance(0.2)) options.onProgress = () => {}
    if (!given) this.#freshen(options, key)
    const nest = nesting && !given && random.chance(plan.mix.nested) ? this.#nest(actor) : undefined
    const record = this.#begin(actor, key, manner)
    this.#abortLater(actor, manner)
    // Without options: the path of a hit in the cache.
    const bare = Object.keys(options).length === 0 ? undefined : options
    try {
      const value = await actor.locker.run(key, workOf(this.#world, actor, key, nest), bare)
      this.#end(record, { kind: 'value', identity: identityOf(value) })
    } catch (error) {
      this.#end(record, endingOf(error))
    }
    return record
  }

  /** The stale options of a caller, the tags of the key, and abortUnwanted. */
  #freshen(options: RunOptions, key: string): void {
    const { random, plan } = this.#world
    const { content, tolerances, hasty, soft, unwanted } = plan.fresh
    const tags = plan.fresh.tags[key]
    if (tags) options.tags = tags
    if (random.chance(content)) options.staleWhileRevalidate = random.pick([0, ...tolerances])
    if (random.chance(content)) options.staleIfError = random.pick(tolerances)
    if (random.chance(hasty)) options.softTimeout = soft
    if (random.chance(unwanted)) options.abortUnwanted = true
  }

  /** A work that asks for a later key: no two works wait for each other. */
  #nest(actor: Actor): (key: string) => Promise<unknown> {
    const { plan, random } = this.#world
    // Works of several processes that wait for each other's slots wait for ever, as documented: only one may nest.
    const slots = this.#world.actors.some(({ options }) => options.concurrency !== Number.POSITIVE_INFINITY)
    const wants = random.next()
    return async (key) => {
      const later = plan.keys.slice(plan.keys.indexOf(key) + 1)
      const inner = later[Math.floor(wants * later.length)]
      if (inner && (!slots || actor.process.id === 0)) await this.run(actor, inner, undefined, false)
    }
  }

  /** Calls `request`, and uses the lease. */
  async request(actor: Actor, key: string): Promise<void> {
    const manner = this.#manner()
    const record = this.#begin(actor, key, manner)
    this.#abortLater(actor, manner)
    try {
      const ticket: Lease | Done<unknown> = await actor.locker.request(key, manner.options)
      if (ticket instanceof Lease) {
        this.#end(record, { kind: 'lease', fence: ticket.fence, shared: ticket.shared })
        await useLease(this.#world, actor, ticket)
      } else this.#end(record, { kind: 'value', identity: identityOf(ticket.result) })
    } catch (error) {
      this.#end(record, endingOf(error))
    }
  }

  /** Calls `wait`. Nobody may ever work on the key, so its timeout is finite. */
  async wait(actor: Actor, key: string): Promise<void> {
    const { random, plan } = this.#world
    const timeout = (plan.leases[0] ?? 100) * random.between(0, 5)
    const record = this.#begin(actor, key, { options: { timeout }, abortAfter: Number.POSITIVE_INFINITY })
    record.local = false
    try {
      const value = await actor.locker.wait(key, { timeout })
      this.#end(record, { kind: 'value', identity: identityOf(value) })
    } catch (error) {
      this.#end(record, endingOf(error))
    }
  }

  async invalidate(actor: Actor, what: Invalidation['what'], key: string): Promise<void> {
    const { history } = this.#world
    const record = {
      process: actor.process.id,
      what,
      key,
      begun: history.moment(),
      effect: undefined,
      acknowledged: undefined,
    }
    history.invalidations.push(record)
    history.say(() => `p${record.process} invalidates ${what} ${key}`)
    try {
      await (what === 'key' ? actor.locker.invalidate(key) : actor.locker.invalidateTags(key))
      Object.assign(record, { acknowledged: history.moment() })
      history.say(() => `p${record.process} has invalidated ${what} ${key}`)
    } catch (error) {
      if (!(error instanceof SoloflightError))
        history.violate('L1', `invalidate rejected with ${String(error)}`)
    }
  }

  async peek(actor: Actor, key: string): Promise<void> {
    await actor.locker.peek(key).catch((error: unknown) => {
      if (!(error instanceof SoloflightError))
        this.#world.history.violate('L1', `peek rejected with ${String(error)}`)
    })
  }

  async close(actor: Actor, grace: number): Promise<void> {
    const { history, plan, scheduler } = this.#world
    actor.closing = true
    const record = {
      process: actor.process.id,
      begun: history.moment(),
      // Time for the release of leases, for earlier calls, and for the release of late grants.
      deadline: scheduler.now + grace + 4 * plan.unavailableAfter,
      ended: undefined,
    }
    history.closings.push(record)
    history.say(() => `p${record.process} closes within ${grace}`)
    for (const call of history.calls) {
      if (call.process === record.process && !call.ended)
        call.deadline = Math.min(call.deadline, scheduler.now + grace)
    }
    await actor.locker.close({ grace })
    Object.assign(record, { ended: history.moment() })
    history.say(() => `p${record.process} is closed`)
  }

  /** One action of a caller, chosen by the seed. */
  act(actor: Actor): void {
    const { random, plan } = this.#world
    const key = random.pick(plan.keys)
    if (random.chance(plan.mix.invalidate)) {
      const [tag] = plan.fresh.tags[key] ?? []
      if (tag && random.chance(0.5)) void this.invalidate(actor, 'tag', tag)
      else void this.invalidate(actor, 'key', key)
    } else if (plan.waits > 0 && random.chance(plan.waits)) void this.wait(actor, key)
    else if (random.chance(0.05)) void this.peek(actor, key)
    else if (random.chance(plan.mix.hand)) void this.request(actor, key)
    else void this.run(actor, key)
  }
}
