import { encodeWith, jsonCodec } from '../../../src/kernel/codec/codec.ts'
import type { Work, WorkContext } from '../../../src/locker/call.ts'
import type { Lease } from '../../../src/locker/lease.ts'
import { identityOf } from '../history.ts'
import type { WorkRecord } from './history.ts'
import type { Actor, World } from './world.ts'

/** A published value: a unique number, or undefined. */
type Value = { p: number } | undefined

function newValue(world: World): Value {
  return world.random.chance(0.1) ? undefined : { p: world.novelty() }
}

/** Records that a work began, or that a caller received a lease. */
function begin(
  world: World,
  actor: Actor,
  key: string,
  of: Pick<WorkContext, 'fence' | 'shared' | 'signal'>,
): WorkRecord {
  const { history } = world
  const record: WorkRecord = {
    process: actor.process.id,
    key,
    fence: of.fence,
    shared: of.shared,
    begun: history.moment(),
    aborted: of.signal.aborted ? history.moment() : undefined,
    ended: undefined,
    failed: false,
    identities: [],
  }
  history.works.push(record)
  history.say(() => `p${actor.process.id} works on ${key} under ${of.fence}`)
  of.signal.addEventListener('abort', () => {
    record.aborted ??= history.moment()
    history.say(() => `p${actor.process.id} is told to stop ${key} under ${of.fence}`)
  })
  return record
}

function end(world: World, record: WorkRecord, how: string): void {
  record.ended ??= world.history.moment()
  world.history.say(() => `p${record.process} ends its work on ${record.key} under ${record.fence}: ${how}`)
}

/** The message of the failure of a work that returned a Date. */
const UNCARRIED = `The result cannot be published: ${refusal()}`

function refusal(): string {
  try {
    return String(encodeWith(jsonCodec, new Date(0)))
  } catch (error) {
    return (error as Error).message
  }
}

type Duration = 'none' | 'short' | 'long' | 'endless'

function lengthOf(world: World, duration: Duration): number {
  const lease = world.plan.leases[0] ?? 100
  switch (duration) {
    case 'none':
      return 0
    case 'short':
      return world.random.between(0, lease / 2)
    case 'long':
      return world.random.between(lease, lease * 3)
    case 'endless':
      return Number.POSITIVE_INFINITY
  }
}

function durationOf(world: World): Duration {
  if (world.healed) return 'none'
  return world.random.weighted({ none: 2, short: 6, long: 3, endless: 1 })
}

/** A random work: short, long or endless; may fail; may ignore its signal. */
export function workOf(
  world: World,
  actor: Actor,
  key: string,
  nest: ((key: string) => Promise<unknown>) | undefined,
): Work<unknown> {
  const { random } = world
  const duration = durationOf(world)
  const ms = lengthOf(world, duration)
  const heeds = random.chance(0.7)
  const end_ = world.healed ? 'value' : random.weighted({ value: 8, fails: 2, throws: 0.5, uncarried: 0.3 })
  const shows = !world.healed && random.chance(0.2)
  const { unkept, passes, decides } = world.plan.fresh
  const bypassFor = !world.healed && random.chance(unkept) ? random.pick(passes) : undefined
  const ttl = !world.healed && random.chance(decides) ? random.pick(world.plan.ttls) : undefined
  return (context) => {
    const record = begin(world, actor, key, context)
    if (end_ === 'throws') {
      end(world, record, 'throws')
      throw new Error(fail(world, record))
    }
    return finish(world, actor, record, context, { ms, heeds, end: end_, shows, bypassFor, ttl, nest })
  }
}

function fail(world: World, record: WorkRecord): string {
  record.failed = true
  const message = `failure ${world.novelty()}`
  record.identities.push(message)
  return message
}

interface Manner {
  ms: number
  heeds: boolean
  end: 'value' | 'fails' | 'uncarried'
  shows: boolean
  /** The bypassFor of its noStore, ms. */
  bypassFor: number | undefined
  ttl: number | undefined
  nest: ((key: string) => Promise<unknown>) | undefined
}

async function finish(
  world: World,
  actor: Actor,
  record: WorkRecord,
  context: WorkContext,
  manner: Manner,
): Promise<unknown> {
  const { signal } = context
  const stop = new Promise<void>((resolve) => {
    if (manner.heeds) signal.addEventListener('abort', () => resolve())
  })
  if (manner.shows) context.progress({ half: true })
  if (manner.ttl !== undefined) context.setTtl(manner.ttl)
  if (manner.ms > 0) await Promise.race([actor.process.sleep(manner.ms), stop])
  if (manner.heeds && signal.aborted) {
    end(world, record, 'stopped')
    record.failed = true
    throw signal.reason
  }
  if (manner.nest) await manner.nest(record.key).catch(() => {})
  if (manner.end === 'fails') {
    end(world, record, 'fails')
    throw new Error(fail(world, record))
  }
  if (manner.bypassFor !== undefined) context.noStore({ bypassFor: manner.bypassFor })
  const value = manner.end === 'uncarried' ? new Date(0) : newValue(world)
  record.failed = manner.end === 'uncarried'
  record.identities.push(record.failed ? UNCARRIED : identityOf(value))
  end(world, record, `returns ${identityOf(value)}`)
  return value
}

/** The use of a lease by a caller of `request`. */
export async function useLease(world: World, actor: Actor, lease: Lease): Promise<void> {
  const { random, plan } = world
  const { key } = lease
  const record = begin(world, actor, key, lease)
  await actor.process.sleep(lengthOf(world, durationOf(world)))
  const ttl = random.chance(0.5) ? {} : { ttl: random.pick(plan.ttls) }
  const manner = world.healed
    ? 'publish'
    : random.weighted({ publish: 5, byKey: 2, fail: 1, release: 2, dispose: 1 })
  const value = newValue(world)
  // The rest is the end of the work, however long it takes.
  end(world, record, manner)
  const publish = async (what: Value) => {
    record.identities.push(identityOf(what))
    if (manner === 'byKey') await actor.locker.publish(key, what, ttl)
    else await lease.publish(what, ttl)
  }
  try {
    if (manner === 'release') await lease.release()
    else if (manner === 'dispose') await lease[Symbol.asyncDispose]()
    else if (manner === 'fail') {
      const failure = new Error(fail(world, record))
      // Whoever fails a lease is told alone that this could not be published.
      record.failed = !record.shared
      await lease.fail(failure, ttl)
    } else {
      // «UnavailableError: call it again, it is accepted once.»
      const again = random.chance(0.5) ? value : newValue(world)
      await publish(value).catch(async (error: Error & { code?: string }) => {
        if (error.code !== 'E_UNAVAILABLE') throw error
        await publish(again)
      })
    }
  } catch (error) {
    world.history.say(() => `p${record.process} could not ${manner} ${key}: ${String(error)}`)
    // A holder that can do nothing more releases it.
    await lease[Symbol.asyncDispose]().catch(() => {})
  }
}
