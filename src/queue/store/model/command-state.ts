import { WaitingLine } from './ready-list.ts'

/** A worker is known for so long after it last said what it can take, ms. */
const KEEP_WORKERS = 15 * 60_000

/** What a queue knows of one command: what waits, and who could run it. */
export class CommandBook {
  readonly name: string
  readonly line: WaitingLine = new WaitingLine()
  /** Free places, each as the worker that has it. */
  places: string[] = []
  /** While it is paused, no place is handed out. */
  closed = false
  /** Workers, with how many places each had when it last said so. */
  readonly workers: Map<string, number> = new Map()
  /** Until when they are known. */
  workersUntil = 0

  constructor(name: string) {
    this.name = name
  }

  get idle(): boolean {
    return this.line.length === 0 && this.places.length === 0 && this.workers.size === 0 && !this.closed
  }

  offer(worker: string, count: number, now: number): void {
    this.takeBack(worker)
    this.sweep(now)
    for (let place = 0; place < count; place++) this.places.push(worker)
    this.workers.set(worker, count)
    this.workersUntil = now + KEEP_WORKERS
  }

  /** The workers that are known. */
  workersAt(now: number): string[] {
    return this.workersUntil > now ? [...this.workers.keys()] : []
  }

  /** Whether there is a place that may be handed out. */
  get isFree(): boolean {
    return !this.closed && this.places.length > 0
  }

  /** Such a place. */
  take(): string | undefined {
    return this.isFree ? this.places.shift() : undefined
  }

  /** No place of this worker is free any more. */
  takeBack(worker: string): void {
    this.places = this.places.filter((place) => place !== worker)
  }

  forget(worker: string): void {
    this.takeBack(worker)
    this.workers.delete(worker)
  }

  sweep(now: number): void {
    if (this.workersUntil <= now) this.workers.clear()
  }
}
