import type { Call } from '../../../src/services/call.ts'
import type { Service } from '../../../src/services/service.ts'
import { identityOf } from '../history.ts'
import type { Registration, Run } from './history.ts'
import type { ServicesActor, ServicesWorld } from './world.ts'

type Duration = 'none' | 'short' | 'long' | 'endless'

/** More chunks than are sent before the caller has taken them. */
const MOST_CHUNKS = 150

function durationOf({ random, plan, healed }: ServicesWorld): number {
  if (healed) return 0
  const duration: Duration = random.weighted({ none: 5, short: 6, long: 2, endless: 0.5 })
  if (duration === 'none') return 0
  if (duration === 'short') return random.between(0, plan.lease / 2)
  return duration === 'long' ? random.between(plan.lease, plan.lease * 2.5) : Number.POSITIVE_INFINITY
}

/** Adds the handlers of a service: `work` replies once, `items` by chunks. Both may fail, ignore their signal, or kill. */
export function addHandlers(
  world: ServicesWorld,
  actor: ServicesActor,
  registration: Registration,
  service: Service,
): void {
  service.on('work', (no: number, call: Call) => work(world, actor, registration, no, call))
  service.on('items', (no: number, call: Call) => items(world, actor, registration, no, call))
}

async function work(
  world: ServicesWorld,
  actor: ServicesActor,
  registration: Registration,
  no: number,
  call: Call,
): Promise<unknown> {
  const { random, plan } = world
  const run = begin(world, actor, registration, no, call)
  const ms = durationOf(world)
  const heeds = run.watched && random.chance(0.6)
  const fails = !world.healed && random.chance(plan.mix.fails)
  const kills = !world.healed && random.chance(plan.mix.kills)
  if (!world.healed && random.chance(0.1)) call.progress({ half: true })
  await sleep(actor, ms, heeds ? call.signal : undefined)
  if (kills && !world.healed && !actor.closing) return die(world, actor)
  if (heeds && call.signal.aborted) return stop(world, run, call)
  if (fails) {
    const identity = `failure ${world.novelty()}`
    end(world, run, 'failed', identity)
    throw new Error(identity)
  }
  const value = { no, p: world.novelty() }
  end(world, run, 'over', identityOf(value))
  return value
}

/** The run of `stream` begins with the call of the handler, not with the first read. */
function items(
  world: ServicesWorld,
  actor: ServicesActor,
  registration: Registration,
  no: number,
  call: Call,
): AsyncIterable<unknown> {
  const { random, plan } = world
  const run = begin(world, actor, registration, no, call)
  const count = random.below(random.pick([3, 20, MOST_CHUNKS]))
  const pause = durationOf(world) / 4
  const failsAt = !world.healed && random.chance(plan.mix.fails) ? random.below(count + 1) : -1
  return yieldItems()

  async function* yieldItems() {
    try {
      for (let index = 0; index < count; index++) {
        if (index % 8 === 0) await sleep(actor, pause, run.watched ? call.signal : undefined)
        if (run.watched && call.signal.aborted) stop(world, run, call)
        if (index === failsAt) {
          const identity = `failure ${world.novelty()}`
          end(world, run, 'failed', identity)
          throw new Error(identity)
        }
        run.chunks++
        yield { no, index }
      }
      end(world, run, 'over', 'undefined')
    } finally {
      if (!run.ended) end(world, run, 'left', 'left')
    }
  }
}

async function sleep(actor: ServicesActor, ms: number, signal: AbortSignal | undefined): Promise<void> {
  if (ms === 0) return
  let stop = () => {}
  const stopped = new Promise<void>((resolve) => {
    stop = resolve
  })
  signal?.addEventListener('abort', stop)
  await Promise.race([actor.process.sleep(ms), stopped])
  signal?.removeEventListener('abort', stop)
}

function stop(world: ServicesWorld, run: Run, { signal }: Call): never {
  end(world, run, 'stopped', 'stopped')
  throw signal.reason
}

/** Kills the process. Never resolves. */
function die(world: ServicesWorld, actor: ServicesActor): Promise<never> {
  world.kill(actor)
  return new Promise(() => {})
}

/** Records the start of a handler. Checks V2 (once per process and try) and the capacity. */
function begin(
  world: ServicesWorld,
  actor: ServicesActor,
  registration: Registration,
  no: number,
  { attempt, id, signal }: Call,
): Run {
  const { history } = world
  const { id: process } = actor.process
  const called = history.calls[no]
  history.say(() => `p${process} runs #${no}, attempt ${attempt}`)
  if (!called || called.id !== id) history.violate('V1', `p${process} runs #${no}, which has another id`)
  const earlier = history.runsOf(no)
  if (earlier.some((run) => run.process === process)) history.violate('V2', `p${process} runs #${no} again`)
  const same = earlier.find((run) => run.attempt === attempt)
  // A dispatch that is sent twice has the effect of one only while the store remembers it.
  const wiped = history.wipes.some(({ tick }) => tick > (called?.begun.tick ?? 0))
  if (same && called?.mode !== 'broadcast' && !wiped)
    history.violate('V2', `p${process} and p${same.process} run attempt ${attempt} of #${no}`)
  if (called && attempt > called.tries) history.violate('V2', `#${no} has an attempt ${attempt}`)
  // A stream that is stopped is over before its source is.
  if (called?.mode !== 'stream') registration.running++
  if (called?.mode !== 'broadcast' && registration.running > registration.capacity)
    history.violate(
      'V4',
      `p${process} runs ${registration.running} calls, of ${registration.capacity} at most`,
    )
  const watched = world.healed || world.random.chance(0.85)
  const run: Run = {
    ...{ no, process, attempt, registration, watched, begun: history.moment() },
    ...{ aborted: undefined, ended: undefined, chunks: 0 },
  }
  history.runs.push(run)
  if (watched) {
    signal.addEventListener('abort', () => {
      run.aborted = history.moment()
      history.say(() => `p${process} is told to stop #${no}: ${signal.reason}`)
    })
  }
  return run
}

function end(world: ServicesWorld, run: Run, how: 'over' | 'failed' | 'stopped' | 'left', identity: string) {
  if (world.history.calls[run.no]?.mode !== 'stream') run.registration.running--
  run.ended = { ...world.history.moment(), how, identity }
  world.history.say(() => `p${run.process} ends #${run.no}: ${how} ${identity}`)
}
