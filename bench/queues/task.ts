import { setTimeout as sleep } from 'node:timers/promises'
import { emit } from '../../test/support/process-child.ts'
import { now } from '../statistics.ts'
import { type Payload, sumOf } from './payload.ts'

/** Tells the parent that a job began. */
export interface Started {
  n: number
  /** On the clock that all processes share. */
  at: number
}

/** What jobs do in this process, and what they tell of themselves. */
export class Task {
  /** How often one ran. */
  runs = 0
  /** Sleeps so long, ms. */
  sleeps = 0
  // Jobs tell that they began, and end when it opens.
  #gate: Promise<void> | undefined
  #openGate = () => {}

  /** Nothing is awaited that need not be: a job costs what its queue costs. */
  run(payload: Payload): number | Promise<number> {
    this.runs++
    if (this.sleeps === 0 && !this.#gate) return sumOf(payload)
    return this.#runSlowly(payload)
  }

  shutGate(): void {
    this.#gate = new Promise((resolve) => {
      this.#openGate = resolve
    })
  }

  openGate(): void {
    this.#openGate()
  }

  async #runSlowly(payload: Payload): Promise<number> {
    const started: Started = { n: payload.n, at: now() }
    if (this.#gate) emit('started', started)
    await sleep(this.sleeps)
    await this.#gate
    return sumOf(payload)
  }
}
