import { Script } from '../../kernel/script.ts'
import { CLAIM, SERVE } from './claim.ts'
import { PROGRESS, RELEASE, RENEW, SETTLE } from './hold.ts'
import { helpers, SERVER_TIME, type TimeFragments } from './prelude.ts'
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
  const build = (body: string) => new Script(time.clock + helpers(time) + body)
  return {
    claim: new Script(time.clock + SERVE + helpers(time) + CLAIM),
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
