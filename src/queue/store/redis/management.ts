import type { CallLimits } from '../../../kernel/limits.ts'
import type { Script } from '../../../kernel/redis/call.ts'
import type { Counts, JobSnapshot, JobState } from '../store.ts'
import type { Argument, CommandKeys, QueueCalls } from './calls.ts'
import { parseSnapshot, toText } from './replies.ts'
import type { QueueScripts } from './scripts/index.ts'

type ReadCommand = 'zrange' | 'lrange' | 'hkeys' | 'hvals' | 'hmget' | 'smembers'

/** The part of the store that looks at a queue, and steers it from outside. */
export class QueueManagement {
  protected readonly calls: QueueCalls
  protected readonly scripts: QueueScripts
  /** Jobs that one script of `drain` looks at: it runs alone on the server, so it must stay short. */
  protected readonly drainStep: number

  constructor(calls: QueueCalls, scripts: QueueScripts, drainStep: number) {
    this.calls = calls
    this.scripts = scripts
    this.drainStep = drainStep
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
    return this.calls.call(script, commands, [this.calls.queueKeys.job(id)], args, within)
  }

  /** Reads of the primary: where a cluster client reads from replicas, these may lack what was just written. */
  protected read(command: ReadCommand, [key = '', ...args]: string[], within: number): Promise<unknown> {
    return this.calls.connection.call(this.scripts.read.with([key], [command, ...args]), within)
  }

  async readLog(id: string, { within }: CallLimits): Promise<string[]> {
    return ((await this.read('lrange', [this.calls.queueKeys.log(id), '0', '-1'], within)) as unknown[]).map(
      toText,
    )
  }

  async snapshot(id: string, { within }: CallLimits): Promise<JobSnapshot | undefined> {
    return parseSnapshot(id, await this.job(this.scripts.snapshot, id, undefined, [], within))
  }

  async list(state: JobState, from: number, limit: number, limits: CallLimits): Promise<string[]> {
    const commands = state === 'waiting' ? await this.#allCommands(limits) : []
    const args = [state, String(from), String(limit)]
    const reply = await this.calls.call(this.scripts.list, commands, [], args, limits.within)
    return (reply as unknown[]).map(toText)
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

  async drain(state: 'waiting' | 'delayed', outcomeRetention: number, limits: CallLimits): Promise<number> {
    const commands = await this.#allCommands(limits)
    const args = [state, String(this.drainStep), String(outcomeRetention)]
    let removed = 0
    for (;;) {
      const reply = await this.calls.call(this.scripts.drain, commands, [], args, limits.within)
      const [count, more] = (reply as unknown[]).map(Number) as [number, number]
      removed += count
      if (more === 0) return removed
    }
  }

  async #allCommands({ within }: CallLimits): Promise<CommandKeys[]> {
    const reply = await this.read('hkeys', [this.calls.queueKeys.shared[4] as string], within)
    return (reply as unknown[]).map((name) => this.calls.commandOfSegment(toText(name)))
  }

  async commands({ within }: CallLimits): Promise<string[]> {
    const reply = await this.read('hvals', [this.calls.queueKeys.shared[4] as string], within)
    return (reply as unknown[]).map(toText)
  }

  async hasWorker(command: string, { within }: CallLimits): Promise<boolean> {
    const [, , workers = ''] = this.calls.command(command).keysFor
    return ((await this.read('hkeys', [workers], within)) as unknown[]).length > 0
  }

  async retry(
    id: string,
    command: string,
    generation: number,
    { within }: CallLimits,
  ): Promise<number | undefined> {
    const reply = await this.job(this.scripts.retry, id, command, [String(generation)], within)
    return Number(toText(reply)) || undefined
  }

  pause(command: string, limits: CallLimits): Promise<void> {
    return this.#halt(this.scripts.pause, command, limits)
  }

  resume(command: string, limits: CallLimits): Promise<void> {
    return this.#halt(this.scripts.resume, command, limits)
  }

  async #halt(script: QueueScripts['pause'], command: string, limits: CallLimits): Promise<void> {
    const commands = command === '' ? await this.#allCommands(limits) : [this.calls.command(command)]
    const name = command === '' ? '' : this.calls.command(command).segment
    await this.calls.call(script, commands, [], [name, command], limits.within)
  }

  async pausedCommands({ within }: CallLimits): Promise<string[]> {
    const members = (
      (await this.read('smembers', [this.calls.queueKeys.shared[5] as string], within)) as unknown[]
    ).map(toText)
    if (members.length === 0) return []
    const real = (await this.read(
      'hmget',
      [this.calls.queueKeys.shared[4] as string, ...members],
      within,
    )) as unknown[]
    return members.map((name, index) => (name === '' ? '' : toText(real[index]) || name))
  }
}
