import type { CensusMember } from '../../kernel/census.ts'
import { recordKey } from '../../kernel/keys.ts'
import type { Locker, Peek } from '../../locker/index.ts'
import { leaseOf } from '../../locker/internal.ts'
import type { QueueLoad } from '../../queue/internal.ts'
import type { Queues } from '../queues.ts'
import { askAll, type Layer, type Tellings } from './census-items.ts'
import { addStored, type KeyFacts, keyFacts, keyView } from './key-views.ts'
import type { KeyView } from './overview.ts'

/** Where the layers of a gateway answer: on Redis one connection for all, embedded the store of each. */
export type CensusPlaces = Readonly<Record<Exclude<Layer, 'gateway'>, CensusMember>>

/** What facts are read from. */
export interface FactSources {
  readonly queues: Queues
  readonly locker: Locker
  readonly census: CensusPlaces
  readonly prefix: string
}

/** How long processes have to answer, and the store, ms. */
export const WITHIN = 800

/** Queues that are read at once. */
const AT_ONCE = 50

/** Keys without a holder whose record is read. */
const MAX_READ = 50

const SILENCE = { told: [], complete: false }

/** What processes tell of a layer; nothing if they cannot be asked. `filter`: see the layer. */
export async function tellingsOf<L extends Layer>(
  { census }: Pick<FactSources, 'census'>,
  layer: L,
  filter?: string,
): Promise<Tellings<L>> {
  const member = layer === 'gateway' ? census.queue : census[layer as Exclude<Layer, 'gateway'>]
  return askAll(member, layer, { filter, within: WITHIN }).catch(() => SILENCE)
}

/** What each queue has to do. One that cannot be read is left out. */
export async function loadsOf(
  queues: Queues,
  names: readonly string[],
): Promise<{ name: string; load: QueueLoad | undefined }[]> {
  const loads: { name: string; load: QueueLoad | undefined }[] = []
  for (let at = 0; at < names.length; at += AT_ONCE) {
    const some = names.slice(at, at + AT_ONCE)
    const read = some.map(async (name) => {
      const load = await queues.use(name, (queue) => queue.load(WITHIN)).catch(() => undefined)
      return { name, load }
    })
    loads.push(...(await Promise.all(read)))
  }
  return loads
}

/** The keys that are held or awaited; `key`: this one alone. `complete`: whether every process has told its own. */
export async function keysOf(
  sources: FactSources,
  clients: Tellings<'gateway'>,
  key?: string,
): Promise<{ keys: KeyFacts[]; complete: boolean }> {
  const { locker, prefix } = sources
  const told = await tellingsOf(sources, 'locker', key)
  const record = key === undefined ? undefined : recordKey(prefix, key)
  const found = keyFacts(told, clients, prefix)
  const keys = found.filter((facts) => record === undefined || facts.record === record)
  const unheld = keys.filter(({ holder }) => holder.kind === 'none').slice(0, MAX_READ)
  await Promise.all(
    unheld.map(async (facts) => {
      const lock = await leaseOf(locker, facts.record, WITHIN).catch(() => undefined)
      addStored(facts, lock)
    }),
  )
  return { keys, complete: told.complete && clients.complete }
}

/** One key that is held or awaited, if it is. `lock`: what the store has of it, which decides who holds it. */
export async function keyViewOf(
  sources: FactSources,
  key: string,
  lock: Peek['lock'],
): Promise<KeyView | undefined> {
  const clients = await tellingsOf(sources, 'gateway')
  const isHeld = ({ item }: Tellings<'gateway'>['told'][number]) =>
    item.kind === 'key' && item.fence === lock?.fence
  const { keys } = await keysOf(sources, { ...clients, told: clients.told.filter(isHeld) }, key)
  return keys[0] && keyView(keys[0])
}
