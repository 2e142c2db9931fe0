import type { ChildLockerOptions, Entry, LockerHandlers } from './locker-child.ts'
import { Child } from './process.ts'

const FILE = new URL('./locker-child.ts', import.meta.url)

/** A process with a Locker, as its parent sees it. */
export type LockerProcess = Child<LockerHandlers>

/** Processes of their own, each with a Locker by these options; they end with the scope. */
export class LockerProcesses implements AsyncDisposable {
  readonly all: readonly LockerProcess[]

  private constructor(all: readonly LockerProcess[]) {
    this.all = all
  }

  /** One process for each of the options, started side by side. */
  static async start(...options: ChildLockerOptions[]): Promise<LockerProcesses> {
    const all = await Promise.all(options.map(() => Child.fork<LockerHandlers>(FILE)))
    await Promise.all(all.map((child, index) => child.call('open', options[index] as ChildLockerOptions)))
    return new LockerProcesses(all)
  }

  /** The process of the options at `index`. */
  at(index: number): LockerProcess {
    const child = this.all[index]
    if (!child) throw new Error(`Expected a process ${index}, there are ${this.all.length}`)
    return child
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
export function told(child: LockerProcess, what: Entry['what'], key?: string): Promise<Entry> {
  return child.next<Entry>(what, (entry) => key === undefined || entry.key === key)
}
