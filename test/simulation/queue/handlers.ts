import type { Handler, RunningJob } from '../../../src/queue/working/running-job.ts'
import { identityOf } from '../history.ts'
import type { AttemptRecord } from './history.ts'
import { short } from './recorder.ts'
import type { QueueActor, QueueWorld } from './world.ts'

/** The payload of a simulated job. */
export interface Task {
  n: number
  /** The handler kills its process. */
  poison?: boolean
  /** The handler waits for the other jobs of its burst. */
  burst?: boolean
}

type Duration = 'none' | 'short' | 'long' | 'endless'

function durationOf({ random, plan, healed }: QueueWorld): number {
  if (healed) return 0
  const duration: Duration = random.weighted({ none: 4, short: 6, long: 3, endless: 0.7 })
  if (duration === 'none') return 0
  if (duration === 'short') return random.between(0, plan.lease / 2)
  return duration === 'long' ? random.between(plan.lease, plan.lease * 2.5) : Number.POSITIVE_INFINITY
}

/** A handler with random behaviour: short, long or endless; it may fail, ignore its signal, or kill its process. */
export function handlerOf(world: QueueWorld, actor: QueueActor, command: string): Handler {
  return async (payload, job) => {
    const { random, plan } = world
    const task = payload as Task
    const ms = durationOf(world)
    const heeds = random.chance(0.6)
    const fails = !world.healed && random.chance(plan.mix.fails)
    const kills = !world.healed && (task.poison === true || random.chance(plan.mix.kills))
    const record = begin(world, actor, command, job)
    try {
      if (!world.healed && random.chance(0.15)) job.progress({ half: true })
      if (task.burst) await world.burst
      await work(actor, ms, heeds, job)
      if (kills && !world.healed && !actor.closing) return await die(world, actor)
      if (fails) throw new Error(named(record, `failure ${world.novelty()}`))
      const value = { p: world.novelty() }
      named(record, identityOf(value))
      return value
    } finally {
      end(world, actor, command, record)
    }
  }
}

async function work(actor: QueueActor, ms: number, heeds: boolean, { signal }: RunningJob): Promise<void> {
  if (ms === 0) return
  const stop = new Promise<void>((resolve) => {
    if (heeds) signal.addEventListener('abort', () => resolve())
  })
  await Promise.race([actor.process.sleep(ms), stop])
  if (heeds && signal.aborted) throw signal.reason
}

/** Kills the process. Never resolves. */
function die(world: QueueWorld, actor: QueueActor): Promise<never> {
  world.kill(actor)
  return new Promise(() => {})
}

function named(record: AttemptRecord | undefined, identity: string): string {
  if (record) record.identity = identity
  return identity
}

/** Records the start of a handler. Checks S5 (concurrency, one start per delivery, not after a replacement) and Q3. */
function begin(
  world: QueueWorld,
  actor: QueueActor,
  command: string,
  job: RunningJob,
): AttemptRecord | undefined {
  const { history } = world
  const { id, fence } = job
  const running = (actor.running.get(command) ?? 0) + 1
  actor.running.set(command, running)
  const most = actor.concurrency.get(command) ?? 0
  history.say(() => `p${actor.process.id} begins ${short(id)} under ${fence}, attempt ${job.attempt}`)
  if (running > most)
    history.violate('S5', `p${actor.process.id} runs ${running} handlers, of ${most} at most`)
  const record = history.attempt(id, fence)
  if (!record) {
    history.violate('Q3', `p${actor.process.id} begins ${short(id)} under ${fence}, which was not delivered`)
    return undefined
  }
  if (record.begun) history.violate('S5', `${short(id)} begins twice under ${fence}`)
  record.begun = history.moment()
  if (record.over?.how === 'replaced')
    history.violate('S5', `p${actor.process.id} begins ${short(id)} under ${fence}, which was replaced`)
  job.signal.addEventListener('abort', () => {
    record.aborted ??= history.moment()
    history.say(() => `p${actor.process.id} is told to stop ${short(id)} under ${fence}`)
  })
  return record
}

function end(world: QueueWorld, actor: QueueActor, command: string, record: AttemptRecord | undefined): void {
  actor.running.set(command, (actor.running.get(command) ?? 0) - 1)
  if (!record) return
  record.ended = world.history.moment()
  world.history.say(
    () => `p${actor.process.id} ends ${short(record.id)} under ${record.fence}: ${record.identity}`,
  )
}
