import type { CensusMember } from '../../kernel/census.ts'
import type { Clock } from '../../kernel/time.ts'
import type { AccessToken } from '../options.ts'
import type { ClientCensusItem } from '../overview/census-items.ts'
import { Holdings } from './holdings.ts'
import { KnownWorkers } from './known-workers.ts'
import { WantedCommands } from './wanted-commands.ts'

/** The clients of a gateway: who works, and what they hold. Told in a census. */
export class Clients {
  readonly workers: KnownWorkers
  readonly holdings: Holdings
  readonly commands: WantedCommands
  readonly #stopContributing: () => void

  constructor(
    census: CensusMember,
    clock: Clock,
    prefix: string,
    tokens: readonly AccessToken[] | undefined,
  ) {
    this.commands = new WantedCommands(tokens)
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
