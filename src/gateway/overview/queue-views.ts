import type { CommandLoad, QueueLoad } from '../../queue/internal.ts'
import { inSeconds } from '../duration.ts'
import type { CommandView, QueueView, WorkerView } from './overview.ts'
import { type CommandSituation, whyQueue } from './why.ts'
import { capacityFor } from './worker-views.ts'

/** What the views of queues are made from. */
export interface QueueState {
  readonly name: string
  readonly load: QueueLoad
  readonly workers: readonly WorkerView[]
  /** Whether every process has answered which workers it has. */
  readonly complete: boolean
  /** ms since the epoch */
  readonly at: number
}

export function queueView(state: QueueState): QueueView {
  const { name, load, workers, at } = state
  const { counts, totals, paused } = load
  const first = firstOf(load.commands)
  return {
    name,
    waiting: counts.waiting,
    delayed: counts.delayed,
    running: counts.active,
    failed: counts.failed,
    paused: paused.includes(''),
    totals: { submitted: totals.submitted, completed: totals.completed, failed: totals.failed },
    oldest: first ? inSeconds(first.first?.age ?? 0) : null,
    commands: commandsOf(load, workers, name),
    commandsComplete: load.complete && areCounted(load),
    why: whyQueue({ first: first && situationOf(state, first.command), dueIn: load.dueIn, now: at }),
  }
}

const COUNTED = ['waiting', 'delayed', 'active', 'failed'] as const

/** Whether the counts of the commands add up to those of the queue. */
function areCounted({ counts, commands }: QueueLoad): boolean {
  return COUNTED.every((kind) => commands.reduce((sum, each) => sum + each[kind], 0) === counts[kind])
}

/** The command whose first job has waited longest. */
function firstOf(commands: readonly CommandLoad[]): CommandLoad | undefined {
  let found: CommandLoad | undefined
  for (const each of commands)
    if (each.first && (found?.first === undefined || each.first.age > found.first.age)) found = each
  return found
}

/** Those that the store knows, and those that have a worker but no job. */
function commandsOf({ commands, paused }: QueueLoad, workers: readonly WorkerView[], queue: string) {
  const known = commands.map(({ command, waiting, delayed, active, failed }) => ({
    ...{ command, waiting, delayed, running: active, failed },
  }))
  const names = new Set(known.map(({ command }) => command))
  const others = new Set(workers.flatMap((each) => (each.queue === queue ? [each.command] : [])))
  const idle = [...others]
    .filter((command) => !names.has(command))
    .map((command) => ({ command, waiting: 0, delayed: 0, running: 0, failed: 0 }))
  return [...known, ...idle].map(
    (counts): CommandView => ({
      ...counts,
      paused: paused.includes(counts.command),
      capacity: capacityFor(workers, queue, counts.command).capacity,
    }),
  )
}

/** Why a job of a command does not start. */
export function situationOf(
  {
    name,
    load: { paused },
    workers,
    complete,
  }: Omit<QueueState, 'load'> & { load: Pick<QueueLoad, 'paused'> },
  command: string,
): CommandSituation {
  return {
    ...{ command, complete, ...capacityFor(workers, name, command) },
    queuePaused: paused.includes(''),
    commandPaused: paused.includes(command),
  }
}
