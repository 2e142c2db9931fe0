import assert from 'node:assert/strict'
import { RedisQueue, type ResultOptions } from '../../src/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { type QueueProcess, QueueProcesses, told } from './queue-process.ts'
import type { ChildQueueOptions, QueueEntry, Task } from './queue-protocol.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

const names = new QueueKeys('soloflight', 'q')

/** Where the free places of workers stand. */
export const IDLE = names.command('work')[1] as string

/** A server, processes with the queue 'q' there, and this process's own view of it. */
export class QueueScene implements AsyncDisposable {
  readonly t: Setup
  readonly processes: QueueProcesses
  readonly queue: RedisQueue

  private constructor(t: Setup, processes: QueueProcesses, queue: RedisQueue) {
    this.t = t
    this.processes = processes
    this.queue = queue
  }

  /** Processes by these options, started side by side, and with idle workers in this order. */
  static async start(
    lease: number,
    ...options: Omit<ChildQueueOptions, 'redis' | 'lease'>[]
  ): Promise<QueueScene> {
    const t = await setup()
    const processes = await QueueProcesses.start()
    const queue = new RedisQueue('q', { redis: t.redis, lease })
    const scene = new QueueScene(t, processes, queue)
    const started = await Promise.all(options.map(() => processes.fork()))
    let places = 0
    for (const [index, each] of options.entries()) {
      await started[index]?.call('open', 'q', { redis: t.redis, lease, ...each })
      places += each.concurrency ?? 0
      await scene.idle(places)
    }
    return scene
  }

  at(index: number): QueueProcess {
    return this.processes.at(index)
  }

  /** Resolves when so many places of workers are free. (An offer that crosses a delivery may leave one more.) */
  async idle(places: number): Promise<void> {
    const free = async () => Number(await this.t.server.call('LLEN', IDLE)) >= places
    await until(free, { what: `${places} free places` })
  }

  /** ms that are left of the lease of a job; undefined when it has none. */
  async leaseLeft(id: string): Promise<number | undefined> {
    const score = await this.t.server.call('ZSCORE', names.shared[0] as string, `${id} work`)
    const [seconds, us] = (await this.t.server.call('TIME')) as [string, string]
    return score === null ? undefined : Number(score) - Number(seconds) * 1000 - Number(us) / 1000
  }

  /** A task that runs in the process, until it is finished there. Who else has it will be told by the history. */
  async runningIn(
    child: QueueProcess,
    task: Task,
    options: ResultOptions = {},
  ): Promise<{ id: string; result: Promise<unknown>; begun: QueueEntry }> {
    const job = await this.queue.enqueue('work', task)
    const result = job.result(options)
    result.catch(() => {})
    return { id: job.id, result, begun: await told(child, 'begun', task.name) }
  }

  /** Exactly one outcome of a task was accepted, under the last fence: this one. */
  acceptedOnce(job: string): QueueEntry {
    const finals = this.processes.entries('accepted', job).filter(({ kind }) => kind !== 'retry')
    assert.equal(finals.length, 1, `outcomes of ${job}: ${JSON.stringify(finals)}`)
    const fences = this.processes.entries('begun', job).map(({ fence }) => fence ?? 0)
    const [accepted] = finals as [QueueEntry]
    assert.equal(accepted.fence, Math.max(...fences), `the fences of ${job} were ${fences}`)
    return accepted
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.processes[Symbol.asyncDispose]()
    await this.queue.close({ grace: 0 })
    await this.t[Symbol.asyncDispose]()
  }
}
