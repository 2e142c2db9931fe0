import type {
  Claim,
  Claimer,
  ClaimReply,
  GrantRef,
  Outcome,
  Release,
  Settlement,
  Snapshot,
  Store,
} from '../../../src/locker/store/store.ts'

/** The transitions of the store, as they run at the server. */
export interface Port {
  claim(claim: Claim): Promise<ClaimReply>
  renew(grant: GrantRef & { lease: number }): Promise<{ held: boolean; invalidated: boolean }>
  settle(settlement: Settlement): Promise<{ accepted: boolean; invalidated: boolean }>
  release(release: Release): Promise<{ released: boolean; fence: number | undefined }>
  abandon(grant: GrantRef & { outcomeRetention: number }): Promise<'released' | 'wanted' | 'lost'>
  unpark(key: string, nonce: string): Promise<void>
  progress(grant: GrantRef & { bytes: Buffer }): Promise<void>
  invalidate(key: string): Promise<{ invalidatedGrant: number }>
  snapshot(key: string): Promise<Snapshot>
  find(key: string): Promise<Outcome | undefined>
  epochs(tags: readonly string[], keepFor: number): Promise<number[]>
  invalidateTag(tag: string): Promise<void>
}

const AT_ONCE = { within: 0 }

/** The memory adapter's transitions; `connect` is its way to be used by a process. */
export function portOf(store: Store): Port {
  return {
    claim: (claim) =>
      new Promise((resolve, reject) => {
        const claimer: Claimer = {
          sending: () => {},
          claimed: (reply) => resolve(reply),
          claimFailed: (error) => reject(error),
          notice: () => {},
        }
        store.claim(claim, 0, claimer)
        store.ignore(claim.nonce)
      }),
    renew: (grant) => store.renew(grant, AT_ONCE),
    settle: (settlement) => store.settle(settlement, AT_ONCE),
    release: (release) => store.release(release, AT_ONCE),
    abandon: (grant) => store.releaseIfUnwanted(grant, AT_ONCE),
    unpark: (key, nonce) => store.unpark(key, nonce, AT_ONCE),
    progress: (grant) => store.progress(grant, AT_ONCE),
    invalidate: (key) => store.invalidate(key, AT_ONCE),
    snapshot: (key) => store.snapshot(key, AT_ONCE),
    find: (key) => store.readFresh(key, AT_ONCE),
    epochs: (tags, keepFor) => store.tagVersions(tags, keepFor, AT_ONCE),
    invalidateTag: (tag) => store.invalidateTag(tag, AT_ONCE),
  }
}
