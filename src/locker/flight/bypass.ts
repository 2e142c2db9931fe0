import { newId } from '../../kernel/keys.ts'
import type { Call } from '../call.ts'
import { outcomeRetention } from '../processor/lease-state.ts'
import type { Claimer, ClaimReply } from '../store/store.ts'

/** How a value is kept. */
export interface Retention {
  ttl: number
  stale: number
  tags: string
}

/**
 * Keeps a value that is there already, unless somebody else computes the key at the moment. `only`: nor if anything
 * was granted, or invalidated, since that was the last fence; 0: whatever that is.
 */
export function storeUnclaimed(call: Call, bytes: Buffer, terms: Retention, only: number): Promise<boolean> {
  const { record, lease, locker } = call
  const { store, unavailableAfter: within } = locker
  const grant = { key: record, nonce: newId(), attempt: 1 }
  const wants = {
    afterFence: 0,
    parkedFence: 0,
    refresh: true,
    takeover: true,
    maxStaleness: 0,
    acceptStaleWhileHeld: 0,
  }
  const claim = { ...grant, ...wants, lease, allowBypass: false, expectedFence: only, trace: '' }
  const settle = async (reply: ClaimReply): Promise<boolean> => {
    if (reply.status === 'parked') await store.unpark(record, grant.nonce, { within })
    if (reply.status !== 'granted') return false
    const settlement = {
      ...grant,
      ttl: terms.ttl,
      keepStale: terms.stale,
      tags: terms.tags,
      fence: reply.fence,
      kind: 'value',
      bytes,
      outcomeRetention: outcomeRetention(lease),
      bypassFor: 0,
    } as const
    return (await store.settle(settlement, { within })).accepted
  }
  return new Promise<boolean>((resolve, reject) => {
    const claimer: Claimer = {
      sending() {},
      notice() {},
      claimed: (reply) => settle(reply).then(resolve, reject),
      claimFailed: reject,
    }
    store.claim(claim, within, claimer)
  }).finally(() => store.ignore(grant.nonce))
}
