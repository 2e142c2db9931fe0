import { Script } from '../../../../kernel/redis/call.ts'
import { CLAIM, UNPARK } from './claim.ts'
import { INVALIDATE, INVALIDATE_TAG } from './invalidate.ts'
import { PROGRESS, RELEASE, RELEASE_IF_UNWANTED, RENEW, SETTLE } from './lease.ts'
import { helpers, SERVER_TIME, type TimeFragments } from './prelude.ts'
import { SNAPSHOT, TAG_VERSIONS, VALUE } from './read.ts'

/** The transitions of records and tags, as the server runs them. */
export interface LockerScripts {
  claim: Script
  renew: Script
  progress: Script
  settle: Script
  release: Script
  releaseIfUnwanted: Script
  unpark: Script
  invalidate: Script
  snapshot: Script
  value: Script
  tagVersions: Script
  invalidateTag: Script
}

/** Builds the scripts around a clock. */
export function buildScripts(time: TimeFragments): LockerScripts {
  const build = (body: string) => new Script(time.clock + helpers(time) + body)
  return {
    claim: build(CLAIM),
    renew: build(RENEW),
    progress: build(PROGRESS),
    settle: build(SETTLE),
    release: build(RELEASE),
    releaseIfUnwanted: build(RELEASE_IF_UNWANTED),
    unpark: build(UNPARK),
    invalidate: build(INVALIDATE),
    snapshot: build(SNAPSHOT),
    value: new Script(VALUE),
    tagVersions: build(TAG_VERSIONS),
    invalidateTag: build(INVALIDATE_TAG),
  }
}

/** The scripts on the server's own clock. */
export const lockerScripts: LockerScripts = buildScripts(SERVER_TIME)
