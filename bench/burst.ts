import { setTimeout as sleep } from 'node:timers/promises'
import { type Contender, numberOf } from './contenders/contender.ts'
import { now } from './statistics.ts'

/** What came of asking for everything in one tick, in one process. */
export interface Burst {
  /** Milliseconds from asking to the answer, one per caller who got one. */
  latencies: number[]
  /** When the last caller had the answer, on the shared clock. */
  settledAt: number
  /** How often the work ran here, and when it last ended, on the shared clock. */
  runs: number
  workedUntil: number
  /** Never answered, or answered by an error. */
  lost: number
  wrong: number
}

/** A caller who has no answer after this is lost, ms. */
export const BURST_DEADLINE = 15_000

/** What works do in a burst, and what they tell of themselves. */
export class Work {
  /** Sleeps so long, ms, … */
  sleeps = 0
  /** … and computes so many steps. */
  steps = 0
  runs = 0
  workedUntil = 0

  async do(): Promise<void> {
    this.runs++
    if (this.sleeps > 0) await sleep(this.sleeps)
    compute(this.steps)
    this.workedUntil = now()
  }
}

/** Keeps a core busy: by steps and not by the clock, which goes on while another process has the core. */
function compute(steps: number): number {
  let state = 1
  for (let step = 0; step < steps; step++) state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
  return state
}

/** How many steps a core does in a millisecond. */
export function stepsPerMs(): number {
  const STEPS = 2_000_000
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 12; round++) {
    const startedAt = performance.now()
    compute(STEPS)
    best = Math.min(best, performance.now() - startedAt)
  }
  return Math.round(STEPS / best)
}

/** So many callers of each key, all in one tick that begins at `at` of the shared clock. */
export async function burst(
  { get }: Contender,
  keys: readonly string[],
  callers: number,
  at: number,
  work: Work,
): Promise<Burst> {
  const result: Burst = { latencies: [], settledAt: 0, runs: 0, workedUntil: 0, lost: 0, wrong: 0 }
  const runsBefore = work.runs
  work.workedUntil = 0
  await sleep(Math.max(0, at - now()))
  const ask = async (key: string) => {
    const askedAt = performance.now()
    try {
      const value = await get(key)
      result.latencies.push(performance.now() - askedAt)
      if (value?.n !== numberOf(key)) result.wrong++
    } catch {
      result.lost++
    }
    result.settledAt = now()
  }
  const asked = keys.flatMap((key) => Array.from({ length: callers }, () => ask(key)))
  const timer = new AbortController()
  await Promise.race([
    Promise.all(asked),
    sleep(BURST_DEADLINE, undefined, { signal: timer.signal }).catch(() => {}),
  ])
  timer.abort()
  result.lost = asked.length - result.latencies.length
  return { ...result, runs: work.runs - runsBefore, workedUntil: work.workedUntil }
}
