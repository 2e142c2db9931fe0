import { type CommandLoad, MAX_LOAD_COMMANDS, type QueueLoad } from '../../queue/internal.ts'
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
    commandsComplete: load.complete,
    why: whyQueue({ first: first && situationOf(state, first.command), dueIn: load.dueIn, now: at }),
  }
}

/** The command whose first job has waited longest. */
function firstOf(commands: readonly CommandLoad[]): CommandLoad | undefined {
  let found: CommandLoad | undefined
  for (const each of commands)
    if (each.first && (found?.first === undefined || each.first.age > found.first.age)) found = each
  return found
}

/** Those that the store knows, and those that have a worker but no job. */
function commandsOf(
  { commands, paused, complete }: QueueLoad,
  workers: readonly WorkerView[],
  queue: string,
): CommandView[] {
  const known = commands.map(({ command, waiting, delayed, active, failed }) => ({
    ...{ command, waiting, delayed: delayed ?? null, running: active ?? null, failed: failed ?? null },
  }))
  const names = new Set(known.map(({ command }) => command))
  const others = new Set(workers.flatMap((each) => (each.queue === queue ? [each.command] : [])))
  // While the store tells of all commands with a job that waits, none waits of another.
  const none = complete ? 0 : null
  const idle = [...others]
    .filter((command) => !names.has(command))
    .map((command) => ({ command, waiting: 0, delayed: none, running: none, failed: none }))
  return [...known, ...idle].slice(0, MAX_LOAD_COMMANDS).map((counts) => ({
    ...counts,
    paused: paused.includes(counts.command),
    capacity: capacityFor(workers, queue, counts.command).capacity,
  }))
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
