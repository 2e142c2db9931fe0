import { systemClock, wallMicros } from '../../kernel/time.ts'
import type { Answers } from './census-items.ts'
import { type KeyState, keyView } from './key-views.ts'
import type { Overview, QueueView, StoreView, WorkerView } from './overview.ts'
import { queueView } from './queue-views.ts'
import { listedServiceViews, serviceViews } from './service-views.ts'
import { keysOf, loadsOf, type OverviewSources } from './sources.ts'
import { workerViews } from './worker-views.ts'

/** Most entries of each list. */
export const MAX_QUEUES = 200
export const MAX_KEYS = 500
export const MAX_WORKERS = 500
const MAX_SERVICES = 500

/** Oldest answers of processes that an overview is made from, ms. */
const ANSWERS_AGE = 400

type Lists = Pick<Overview, 'queues' | 'queueCount' | 'workers' | 'keys' | 'services' | 'complete'>

const NOTHING: Lists = { queues: [], queueCount: 0, workers: [], keys: [], services: [], complete: false }

/** Reads an overview: the queues from the store, all else from the processes. Costs nothing unless it is asked. */
export class OverviewReader {
  readonly #sources: OverviewSources
  readonly #kind: StoreView['kind']
  #lists = NOTHING
  #store: Omit<StoreView, 'kind'> = { reachable: true, since: nowMs() / 1000 }

  constructor(sources: OverviewSources, kind: StoreView['kind']) {
    this.#sources = sources
    this.#kind = kind
  }

  /** Never rejects. While the store is away, the lists are those that were read last. */
  async read(): Promise<Overview> {
    const [listed, answers] = await Promise.all([
      this.#sources.queues.listed(MAX_QUEUES).catch(() => undefined),
      this.#sources.answers.notOlderThan(ANSWERS_AGE),
    ])
    const isReachable = listed !== undefined
    if (isReachable !== this.#store.reachable) this.#store = { reachable: isReachable, since: nowMs() / 1000 }
    if (listed) this.#lists = await this.#read(listed, answers)
    return { at: nowMs() / 1000, store: { kind: this.#kind, ...this.#store }, ...this.#lists }
  }

  async #read(
    { names, count }: { names: readonly string[]; count: number },
    answers: Answers,
  ): Promise<Lists> {
    const sources = this.#sources
    const { prefix } = sources
    const [loads, keys, listed] = await Promise.all([
      loadsOf(sources.queues, names),
      keysOf(sources, answers),
      sources.services?.list().catch(() => undefined),
    ])
    const at = nowMs()
    const workers = workerViews(answers, prefix, at).sort(byQueue)
    const { complete } = answers
    const before = new Map(this.#lists.queues.map((view) => [view.name, view]))
    const queues = loads.flatMap(({ name, load }): QueueView[] => {
      const view = load ? queueView({ name, load, workers, complete, at }) : before.get(name)
      return view ? [view] : []
    })
    keys.sort(byWait)
    const isListed = !sources.services || listed !== undefined
    const services = sources.services ? listedServiceViews(listed ?? []) : serviceViews(answers, prefix)
    const isWhole =
      isListed &&
      loads.every(({ load }) => load !== undefined) &&
      count <= names.length &&
      workers.length <= MAX_WORKERS &&
      keys.length <= MAX_KEYS &&
      services.length <= MAX_SERVICES
    return {
      ...{ queues, queueCount: count },
      workers: workers.slice(0, MAX_WORKERS),
      keys: keys.slice(0, MAX_KEYS).map(keyView),
      services: services.slice(0, MAX_SERVICES),
      complete: complete && isWhole,
    }
  }
}

function nowMs(): number {
  return Math.floor(wallMicros(systemClock.now()) / 1000)
}

/** By queue and command, so that a list that is shown keeps its order. */
function byQueue(one: WorkerView, other: WorkerView): number {
  return compare(one.queue, other.queue) || compare(one.command, other.command) || compare(one.id, other.id)
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0
}

/** Those that most callers wait for come first, then those that are held longest. */
function byWait(one: KeyState, other: KeyState): number {
  const waiters = ({ waiting }: KeyState) => waiting.reduce((sum, each) => sum + each.waiters, 0)
  return waiters(other) - waiters(one) || other.age - one.age || compare(one.record, other.record)
}
