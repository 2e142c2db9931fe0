import { type Contender, numberIn, numberOf } from './contenders/contender.ts'
import { quantile } from './statistics.ts'

/** What came of asking for a while. */
export interface Pumped {
  /** Answers per millisecond. */
  rate: number
  /** Microseconds of this process's CPU per answer: says something on a busy machine too. */
  cpu: number
  /** Milliseconds from asking to the answer; 0 where single answers are not timed. */
  p50: number
  p99: number
  /** Asked and never answered, or answered by an error. */
  lost: number
  /** Answered with something else. */
  wrong: number
}

/** An operation that takes longer than this is lost, ms. */
export const DEADLINE = 5_000

/** How often the watch looks for what is lost, ms. */
const LOOK_EVERY = 250

/**
 * Asks for one key after the other, round and round, in so many lanes at once. A lane whose operation is lost is
 * replaced by another, so that one lost answer does not end the round.
 */
export async function pump(
  { get }: Contender,
  keys: readonly string[],
  inFlight: number,
  ms: number,
): Promise<Pumped> {
  const latencies: number[] = []
  const lanes = new Set<{ since: number }>()
  let next = 0
  let lost = 0
  let wrong = 0
  const startedAt = performance.now()
  const cpuBefore = process.cpuUsage()
  const end = startedAt + ms
  let finish = () => {}
  const finished = new Promise<void>((resolve) => {
    finish = resolve
  })
  const drive = async () => {
    const lane = { since: startedAt }
    lanes.add(lane)
    while (lanes.has(lane)) {
      lane.since = performance.now()
      if (lane.since >= end) break
      const key = keys[next++ % keys.length] ?? ''
      try {
        const answer = await get(key)
        if (!lanes.has(lane)) return
        if (numberIn(answer) !== numberOf(key)) wrong++
        latencies.push(performance.now() - lane.since)
      } catch {
        if (lanes.has(lane)) lost++
      }
    }
    lanes.delete(lane)
    if (lanes.size === 0) finish()
  }
  const watch = setInterval(() => {
    for (const lane of lanes) {
      if (performance.now() - lane.since < DEADLINE) continue
      lost++
      lanes.delete(lane)
      void drive()
    }
  }, LOOK_EVERY)
  for (let lane = 0; lane < inFlight; lane++) void drive()
  await finished
  clearInterval(watch)
  const took = performance.now() - startedAt
  return {
    rate: latencies.length / took,
    cpu: cpuSince(cpuBefore) / latencies.length,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    lost,
    wrong,
  }
}

/**
 * Awaits one key after the other, all of which are kept in the process. The event loop turns after each round of the
 * keys, as a server's does: clocks that are read once a turn are read again.
 */
export async function spin(contender: Contender, keys: readonly string[], ms: number): Promise<Pumped> {
  const startedAt = performance.now()
  const cpuBefore = process.cpuUsage()
  const progress = { answers: 0, wrong: 0, over: false }
  const spun = spinUntil(contender, keys, startedAt + ms, progress)
  let lost = 0
  let watch: NodeJS.Timeout | undefined
  const stuck = new Promise<void>((resolve) => {
    let seen = -1
    watch = setInterval(() => {
      if (progress.answers === seen) resolve()
      seen = progress.answers
    }, DEADLINE)
  })
  await Promise.race([spun.catch(() => lost++), stuck.then(() => lost++)])
  clearInterval(watch)
  progress.over = true
  const took = performance.now() - startedAt
  const cpu = cpuSince(cpuBefore) / progress.answers
  return { rate: progress.answers / took, cpu, p50: 0, p99: 0, lost, wrong: progress.wrong }
}

async function spinUntil(
  contender: Contender,
  keys: readonly string[],
  end: number,
  progress: { answers: number; wrong: number; over: boolean },
): Promise<void> {
  while (performance.now() < end && !progress.over) {
    let n = 0
    let wrong = 0
    for (const key of keys) {
      const answer = await contender.get(key)
      if (numberIn(answer) !== n++) wrong++
    }
    progress.answers += n
    progress.wrong += wrong
    await new Promise((turn) => setImmediate(turn))
  }
  progress.over = true
}

/** Microseconds. */
function cpuSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before)
  return user + system
}
