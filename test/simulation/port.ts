import type {
  Claim,
  Claimer,
  ClaimReply,
  Grant,
  Release,
  Settlement,
  Snapshot,
  Store,
} from '../../src/locker/store.ts'

/** The transitions of the store, as they run at the server. */
export interface Port {
  claim(claim: Claim): Promise<ClaimReply>
  renew(grant: Grant & { lease: number }): Promise<{ held: boolean; doomed: boolean }>
  settle(settlement: Settlement): Promise<{ accepted: boolean; doomed: boolean }>
  release(release: Release): Promise<{ released: boolean; fence: number | undefined }>
  unpark(key: string, nonce: string): Promise<void>
  progress(grant: Grant & { bytes: Buffer }): Promise<void>
  invalidate(key: string): Promise<{ doomed: number }>
  snapshot(key: string): Promise<Snapshot>
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
          unclaimed: (error) => reject(error),
          notice: () => {},
        }
        store.claim(claim, 0, claimer)
        store.ignore(claim.nonce)
      }),
    renew: (grant) => store.renew(grant, AT_ONCE),
    settle: (settlement) => store.settle(settlement, AT_ONCE),
    release: (release) => store.release(release, AT_ONCE),
    unpark: (key, nonce) => store.unpark(key, nonce, AT_ONCE),
    progress: (grant) => store.progress(grant, AT_ONCE),
    invalidate: (key) => store.invalidate(key, AT_ONCE),
    snapshot: (key) => store.snapshot(key, AT_ONCE),
  }
}
