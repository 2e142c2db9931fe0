import { hostname } from 'node:os'
import process from 'node:process'
import { reportHookError } from './hooks.ts'
import { digestOf, MESSAGE_LIMIT, newId } from './keys.ts'
import {
  checkOptions,
  durationFrom,
  expectedError,
  integerUpTo,
  type OptionTable,
  REQUIRED,
} from './options.ts'
import { systemClock, wallMicros } from './time.ts'

// The census: a question about one layer, which all live processes answer with what that layer of theirs contributes. While
// nobody asks it costs nothing: a contributor is called for an answer alone.

/** What is asked. */
export interface CensusQuestion {
  /** The layer that answers. */
  readonly layer: string
  /** What it is asked about, as that layer defines: one key, one name. Undefined: everything. */
  readonly filter: string | undefined
}

/** Yields what a layer of this process has: objects of plain JSON data. Must not wait, and stops when nothing more is taken. */
export type Contributor = (question: CensusQuestion) => Iterable<object>

export interface CensusOptions {
  /** One layer; or several, separated by blanks: then the items are {@link LayerItem}s, those of the first layer first. */
  layer: string
  filter?: string | undefined
  /** Time for the question and the answers, ms. @default 1_000 */
  within?: number | undefined
  /** Most items of all answers together, up to 100_000. @default 10_000 */
  maxItems?: number | undefined
}

/** An item of a question about several layers. */
export interface LayerItem<Item = Record<string, unknown>> {
  readonly layer: string
  readonly item: Item
}

/** A process that answers: one for each Connection, or for each in-memory store. */
export interface ProcessIdentity {
  /** Names it for as long as it lives. Nothing can be sent by it. */
  readonly process: string
  readonly host: string
  readonly pid: number
  /** When this library was loaded there, by the wall clock of that host: ms since the epoch. */
  readonly since: number
}

/** What one process has answered. */
export interface CensusAnswer<Item = Record<string, unknown>> extends ProcessIdentity {
  /** As the process sent them: anybody who can read the channels and publish on them can forge an answer. */
  readonly items: readonly Item[]
  /** False when items are missing: they are too many or too large, did not arrive in time, or their layer threw. */
  readonly complete: boolean
}

/** What all processes have answered. */
export interface CensusResult<Item = Record<string, unknown>> {
  readonly answers: readonly CensusAnswer<Item>[]
  /**
   * Whether each process that is known to have heard the question has answered, and completely. A process without a
   * subscription at that moment does not hear it.
   */
  readonly complete: boolean
  /** Subscribers that heard the question and did not answer. Undefined on a Cluster, which does not tell how many heard it. */
  readonly silent: number | undefined
}

/** Asks and answers: a Connection with all processes, an in-memory store with itself. */
export interface CensusMember {
  /** Adds what a layer answers. The returned function removes it. */
  contribute(layer: string, contributor: Contributor): () => void
  /** Asks all live processes. @throws UnavailableError, OverloadedError, ClosedError if the question cannot be sent in time */
  census<Item = Record<string, unknown>>(options: CensusOptions): Promise<CensusResult<Item>>
}

export const MAX_CENSUS_ITEMS = 100_000

const checkText = (name: string, value: unknown): void => {
  if (typeof value !== 'string') throw expectedError(name, 'a string', value)
}

const CENSUS_OPTIONS: OptionTable<CensusOptions> = {
  layer: [checkText, REQUIRED],
  filter: [checkText],
  within: [durationFrom(1)],
  maxItems: [integerUpTo(MAX_CENSUS_ITEMS)],
}

/** Checks the options of a census and fills in the defaults. @throws TypeError */
export function resolveCensusOptions(
  options: CensusOptions,
): CensusQuestion & { readonly within: number; readonly maxItems: number } {
  checkOptions(options, CENSUS_OPTIONS, 'census')
  const { layer, filter, within = 1_000, maxItems = 10_000 } = options
  return { layer, filter, within, maxItems }
}

/** Pages of one answer, at most: 2 MiB. */
export const MAX_CENSUS_PAGES = 32

/** Room in each page for what is not an item, bytes. */
const PAGE_OVERHEAD = 1024

/** When the library was loaded, ms since the epoch. */
const LOADED_AT = Math.floor(wallMicros(systemClock.now()) / 1000)

/** Length of the name of a process. */
export const PROCESS_NAME_LENGTH = 16

/** This process, as it is named in answers. `inbox`: the id of its inbox, which cannot be read off the name. */
export function processIdentity(inbox: string): ProcessIdentity {
  return {
    process: digestOf(inbox).slice(0, PROCESS_NAME_LENGTH),
    host: hostname().slice(0, 48),
    pid: process.pid,
    since: LOADED_AT,
  }
}

/** Items as JSON, in pages that fit into messages. */
export interface Contribution {
  /** One page at least. */
  readonly pages: readonly (readonly string[])[]
  /** Whether these are all items. */
  readonly complete: boolean
}

/** Fills the pages of an answer. */
class Pages {
  readonly pages: string[][] = [[]]
  readonly #maxItems: number
  #items = 0
  /** Bytes of the last page. */
  #bytes = PAGE_OVERHEAD

  constructor(maxItems: number) {
    this.#maxItems = maxItems
  }

  /** Adds an item. Returns 'full' if nothing more can be added, 'too-large' if no page can hold it. */
  add(item: string): 'added' | 'full' | 'too-large' {
    // A comma stands between two items.
    const bytes = Buffer.byteLength(item) + 1
    if (PAGE_OVERHEAD + bytes > MESSAGE_LIMIT) return 'too-large'
    if (this.#items >= this.#maxItems) return 'full'
    if (this.#bytes + bytes > MESSAGE_LIMIT) {
      if (this.pages.length === MAX_CENSUS_PAGES) return 'full'
      this.pages.push([])
      this.#bytes = PAGE_OVERHEAD
    }
    this.pages.at(-1)?.push(item)
    this.#bytes += bytes
    this.#items++
    return 'added'
  }
}

/** The contributors of a process, by layer. */
export class Contributors {
  readonly #byLayer = new Map<string, Set<Contributor>>()

  /** Adds a contributor. The returned function removes it. */
  add(layer: string, contributor: Contributor): () => void {
    const known = this.#byLayer.get(layer) ?? new Set()
    this.#byLayer.set(layer, known.add(contributor))
    return () => {
      if (known.delete(contributor) && known.size === 0) this.#byLayer.delete(layer)
    }
  }

  /** What the layers have now. A contributor that throws is left out from there on, and told of as a hook that threw. */
  gather({ layer: names, filter }: CensusQuestion, maxItems: number): Contribution {
    const target = new Pages(maxItems)
    const layers = names.split(' ')
    let complete = true
    for (const layer of layers) {
      for (const contributor of this.#byLayer.get(layer) ?? []) {
        try {
          for (const item of contributor({ layer, filter })) {
            const added = target.add(JSON.stringify(layers.length > 1 ? { layer, item } : item))
            if (added === 'full') return { pages: target.pages, complete: false }
            if (added === 'too-large') complete = false
          }
        } catch (error) {
          complete = false
          reportHookError(`census of ${layer}`, error)
        }
      }
    }
    return { pages: target.pages, complete }
  }
}

/** The census of an in-memory store: one process, which answers itself. */
export class LocalCensus implements CensusMember {
  readonly #contributors = new Contributors()
  /** Stands for the inbox of a connection. */
  readonly #inbox: string = newId()

  contribute(layer: string, contributor: Contributor): () => void {
    return this.#contributors.add(layer, contributor)
  }

  async census<Item>(options: CensusOptions): Promise<CensusResult<Item>> {
    const { maxItems, ...question } = resolveCensusOptions(options)
    const { pages, complete } = this.#contributors.gather(question, maxItems)
    const items = pages.flat().map((text) => JSON.parse(text) as Item)
    return { answers: [{ ...processIdentity(this.#inbox), items, complete }], complete, silent: 0 }
  }
}
