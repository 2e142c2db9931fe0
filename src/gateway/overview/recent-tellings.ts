import type { Clock } from '../../kernel/time.ts'
import type { Layer, Tellings } from './census-items.ts'
import { type FactSources, tellingsOf } from './facts.ts'

/** Answers of this age are used again, ms. */
const REUSED_FOR = 1_000

/**
 * What processes have told within the last second. For routes that clients may call often: each question costs every process
 * an answer, so one gateway asks no more than once in a second.
 */
export class RecentTellings {
  readonly prefix: string
  readonly #sources: FactSources
  readonly #clock: Clock
  readonly #recent = new Map<Layer, { readonly at: number; readonly told: Promise<Tellings<Layer>> }>()

  constructor(sources: FactSources, clock: Clock) {
    this.prefix = sources.prefix
    this.#sources = sources
    this.#clock = clock
  }

  /** Never rejects. */
  of<L extends Layer>(layer: L): Promise<Tellings<L>> {
    const now = this.#clock.now()
    const known = this.#recent.get(layer)
    if (known && now - known.at < REUSED_FOR) return known.told as Promise<Tellings<L>>
    const told = tellingsOf(this.#sources, layer)
    this.#recent.set(layer, { at: now, told: told as Promise<Tellings<Layer>> })
    return told
  }
}
