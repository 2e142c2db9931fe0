import type { CensusMember } from '../../kernel/census.ts'
import type { Clock } from '../../kernel/time.ts'
import type { ClientCensusItem } from '../overview/census-items.ts'
import { Holdings } from './holdings.ts'
import { KnownWorkers } from './known-workers.ts'

/** The clients of a gateway: who works, and what they hold. Told in a census. */
export class Clients {
  readonly workers: KnownWorkers
  readonly holdings: Holdings
  readonly #stopContributing: () => void

  constructor(census: CensusMember, clock: Clock, prefix: string) {
    this.workers = new KnownWorkers(clock)
    this.holdings = new Holdings(clock)
    this.#stopContributing = census.contribute('gateway', () => this.#census(prefix))
  }

  *#census(prefix: string): Generator<ClientCensusItem> {
    yield* this.workers.census(prefix)
    yield* this.holdings.census(prefix)
  }

  close(): void {
    this.#stopContributing()
  }
}
