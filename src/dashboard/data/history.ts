import type { Overview, QueueView } from '../../gateway/overview/overview.ts'

/** Samples that are kept of each queue: three minutes. */
const KEPT = 180

/** The snapshots over which the rate of the present is taken. */
const PRESENT = 5

type Totals = QueueView['totals']

export interface Sample {
  /** Seconds since 1970. */
  readonly at: number
  readonly waiting: number
  readonly running: number
  readonly delayed: number
  readonly failed: number
  readonly totals: Totals
}

/** Per second. */
export interface Rates {
  readonly submitted: number
  readonly completed: number
  readonly failed: number
}

const NO_RATES: Rates = { submitted: 0, completed: 0, failed: 0 }

const samples = new Map<string, Sample[]>()

/** Adds a snapshot to the history. Queues that it does not tell of are forgotten. */
export function addToHistory({ at, queues, store }: Overview): void {
  // What was read before Redis went away is told again and again.
  if (!store.reachable) return
  const known = new Set(queues.map(({ name }) => name))
  for (const name of samples.keys()) if (!known.has(name)) samples.delete(name)
  for (const { name, waiting, running, delayed, failed, totals } of queues) {
    const kept = samples.get(name) ?? []
    samples.set(name, kept)
    const last = kept.at(-1)
    if (last && last.at >= at) continue
    kept.push({ at, waiting, running, delayed, failed, totals })
    if (kept.length > KEPT) kept.shift()
  }
}

/** The samples of a queue, the oldest first. */
export function samplesOf(queue: string): readonly Sample[] {
  return samples.get(queue) ?? []
}

/** The rates of a queue at present. */
export function ratesOf(queue: string): Rates {
  const kept = samplesOf(queue)
  const last = kept.at(-1)
  const first = kept.at(-1 - PRESENT) ?? kept[0]
  return first && last && last.at > first.at ? ratesBetween(first, last) : NO_RATES
}

/** The totals of a queue that was erased begin at 0 again. */
function ratesBetween(one: Sample, other: Sample): Rates {
  const rate = (name: keyof Totals) =>
    Math.max(0, other.totals[name] - one.totals[name]) / Math.max(0.001, other.at - one.at)
  return { submitted: rate('submitted'), completed: rate('completed'), failed: rate('failed') }
}

/** What a chart shows: the x of its points, and the y of each line. Null: a gap. */
export interface Lines {
  readonly x: number[]
  readonly y: (number | null)[][]
}

/** Seconds without a snapshot that are a gap in the lines. */
const GAP = 5

/** The rates of a queue: submitted, completed, failed. */
export function rateLines(queue: string): Lines {
  const kept = samplesOf(queue)
  const lines: Lines = { x: [], y: [[], [], []] }
  for (const [index, sample] of kept.entries()) {
    const before = kept[Math.max(0, index - 2)]
    if (!before || index === 0) continue
    const isGap = sample.at - (kept[index - 1]?.at ?? 0) > GAP
    const { submitted, completed, failed } = ratesBetween(before, sample)
    lines.x.push(sample.at)
    // A line along the bottom would look as if something had failed.
    for (const [line, value] of [submitted, completed, failed || null].entries())
      lines.y[line]?.push(isGap ? null : value)
  }
  return lines
}

/** The jobs of a queue: waiting, running, delayed. */
export function countLines(queue: string): Lines {
  const kept = samplesOf(queue)
  return {
    x: kept.map(({ at }) => at),
    y: [
      kept.map(({ waiting }) => waiting),
      kept.map(({ running }) => running),
      kept.map(({ delayed }) => delayed),
    ],
  }
}
