import { OverloadedError } from '../../errors.ts'

/** Most scans of a gateway that read at once: each holds some megabytes of payloads. */
const AT_ONCE = 4

/** Most scans of a gateway that wait for their turn. */
const MAX_WAITING = 100

/** The scans of one gateway: few read at once, and the others take turns. */
export class Scans {
  #running = 0
  readonly #waiting: (() => void)[] = []

  /** Runs a scan when it is its turn. @throws OverloadedError if too many wait */
  async run<T>(scan: () => Promise<T>): Promise<T> {
    if (this.#running < AT_ONCE) this.#running++
    else await this.#turn()
    try {
      return await scan()
    } finally {
      this.#leave()
    }
  }

  /** Resolves with the slot of a scan that has ended. */
  #turn(): Promise<void> {
    if (this.#waiting.length >= MAX_WAITING) throw new OverloadedError('Too many searches are under way')
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #leave(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#running--
  }
}
