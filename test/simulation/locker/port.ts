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

/** The transitions at the server. */
export interface Port {
  claim(claim: Claim): Promise<ClaimReply>
  renew(grant: GrantRef & { lease: number }): Promise<{ held: boolean; invalidated: boolean }>
  settle(settlement: Settlement): Promise<{ accepted: boolean; invalidated: boolean }>
  release(release: Release): Promise<{ released: boolean; fence: number | undefined }>
  releaseIfUnwanted(grant: GrantRef & { outcomeRetention: number }): Promise<'released' | 'wanted' | 'lost'>
  unpark(key: string, nonce: string): Promise<void>
  progress(grant: GrantRef & { bytes: Buffer }): Promise<boolean>
  invalidate(key: string): Promise<{ invalidatedGrant: number }>
  snapshot(key: string): Promise<Snapshot>
  readFresh(key: string): Promise<Outcome | undefined>
  tagVersions(tags: readonly string[], keepFor: number): Promise<number[]>
  invalidateTag(tag: string): Promise<void>
}

const AT_ONCE = 0

/** The transitions of a client of the memory store. */
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
    releaseIfUnwanted: (grant) => store.releaseIfUnwanted(grant, AT_ONCE),
    unpark: (key, nonce) => store.unpark(key, nonce, AT_ONCE),
    progress: (grant) => store.progress(grant, AT_ONCE),
    invalidate: (key) => store.invalidate(key, AT_ONCE),
    snapshot: (key) => store.snapshot(key, AT_ONCE),
    readFresh: (key) => store.readFresh(key, AT_ONCE),
    tagVersions: (tags, keepFor) => store.tagVersions(tags, keepFor, AT_ONCE),
    invalidateTag: (tag) => store.invalidateTag(tag, AT_ONCE),
  }
}
