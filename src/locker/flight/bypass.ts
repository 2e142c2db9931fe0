import { newId } from '../../kernel/keys.ts'
import type { Call } from '../call.ts'
import { track } from '../locker-context.ts'
import type { HeldLease } from '../processor/held-lease.ts'
import { outcomeRetention } from '../processor/lease-state.ts'
import type { Claimer, ClaimReply, Outcome } from '../store/store.ts'

/**
 * Stores the result of a work that ran in a bypass, which ends the bypass. An error, a result with tags, and a result that the
 * work declared unstorable are not stored. `lastFence`: the last fence when the work began; nothing is stored if anything was
 * granted or invalidated since. Best effort.
 */
export function storeBypassed({ call, resultPolicy }: HeldLease, outcome: Outcome, lastFence: number): void {
  if (outcome.kind === 'error' || resultPolicy.bypassFor !== undefined || call.tags.length > 0) return
  const retention = { ttl: resultPolicy.ttl ?? call.ttl, keepStale: call.keepStale, tags: '' }
  track(call.locker, storeUnclaimed(call, outcome.bytes, retention, lastFence))
}

/** How a value is stored. Durations are ms. */
export interface Retention {
  ttl: number
  keepStale: number
  tags: string
}

/**
 * Stores a value that exists already, under a claim of its own. Returns false if another holds the claim of the key.
 * `expectedFence`: only if this is the last fence and its grant was not invalidated; 0: in any case.
 * @throws UnavailableError, OverloadedError, ClosedError
 */
export function storeUnclaimed(
  call: Call,
  bytes: Buffer,
  retention: Retention,
  expectedFence: number,
): Promise<boolean> {
  const { record, lease, locker } = call
  const { store, limits } = locker
  const grant = { record, nonce: newId(), attempt: 1 }
  const wants = {
    afterFence: 0,
    parkedFence: 0,
    refresh: true,
    takeover: true,
    maxStaleness: 0,
    acceptStaleWhileHeld: 0,
  }
  const claim = { ...grant, ...wants, lease, allowBypass: false, expectedFence, trace: '' }
  const settle = async (reply: ClaimReply): Promise<boolean> => {
    if (reply.status === 'parked') await store.unpark(record, grant.nonce, limits)
    if (reply.status !== 'granted') return false
    const settlement = {
      ...grant,
      ...retention,
      fence: reply.fence,
      kind: 'value',
      bytes,
      outcomeRetention: outcomeRetention(lease),
      bypassFor: 0,
    } as const
    return (await store.settle(settlement, limits)).accepted
  }
  return new Promise<boolean>((resolve, reject) => {
    const claimer: Claimer = {
      sending() {},
      notice() {},
      claimed: (reply) => settle(reply).then(resolve, reject),
      claimFailed: reject,
    }
    store.claim(claim, locker.unavailableAfter, claimer)
  }).finally(() => store.ignore(grant.nonce))
}
