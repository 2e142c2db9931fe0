import { inSeconds } from '../duration.ts'
import type { Answers, CensusEntry } from './census-items.ts'
import type { WorkerView } from './overview.ts'
import type { WorkerCapacity } from './why.ts'

/** A worker that has named itself to gateways: what all of them have seen of it. Ages in ms. */
export interface NamedWorker {
  readonly queue: string
  readonly id: string
  readonly command: string
  readonly taken: number
  readonly returned: number
  readonly failed: number
  /** Since it was first seen, and last seen. */
  readonly age: number
  readonly silent: number
  readonly waiting: number
}

/** The workers that have named themselves, by what each gateway has seen of them. */
export function namedWorkers({ gateway }: Answers, prefix: string): NamedWorker[] {
  const goneFor = new Map<string, number>()
  for (const { item } of gateway) {
    if (item.kind !== 'gone' || item.prefix !== prefix) continue
    const name = nameOf(item.queue, item.id)
    goneFor.set(name, Math.min(item.age, goneFor.get(name) ?? Number.POSITIVE_INFINITY))
  }
  const found = new Map<string, NamedWorker>()
  for (const { item } of gateway) {
    if (item.kind !== 'worker' || item.prefix !== prefix) continue
    const name = nameOf(item.queue, item.id)
    // Another gateway has seen it sign off since.
    if (item.silent >= (goneFor.get(name) ?? Number.POSITIVE_INFINITY)) continue
    const { queue, id, command, taken, returned, failed, age, silent, waiting } = item
    const known = found.get(name)
    found.set(name, {
      ...{ queue, id },
      command: known && known.silent < silent ? known.command : command,
      taken: taken + (known?.taken ?? 0),
      returned: returned + (known?.returned ?? 0),
      failed: failed + (known?.failed ?? 0),
      waiting: waiting + (known?.waiting ?? 0),
      age: Math.max(age, known?.age ?? 0),
      silent: Math.min(silent, known?.silent ?? Number.POSITIVE_INFINITY),
    })
  }
  return [...found.values()]
}

/**
 * Everything that takes jobs: processes with a handler, those in which calls of `take` wait, and clients of gateways.
 * `at`: ms since the epoch.
 */
export function workerViews(answers: Answers, prefix: string, at: number): WorkerView[] {
  return [...processViews(answers, prefix), ...clientViews(answers, prefix, at)]
}

/** By process, queue and command. */
function* processViews({ workers, gateway }: Answers, prefix: string): Generator<WorkerView> {
  const namedWaits = new Map<string, number>()
  const unnamedJobs = new Map<string, number>()
  const add = (counts: Map<string, number>, name: string, by: number) =>
    counts.set(name, by + (counts.get(name) ?? 0))
  const takers = new Map<string, WorkerView>()
  for (const { item, ...process } of gateway) {
    if (item.prefix !== prefix) continue
    if (item.kind === 'worker') add(namedWaits, groupOf(process, item), item.waiting)
    if (item.kind !== 'job' || item.worker !== '') continue
    add(unnamedJobs, groupOf(process, item), 1)
    takers.set(groupOf(process, item), viewOf({ ...process, item }, 0, 0))
  }
  for (const { item, ...process } of workers) {
    if (item.prefix !== prefix || item.kind !== 'worker') continue
    const view = viewOf({ ...process, item }, item.busy, item.concurrency)
    if (item.takes) takers.set(groupOf(process, item), view)
    else yield view
  }
  for (const [group, view] of takers) {
    const busy = unnamedJobs.get(group) ?? 0
    const waiting = Math.max(0, view.concurrency - (namedWaits.get(group) ?? 0))
    if (busy + waiting > 0) yield { ...view, busy, concurrency: busy + waiting }
  }
}

function viewOf(
  { process, host, pid, since, item: { queue, command } }: CensusEntry<{ queue: string; command: string }>,
  busy: number,
  concurrency: number,
): WorkerView {
  return { id: process, host, pid, queue, command, busy, concurrency, since: since / 1000 }
}

function* clientViews(answers: Answers, prefix: string, at: number): Generator<WorkerView> {
  const jobs = new Map<string, number>()
  for (const { item } of answers.gateway) {
    if (item.kind !== 'job' || item.prefix !== prefix || item.worker === '') continue
    const name = nameOf(item.queue, item.worker)
    jobs.set(name, 1 + (jobs.get(name) ?? 0))
  }
  for (const { queue, id, command, waiting, age } of namedWorkers(answers, prefix)) {
    const busy = jobs.get(nameOf(queue, id)) ?? 0
    const concurrency = Math.max(1, busy + waiting)
    yield { id, host: '', pid: null, queue, command, busy, concurrency, since: inSeconds(at - age) }
  }
}

/** What can run the jobs of a command of a queue. */
export function capacityFor(workers: readonly WorkerView[], queue: string, command: string): WorkerCapacity {
  const its = workers.filter((worker) => worker.queue === queue && worker.command === command)
  const sum = (of: 'busy' | 'concurrency') => its.reduce((total, worker) => total + worker[of], 0)
  return { workers: its.length, capacity: sum('concurrency'), busy: sum('busy') }
}

function nameOf(queue: string, id: string): string {
  return `${queue}\0${id}`
}

function groupOf({ process }: { process: string }, { queue, command }: { queue: string; command: string }) {
  return `${process} ${queue}\0${command}`
}
