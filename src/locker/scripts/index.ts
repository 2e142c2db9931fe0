import { Script } from '../../kernel/script.ts'
import { CLAIM } from './claim.ts'
import { PROGRESS, RELEASE, RENEW, SETTLE } from './hold.ts'
import { prelude, SERVER_TIME, type TimeFragments } from './prelude.ts'
import { INVALIDATE, SNAPSHOT, UNPARK } from './wait.ts'

/** The transitions of a record, as the server runs them. */
export interface LockerScripts {
  claim: Script
  renew: Script
  progress: Script
  settle: Script
  release: Script
  unpark: Script
  invalidate: Script
  snapshot: Script
}

/** Puts the scripts together around a notion of time. */
export function buildScripts(time: TimeFragments): LockerScripts {
  const build = (body: string) => new Script(prelude(time) + body)
  return {
    claim: build(CLAIM),
    renew: build(RENEW),
    progress: build(PROGRESS),
    settle: build(SETTLE),
    release: build(RELEASE),
    unpark: build(UNPARK),
    invalidate: build(INVALIDATE),
    snapshot: build(SNAPSHOT),
  }
}

/** The scripts on the server's own time. */
export const lockerScripts: LockerScripts = buildScripts(SERVER_TIME)
