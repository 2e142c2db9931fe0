import type { PushFigures } from './figures.ts'
import { type PushWorkerOptions, resolvePushWorkerOptions } from './options.ts'
import { PushWorker, type PushWorkerDeps } from './push-worker.ts'

/** The push workers of a gateway. */
export class PushWorkers {
  readonly #workers: PushWorker[] = []

  /** `pushes`: checked options. @throws TypeError as {@link PushWorker}; no worker is left then. */
  constructor(pushes: readonly PushWorkerOptions[], deps: PushWorkerDeps) {
    try {
      for (const push of pushes) this.#workers.push(new PushWorker(resolvePushWorkerOptions(push), deps))
    } catch (error) {
      void this.close(0)
      throw error
    }
  }

  get figures(): PushFigures[] {
    return this.#workers.map(({ figures }) => figures)
  }

  /** Takes no more jobs, and lets requests run for `grace` ms: see {@link PushWorker.close}. Never rejects. */
  async close(grace: number): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.close(grace)))
  }
}
