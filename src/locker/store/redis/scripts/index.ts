import { Script } from '../../../../kernel/redis/script.ts'
import { CLAIM } from './claim.ts'
import { ABANDON, PROGRESS, RELEASE, RENEW, SETTLE } from './hold.ts'
import { helpers, SERVER_TIME, type TimeFragments } from './prelude.ts'
import { EPOCHS, INVALIDATE_TAG } from './tags.ts'
import { FIND, INVALIDATE, SNAPSHOT, UNPARK } from './wait.ts'

/** The transitions of records and tags, as the server runs them. */
export interface LockerScripts {
  claim: Script
  renew: Script
  progress: Script
  settle: Script
  release: Script
  abandon: Script
  unpark: Script
  invalidate: Script
  snapshot: Script
  find: Script
  epochs: Script
  invalidateTag: Script
}

/** Puts the scripts together around a notion of time. */
export function buildScripts(time: TimeFragments): LockerScripts {
  const build = (body: string) => new Script(time.clock + helpers(time) + body)
  return {
    claim: build(CLAIM),
    renew: build(RENEW),
    progress: build(PROGRESS),
    settle: build(SETTLE),
    release: build(RELEASE),
    abandon: build(ABANDON),
    unpark: build(UNPARK),
    invalidate: build(INVALIDATE),
    snapshot: build(SNAPSHOT),
    find: new Script(FIND),
    epochs: build(EPOCHS),
    invalidateTag: build(INVALIDATE_TAG),
  }
}

/** The scripts on the server's own time. */
export const lockerScripts: LockerScripts = buildScripts(SERVER_TIME)
