import type { Locker, Peek } from '../../locker/index.ts'
import { leaseOf } from '../../locker/internal.ts'
import type { QueueLoad } from '../../queue/internal.ts'
import type { Services } from '../../services/index.ts'
import type { Queues } from '../queues.ts'
import type { Answers } from './census-items.ts'
import { addStored, type KeyState, keyStates } from './key-views.ts'
import type { RecentAnswers } from './recent-answers.ts'

/** What an overview is made from. */
export interface OverviewSources {
  readonly queues: Queues
  readonly locker: Locker
  readonly answers: RecentAnswers
  /** Services that the gateway was given, which may be elsewhere. Undefined: processes answer for theirs. */
  readonly services: Services | undefined
  readonly prefix: string
}

/** How long the store may take to answer, ms. */
const WITHIN = 800

/** Queues that are read at once. */
const AT_ONCE = 50

/** Keys without a holder whose record is read. */
const MAX_READ = 50

/** What each queue has to do; undefined if it cannot be read. */
export async function loadsOf(
  queues: Queues,
  names: readonly string[],
): Promise<{ name: string; load: QueueLoad | undefined }[]> {
  const loads: { name: string; load: QueueLoad | undefined }[] = []
  for (let at = 0; at < names.length; at += AT_ONCE) {
    const read = names.slice(at, at + AT_ONCE).map(async (name) => {
      const load = await queues.use(name, (queue) => queue.load(WITHIN)).catch(() => undefined)
      return { name, load }
    })
    loads.push(...(await Promise.all(read)))
  }
  return loads
}

/** The keys that are held or awaited. The store is asked who holds those of which no process says so. */
export async function keysOf({ locker, prefix }: OverviewSources, answers: Answers): Promise<KeyState[]> {
  const keys = keyStates(answers, prefix)
  const unheld = keys.filter(({ holder }) => holder.kind === 'none').slice(0, MAX_READ)
  await Promise.all(
    unheld.map(async (state) => {
      const lock: Peek['lock'] = await leaseOf(locker, state.record, WITHIN).catch(() => undefined)
      addStored(state, lock)
    }),
  )
  return keys
}
