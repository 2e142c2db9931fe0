import type { CommandSender } from '../../kernel/command.ts'
import type { Script } from '../../kernel/script.ts'
import type { CallLimits } from '../../locker/store.ts'
import type { Counts, JobSnapshot, JobState } from '../store.ts'
import type { Argument, CommandNames, QueueCalls } from './calls.ts'
import { snapshotOf, textOf } from './replies.ts'
import type { QueueScripts } from './scripts/index.ts'

/** How long a worker is known that says nothing of itself, ms. */
export const KEEP_WORKER: number = 15 * 60_000

type ReadCommand = 'zrange' | 'lrange' | 'hkeys' | 'hvals' | 'hmget' | 'smembers'

/** The part of the store that looks at a queue, and steers it from outside. */
export class QueueManagement {
  protected readonly calls: QueueCalls
  protected readonly scripts: QueueScripts

  constructor(calls: QueueCalls, scripts: QueueScripts) {
    this.calls = calls
    this.scripts = scripts
  }

  /** Calls a script about one job. */
  protected job(
    script: Script,
    id: string,
    command: string | undefined,
    args: readonly Argument[],
    within: number,
  ): Promise<unknown> {
    const commands = command === undefined ? [] : [this.calls.command(command)]
    return this.calls.call(script, commands, [this.calls.names.job(id)], args, within)
  }

  /** Sends a command that only reads. */
  protected read(command: ReadCommand, args: string[], within: number): Promise<unknown> {
    const request = { key: args[0], send: (sender: CommandSender) => sender.send(command, args) }
    return this.calls.connection.call(request, within)
  }

  async logs(id: string, { within }: CallLimits): Promise<string[]> {
    return ((await this.read('lrange', [this.calls.names.log(id), '0', '-1'], within)) as unknown[]).map(
      textOf,
    )
  }

  async snapshot(id: string, { within }: CallLimits): Promise<JobSnapshot | undefined> {
    return snapshotOf(id, await this.job(this.scripts.snapshot, id, undefined, [], within))
  }

  async list(state: JobState, from: number, limit: number, limits: CallLimits): Promise<string[]> {
    const commands = state === 'waiting' ? await this.#allCommands(limits) : []
    const args = [state, String(from), String(limit)]
    const reply = await this.calls.call(this.scripts.list, commands, [], args, limits.within)
    return (reply as unknown[]).map(textOf)
  }

  async counts(limits: CallLimits): Promise<Counts> {
    const commands = await this.#allCommands(limits)
    const reply = await this.calls.call(this.scripts.counts, commands, [], [], limits.within)
    const [waiting, delayed, active, completed, failed] = (reply as unknown[]).map(Number) as [
      number,
      number,
      number,
      number,
      number,
    ]
    return { waiting, delayed, active, completed, failed }
  }

  async #allCommands({ within }: CallLimits): Promise<CommandNames[]> {
    const reply = await this.read('hkeys', [this.calls.names.shared[4] as string], within)
    return (reply as unknown[]).map((name) => this.calls.named(textOf(name)))
  }

  async commands({ within }: CallLimits): Promise<string[]> {
    const reply = await this.read('hvals', [this.calls.names.shared[4] as string], within)
    return (reply as unknown[]).map(textOf)
  }

  async hasWorker(command: string, { within }: CallLimits): Promise<boolean> {
    const [, , workers = ''] = this.calls.command(command).keys
    return ((await this.read('hkeys', [workers], within)) as unknown[]).length > 0
  }

  async retry(
    id: string,
    command: string,
    generation: number,
    { within }: CallLimits,
  ): Promise<number | undefined> {
    const reply = await this.job(this.scripts.retry, id, command, [String(generation)], within)
    return Number(textOf(reply)) || undefined
  }

  pause(command: string, limits: CallLimits): Promise<void> {
    return this.#halt(this.scripts.pause, command, limits)
  }

  resume(command: string, limits: CallLimits): Promise<void> {
    return this.#halt(this.scripts.resume, command, limits)
  }

  async #halt(script: QueueScripts['pause'], command: string, limits: CallLimits): Promise<void> {
    const commands = command === '' ? await this.#allCommands(limits) : [this.calls.command(command)]
    const name = command === '' ? '' : this.calls.command(command).name
    await this.calls.call(script, commands, [], [name, String(KEEP_WORKER), command], limits.within)
  }

  async paused({ within }: CallLimits): Promise<string[]> {
    const members = (
      (await this.read('smembers', [this.calls.names.shared[5] as string], within)) as unknown[]
    ).map(textOf)
    if (members.length === 0) return []
    const real = (await this.read(
      'hmget',
      [this.calls.names.shared[4] as string, ...members],
      within,
    )) as unknown[]
    return members.map((name, index) => (name === '' ? '' : textOf(real[index]) || name))
  }
}
