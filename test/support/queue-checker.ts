import type { QueueEntry, What } from './queue-protocol.ts'

/** An attempt that has begun later than its successor by more than this (ms) should not have begun. */
const SLACK = 100

/** All that was told of one task. */
interface Story {
  job: string
  /** No two submissions are for it: there is one generation, whatever happens. */
  single: boolean
  of(what: What): QueueEntry[]
  begun: Map<number, QueueEntry>
  ended: Map<number, QueueEntry>
}

/** Reads off the histories of all processes what must not be. Each complaint begins with the guarantee that is broken. */
export function complaintsAbout(history: readonly QueueEntry[]): string[] {
  const gone = new Map<number, QueueEntry>()
  for (const entry of history) if (entry.what === 'killed') gone.set(entry.pid, entry)
  const checker = new Checker(history, gone)
  for (const story of storiesOf(history)) checker.check(story)
  return checker.complaints
}

function storiesOf(history: readonly QueueEntry[]): Story[] {
  const names = new Map<string, string>()
  for (const { id, job } of history) if (id !== undefined && job !== id) names.set(id, job)
  const byJob = new Map<string, QueueEntry[]>()
  for (const entry of history) {
    const job = names.get(entry.job) ?? entry.job
    if (job === '') continue
    const same = byJob.get(job)
    if (same) same.push(entry)
    else byJob.set(job, [entry])
  }
  return [...byJob].map(([job, entries]) => {
    const of = (what: What) => entries.filter((entry) => entry.what === what)
    const asked = of('asked')
    return {
      job,
      single: asked.length === 1 && asked.every(({ single }) => single === true),
      of,
      begun: byFence(of('begun')),
      ended: byFence(of('ended')),
    }
  })
}

function byFence(entries: readonly QueueEntry[]): Map<number, QueueEntry> {
  return new Map(entries.map((entry) => [entry.fence ?? 0, entry]))
}

class Checker {
  readonly complaints: string[] = []
  readonly #resumed: readonly QueueEntry[]
  readonly #gone: ReadonlyMap<number, QueueEntry>

  constructor(history: readonly QueueEntry[], gone: ReadonlyMap<number, QueueEntry>) {
    this.#resumed = history.filter(({ what }) => what === 'resumed')
    this.#gone = gone
  }

  check(story: Story): void {
    this.#fences(story)
    this.#settlements(story)
    this.#outcomes(story)
    this.#acceptances(story)
    this.#acknowledged(story)
    this.#created(story)
  }

  #complain(guarantee: string, { job }: Story, what: string): void {
    this.complaints.push(`${guarantee} ${job}: ${what}`)
  }

  /** S1: fences of one job strictly increase, each is granted once; Q3: who was replaced does not begin any more. */
  #fences(story: Story): void {
    let highest: QueueEntry | undefined
    const seen = new Set<number>()
    for (const entry of story.of('begun').sort((one, other) => one.at - other.at)) {
      const { fence = 0, at, pid } = entry
      if (seen.has(fence)) this.#complain('S1', story, `began twice under ${fence}`)
      seen.add(fence)
      if (highest === undefined || fence > (highest.fence ?? 0)) highest = entry
      else if (at - highest.at > SLACK && !this.#resumedBefore(pid, at))
        this.#complain(
          'Q3',
          story,
          `${pid} began under ${fence}, after ${highest.pid} under ${highest.fence}`,
        )
    }
  }

  /** It may have stood still between the look at its lease and the beginning. */
  #resumedBefore(pid: number, at: number): boolean {
    return this.#resumed.some((entry) => entry.pid === pid && entry.at <= at && at - entry.at < SLACK)
  }

  /** L1: everyone who waits is settled, once. */
  #settlements(story: Story): void {
    const settled = story.of('settled')
    const refused = new Set(story.of('refused').map(({ op }) => op))
    for (const { op, pid, waits } of story.of('asked')) {
      const times = settled.filter((entry) => entry.op === op).length
      if (times > 1) this.#complain('L1', story, `${op} was settled ${times} times`)
      if (times === 0 && waits && !refused.has(op) && !this.#gone.has(pid))
        this.#complain('L1', story, `${op} was never settled`)
    }
  }

  /** Q2: what a submitter got is what an attempt ended with, or what somebody else has done to the job. */
  #outcomes(story: Story): void {
    const byGeneration = new Map<number, QueueEntry>()
    const generations = story.of('acknowledged').map(({ generation = 0 }) => generation)
    const newest = Math.max(...generations, 0)
    for (const entry of story.of('settled')) {
      const { op, generation } = entry
      const complaint = this.#unlikely(story, entry)
      if (complaint !== undefined) this.#complain('Q2', story, `${op} ${complaint}`)
      if (generation === undefined || entry.kind === undefined) continue
      const other = byGeneration.get(generation)
      byGeneration.set(generation, entry)
      // Who asks late for what was followed by another run may be given that one's outcome.
      if (other && outcomeOf(other) !== outcomeOf(entry) && generation === newest)
        this.#complain('Q2', story, `${op} and ${other.op} got different outcomes of ${generation}`)
    }
  }

  #unlikely(story: Story, { kind, code, value }: QueueEntry): string | undefined {
    if (kind === undefined) {
      const known = ['E_TIMEOUT', 'E_ABORTED', 'E_UNAVAILABLE', 'E_CLOSED'].includes(code ?? '')
      return known ? undefined : `was rejected with ${code}`
    }
    if (code === 'E_CANCELLED')
      return story.of('cancelling').length > 0
        ? undefined
        : 'was told that it was cancelled, which nobody did'
    if (code === 'E_STALLED')
      return story.of('stalled').length > 0 || this.#gone.size > 0 ? undefined : 'was told of stalls'
    const [source] = [...story.ended.values()].filter((end) => end.value === value && end.code === code)
    if (!source) return `got ${value}, which no attempt ended with`
    return this.#superseded(story, source) ? `got ${value}, of one who had been replaced` : undefined
  }

  /** Whether another had begun before it ended. */
  #superseded(story: Story, { fence = 0, at }: QueueEntry): boolean {
    return [...story.begun.values()].some((other) => (other.fence ?? 0) > fence && other.at < at)
  }

  /** Q1: at most one outcome is accepted per generation; S2: only of the last who had it. */
  #acceptances(story: Story): void {
    const accepted = story.of('accepted')
    for (const entry of accepted) {
      const end = story.ended.get(entry.fence ?? 0)
      if (end && this.#superseded(story, end))
        this.#complain('S2', story, `${entry.pid} had been replaced, and ended it under ${entry.fence}`)
    }
    const finals = new Set(accepted.filter(({ kind }) => kind !== 'retry').map(({ fence }) => `${fence}`))
    for (const entry of story.of('settled'))
      if (entry.kind && entry.code !== 'E_CANCELLED') finals.add(this.#fenceOf(story, entry))
    finals.delete('')
    if (story.of('cancelled').some(({ done }) => done)) finals.add('cancelled')
    const most = this.#generations(story)
    if (finals.size > most)
      this.#complain('Q1', story, `${finals.size} outcomes were accepted (${[...finals]}), of ${most} runs`)
    const last = Math.max(...story.begun.keys(), 0)
    for (const final of story.single ? finals : [])
      if (Number(final) < last)
        this.#complain('Q1', story, `ended under ${final}, and began again under ${last}`)
  }

  /** The fence of what was delivered; '' when nobody can tell. */
  #fenceOf(story: Story, { value, code }: QueueEntry): string {
    const source = [...story.ended.values()].find((end) => end.value === value && end.code === code)
    return source ? `${source.fence}` : ''
  }

  /** How many there can have been. */
  #generations(story: Story): number {
    if (story.single) return 1
    const acknowledged = story.of('acknowledged')
    const known = new Set(acknowledged.map(({ op }) => op))
    const unknown = story.of('asked').filter(({ op }) => !known.has(op))
    return new Set(acknowledged.map(({ generation }) => generation)).size + unknown.length
  }

  /** Q1: what was acknowledged has come to an end. */
  #acknowledged(story: Story): void {
    if (story.of('acknowledged').length === 0) return
    const over =
      story.of('accepted').some(({ kind }) => kind !== 'retry') ||
      story.of('cancelled').some(({ done }) => done) ||
      story.of('stalled').some(({ done }) => done) ||
      story.of('settled').some(({ kind }) => kind !== undefined)
    // Whoever was killed may have ended it without being able to say so.
    const unknown = story.of('ended').some(({ pid }) => this.#gone.has(pid))
    if (!over && !unknown) this.#complain('Q1', story, 'was acknowledged, and never came to an end')
  }

  /** S6: a generation is created by one operation. */
  #created(story: Story): void {
    const created = new Map<number, string>()
    for (const { op = '', generation = 0, disposition } of story.of('acknowledged')) {
      if (disposition !== 'created') continue
      const other = created.get(generation)
      if (other !== undefined) this.#complain('S6', story, `${other} and ${op} both created ${generation}`)
      created.set(generation, op)
    }
  }
}

function outcomeOf({ kind, code, value }: QueueEntry): string {
  return `${kind} ${code} ${JSON.stringify(value)}`
}
