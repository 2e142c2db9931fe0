import type { Script } from '../../../kernel/redis/call.ts'
import { MAX_LOAD_COMMANDS, MAX_LOAD_JOBS, type QueueLoad } from '../load.ts'
import type {
  Counts,
  DueJob,
  DueJobs,
  DueResult,
  JobSnapshot,
  JobState,
  StallPolicy,
  Termination,
} from '../store.ts'
import type { QueueTotals } from '../totals.ts'
import type { CommandKeys, QueueCalls } from './queue-calls.ts'
import type { QueueRegister } from './queue-register.ts'
import { parseCounts, parseLoad, parseSnapshot, parseTotals, TOTAL_FIELDS, toText } from './wire.ts'

/** Due jobs that are processed together. */
const MAX_DUE_JOBS = 32

/** By the script's reply. */
const DUE_STATUSES = ['none', 'promoted', 'stalled', 'failed'] as const

/** The part of the store that processes due jobs, inspects a queue and manages its jobs. */
export abstract class RedisQueueManagement {
  protected readonly calls: QueueCalls
  readonly #drainStep: string
  readonly #messageLimit: string
  readonly #register: QueueRegister
  readonly #queue: string

  /** `drainStep`: jobs that one call of `drain` removes at most. A script blocks the server, so it must be short. */
  constructor(
    calls: QueueCalls,
    queue: string,
    register: QueueRegister,
    drainStep: number,
    messageLimit: string,
  ) {
    this.calls = calls
    this.#drainStep = String(drainStep)
    this.#messageLimit = messageLimit
    this.#queue = queue
    this.#register = register
  }

  async findDue(within: number): Promise<DueJobs> {
    const { keys, serverClock } = this.calls
    const args = [keys.deadlines, '0', String(MAX_DUE_JOBS - 1), 'WITHSCORES']
    const reply = await this.calls.read('zrange', args, within)
    const flat = (reply as unknown[]).flat().map(toText)
    const jobs: DueJob[] = []
    for (let at = 0; at < flat.length; at += 2) {
      const [id, command] = (flat[at] ?? '').split(' ')
      // The server compares whole milliseconds, so a job is due one millisecond later.
      const remaining = serverClock.remaining(Number(flat[at + 1]) + 1)
      if (remaining > 0) return { jobs, nextIn: remaining }
      if (id !== undefined && command !== undefined) jobs.push({ id, command })
    }
    return { jobs, nextIn: undefined }
  }

  async processDue(jobs: DueJob[], policy: StallPolicy, within: number): Promise<DueResult[]> {
    const { maxStalls, failure, errorTtl, outcomeRetention, retain } = policy
    const segments = [...new Set(jobs.map((job) => job.command))]
    const commands = segments.map((segment) => this.calls.commandOfSegment(segment))
    const keys = jobs.map((job) => this.calls.keys.job(job.id))
    const args = [String(maxStalls), failure]
    args.push(...[errorTtl, outcomeRetention, retain.count, retain.age].map(String), this.#messageLimit)
    for (const job of jobs) args.push(String(segments.indexOf(job.command) + 1))
    const sentAt = this.calls.connection.clock.now()
    const reply = await this.calls.call(this.calls.scripts.processDue, commands, keys, args, within)
    const values = reply as unknown[]
    this.calls.serverClock.update(Number(values[jobs.length]), sentAt)
    return jobs.map(({ id, command }, index) => {
      return { id, command, status: DUE_STATUSES[Number(values[index])] ?? 'none' }
    })
  }

  async readLog(id: string, within: number): Promise<string[]> {
    const reply = await this.calls.read('lrange', [this.calls.keys.log(id), '0', '-1'], within)
    return (reply as unknown[]).map(toText)
  }

  async snapshot(id: string, within: number): Promise<JobSnapshot | undefined> {
    const reply = await this.calls.callJob(this.calls.scripts.snapshot, id, undefined, [], within)
    return parseSnapshot(id, reply)
  }

  async list(state: JobState, from: number, limit: number, within: number): Promise<string[]> {
    const commands = state === 'waiting' ? await this.#allCommands(within) : []
    const args = [state, String(from), String(limit)]
    const reply = await this.calls.call(this.calls.scripts.list, commands, [], args, within)
    return (reply as unknown[]).map(toText)
  }

  async counts(within: number): Promise<Counts> {
    const commands = await this.#allCommands(within)
    const reply = await this.calls.call(this.calls.scripts.counts, commands, [], [], within)
    return parseCounts(reply)
  }

  async drain(state: 'waiting' | 'delayed', outcomeRetention: number, within: number): Promise<number> {
    const commands = await this.#allCommands(within)
    const args = [state, this.#drainStep, String(outcomeRetention)]
    let removed = 0
    for (;;) {
      const reply = await this.calls.call(this.calls.scripts.drain, commands, [], args, within)
      const [count, more] = (reply as unknown[]).map(Number) as [number, number]
      removed += count
      if (more === 0) return removed
    }
  }

  async totals(within: number): Promise<QueueTotals> {
    return parseTotals(await this.calls.read('hmget', [this.calls.keys.totals, ...TOTAL_FIELDS], within))
  }

  async load(within: number): Promise<QueueLoad> {
    const args = [String(MAX_LOAD_COMMANDS), String(MAX_LOAD_JOBS), ...TOTAL_FIELDS]
    return parseLoad(await this.calls.call(this.calls.scripts.load, [], [], args, within))
  }

  async resetTotals(within: number): Promise<void> {
    const { connection, keys, scripts } = this.calls
    await connection.call(scripts.resetTotals.with([keys.totals], TOTAL_FIELDS), within)
  }

  async countFailure(within: number): Promise<void> {
    const { connection, keys, scripts } = this.calls
    await connection.call(scripts.countFailure.with([keys.totals], []), within)
  }

  joinRegister(within: number): Promise<void> {
    return this.#register.add(this.#queue, within)
  }

  leaveRegister(within: number): Promise<void> {
    return this.#register.remove(this.#queue, within)
  }

  async #allCommands(within: number): Promise<CommandKeys[]> {
    const segments = await this.calls.read('hkeys', [this.calls.keys.commands], within)
    return (segments as unknown[]).map((segment) => this.calls.commandOfSegment(toText(segment)))
  }

  async commands(within: number): Promise<string[]> {
    const names = await this.calls.read('hvals', [this.calls.keys.commands], within)
    return (names as unknown[]).map(toText)
  }

  async hasWorker(command: string, within: number): Promise<boolean> {
    const [, , workers = ''] = this.calls.command(command).keys
    return ((await this.calls.read('hkeys', [workers], within)) as unknown[]).length > 0
  }

  async unpark(nonce: string, termination: Termination, within: number): Promise<void> {
    await this.#terminate(this.calls.connection.inbox.id + nonce, termination, within)
  }

  terminate(termination: Termination, within: number): Promise<boolean> {
    return this.#terminate('', termination, within)
  }

  async #terminate(park: string, termination: Termination, within: number): Promise<boolean> {
    const { id, command, kind, bytes, outcomeRetention, when } = termination
    const args = [park, kind === 'error' ? 'e' : 'x', bytes, String(outcomeRetention)]
    args.push(when, this.#messageLimit)
    const reply = await this.calls.callJob(this.calls.scripts.terminate, id, command, args, within)
    return Number(reply) === 1
  }

  async retry(id: string, command: string, generation: number, within: number): Promise<number | undefined> {
    const { scripts } = this.calls
    const reply = await this.calls.callJob(scripts.retry, id, command, [String(generation)], within)
    return Number(toText(reply)) || undefined
  }

  pause(command: string, within: number): Promise<void> {
    return this.#setPaused(this.calls.scripts.pause, command, within)
  }

  resume(command: string, within: number): Promise<void> {
    return this.#setPaused(this.calls.scripts.resume, command, within)
  }

  async #setPaused(script: Script, command: string, within: number): Promise<void> {
    const commands = command === '' ? await this.#allCommands(within) : [this.calls.command(command)]
    const segment = command === '' ? '' : this.calls.command(command).segment
    await this.calls.call(script, commands, [], [segment, command], within)
  }

  async pausedCommands(within: number): Promise<string[]> {
    const { keys } = this.calls
    const segments = ((await this.calls.read('smembers', [keys.paused], within)) as unknown[]).map(toText)
    if (segments.length === 0) return []
    const names = (await this.calls.read('hmget', [keys.commands, ...segments], within)) as unknown[]
    return segments.map((segment, index) => (segment === '' ? '' : toText(names[index]) || segment))
  }
}
