import { Child } from './process.ts'
import type { QueueHandlers } from './queue-child.ts'
import { type ChildQueueOptions, type QueueEntry, WHATS, type What } from './queue-protocol.ts'

const FILE = new URL('./queue-child.ts', import.meta.url)

/** A process with a queue, as its parent sees it. */
export type QueueProcess = Child<QueueHandlers>

/** Processes of their own, each with the queue 'q' by some options; they end with the scope. */
export class QueueProcesses implements AsyncDisposable {
  readonly all: QueueProcess[] = []
  /** What all of them told, also those that were killed. */
  readonly history: QueueEntry[] = []
  #forked = 0

  /** One process for each of the options, started side by side. */
  static async start(...options: ChildQueueOptions[]): Promise<QueueProcesses> {
    const processes = new QueueProcesses()
    await Promise.all(options.map((each) => processes.add(each)))
    return processes
  }

  /** One more. */
  async add(options: ChildQueueOptions): Promise<QueueProcess> {
    const child = await this.fork()
    await child.call('open', 'q', options)
    return child
  }

  /** One more, without a queue yet. */
  async fork(): Promise<QueueProcess> {
    const index = this.#forked
    this.#forked += 1
    const child = await Child.fork<QueueHandlers>(FILE)
    this.all[index] = child
    for (const what of WHATS) child.on(what, (entry) => this.history.push(entry as QueueEntry))
    return child
  }

  /** The process of the options at `index`. */
  at(index: number): QueueProcess {
    const child = this.all[index]
    if (!child) throw new Error(`Expected a process ${index}, there are ${this.all.length}`)
    return child
  }

  /** Notes what was done to a process. */
  note(what: What, { pid }: QueueProcess): void {
    this.history.push({ at: machineNow(), pid, what, job: '' })
  }

  /** What was told so far of this kind, and of this task. */
  entries(what: What, job?: string): QueueEntry[] {
    return this.history.filter((entry) => entry.what === what && (job === undefined || entry.job === job))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.all.map((child) => child.kill()))
  }
}

/** Now, by the clock that the entries of all processes are stamped with, ms. */
export function machineNow(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** The next thing of this kind that the process tells. */
export function told(child: QueueProcess, what: What, job?: string, timeout?: number): Promise<QueueEntry> {
  return child.next<QueueEntry>(what, (entry) => job === undefined || entry.job === job, timeout)
}
