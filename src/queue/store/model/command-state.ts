import { ReadyList } from './ready-list.ts'

/** How long a worker is known after it last set its capacity, ms. */
const WORKER_TTL = 15 * 60_000

/** What a queue knows of one command: its ready jobs, and the workers that could run them. */
export class CommandState {
  readonly name: string
  readonly ready: ReadyList = new ReadyList()
  /** Free slots, first in, first out: each entry names the worker that has the slot. */
  freeSlots: string[] = []
  /** While true, no slot is taken. */
  paused = false
  /** The workers, each with the capacity that it set last. */
  readonly workers: Map<string, number> = new Map()
  /** When the set of workers expires, ms since the epoch. */
  workersUntil = 0

  constructor(name: string) {
    this.name = name
  }

  get isEmpty(): boolean {
    return this.ready.length === 0 && this.freeSlots.length === 0 && this.workers.size === 0 && !this.paused
  }

  setCapacity(worker: string, count: number, now: number): void {
    this.dropSlots(worker)
    this.sweep(now)
    for (let slot = 0; slot < count; slot++) this.freeSlots.push(worker)
    this.workers.set(worker, count)
    this.workersUntil = now + WORKER_TTL
  }

  /** The workers that are known, in the order in which they became known. */
  knownWorkers(now: number): string[] {
    return this.workersUntil > now ? [...this.workers.keys()] : []
  }

  /** Whether a slot may be taken. */
  get hasFreeSlot(): boolean {
    return !this.paused && this.freeSlots.length > 0
  }

  /** Takes the first free slot: the worker that has it. */
  takeSlot(): string | undefined {
    return this.hasFreeSlot ? this.freeSlots.shift() : undefined
  }

  /** Removes all free slots of a worker. */
  dropSlots(worker: string): void {
    this.freeSlots = this.freeSlots.filter((slot) => slot !== worker)
  }

  forgetWorker(worker: string): void {
    this.dropSlots(worker)
    this.workers.delete(worker)
  }

  sweep(now: number): void {
    if (this.workersUntil <= now) this.workers.clear()
  }
}
