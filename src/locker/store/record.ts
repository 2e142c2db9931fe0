import { MAX_EXACT_INTEGER } from '../../kernel/redis/server.ts'
import {
  type Claim,
  type ClaimReply,
  type GrantRef,
  type InvalidateReply,
  type Notice,
  type Outcome,
  type Release,
  type ReleaseReply,
  type RenewReply,
  type Settlement,
  type SettleReply,
  type Snapshot,
  type StaleValue,
  WAIT_RETENTION,
} from './store.ts'

/**
 * The record of a resource, and its transitions. This is the specification: the Redis scripts do the same, and
 * conformance tests hold them against it, operation by operation.
 *
 * A record has four groups of fields that do not exclude each other: a value, a lease, the outcome of the last grant that
 * ended, and the parked flights. For instance, a stale value and a lease stand side by side while the value is revalidated.
 *
 *   transition            needs                       lease     outcome    value       parked flights
 *   claim → done, stale   a readable result           ·         ·          ·           ·
 *   claim → granted       no unexpired lease          new       ·          ·           the claimer leaves
 *   claim → parked        an unexpired lease, or      ·         ·          ·           the claimer joins
 *                         waitOnly
 *   claim → bypass        a recent 'unstored'         ·         ·          ·           ·
 *   claim → anything else ·                           ·         ·          ·           ·
 *   renew                 the lease                   extended  ·          ·           ·
 *   progress              the lease                   progress  ·          ·           all are notified
 *   settle value          the lease                   ends      value      replaced    all are notified, and leave
 *   settle error          the lease                   ends      error      ·           all are notified, and leave
 *   settle unstored       the lease                   ends      unstored   ·           all are notified, and leave
 *   release               the lease                   ends      release    ·           the first that claims is notified
 *   release, regrant      the lease                   new       release    ·           ·
 *   release, asExpired    the lease                   expires   ·          ·           all that claim are notified
 *   releaseIfUnwanted     the lease, none is parked   ends      release    ·           all are probed
 *   unpark                ·                           ·         ·          ·           the flight leaves; if it claims,
 *                                                                                      and there is no lease, the next
 *                                                                                      is notified
 *   invalidate            ·                           ·         not fresh  not served  ·
 *
 * "The lease" is that of the grant: same token, same fence, and expired for at most its own length. "Claims" means not
 * `waitOnly`: only such a flight can use a resource that is free.
 */
export class ResourceRecord {
  value: ValueGroup | undefined
  lease: LeaseGroup | undefined
  outcome: OutcomeGroup | undefined
  /** The last fence granted; the next one is above it. */
  fence = 0
  /** Grants up to this fence were invalidated. Written by `invalidate`. */
  invalidatedUpTo = 0
  /** Until then claims are answered with 'bypass', because the last result was not to be stored. */
  bypassUntil = 0
  /** Inbox and nonce of every parked flight, in the order of arrival, and whether it claims or only waits. */
  readonly parks: Map<string, 'claims' | 'waits'> = new Map()
  /** Until then the record is kept for the flights that only wait. */
  waitsUntil = 0
  /** When the record may be deleted: the latest of its deadlines. */
  expiresAt = 0

  claim(claim: Claim, client: Client, at: TransitionContext): ClaimReply {
    const { lease } = this
    const token = tokenOf(client.inbox, claim)
    const stale = this.#staleValue(claim, at.now)
    if (lease?.token === token) return { ...this.#repeatGrant(lease, claim.lease, at.now), stale }
    const outcome = this.#readableOutcome(claim, at.now)
    if (outcome) return { status: 'done', outcome, stale: outcome.kind === 'error' ? stale : undefined }
    if (lease && lease.expiresAt > at.now) {
      if (stale && claim.parkedFence === 0 && stale.staleFor < claim.acceptStaleWhileHeld)
        return { status: 'stale', stale }
      return this.#park(claim, client, stale, at.now)
    }
    if (claim.waitOnly) return this.#park(claim, client, stale, at.now)
    if (
      claim.expectedFence > 0 &&
      (claim.expectedFence !== this.fence || this.invalidatedUpTo >= claim.expectedFence)
    )
      return { status: 'conflict' }
    if (lease && claim.parkedFence > 0 && !claim.takeover) return { status: 'lease-expired', stale }
    // The flight stays parked: it may be the one that was notified of the free resource, and unpark notifies the next.
    if (claim.allowBypass && this.bypassUntil > at.now) return { status: 'bypass', fence: this.fence, stale }
    const fence = this.#nextFence(at)
    if (fence === undefined) return { status: 'exhausted' }
    this.parks.delete(client.inbox + claim.nonce)
    this.#grant(fence, token, claim.lease, claim.trace, client, at)
    return { status: 'granted', fence, takeover: lease !== undefined, stale }
  }

  /** The value, if it is stale, and for no longer than the claim accepts. */
  #staleValue(claim: Claim, now: number): StaleValue | undefined {
    const { value } = this
    if (!value || claim.refresh || value.fence <= claim.afterFence) return undefined
    const staleFor = now - value.freshUntil
    if (staleFor < 0 || staleFor >= claim.maxStaleness || value.staleUntil <= now) return undefined
    const { fence, bytes, tags } = value
    return { fence, bytes, staleFor, staleLeft: value.staleUntil - now, tags }
  }

  /** Answers a repeated claim with its own grant. The lease counts anew, since the claimer counts from its last claim. */
  #repeatGrant(lease: LeaseGroup, length: number, now: number): Granted {
    lease.expiresAt = now + length
    lease.length = length
    this.#updateExpiry()
    return { status: 'granted', fence: this.fence, takeover: false }
  }

  /** A fresh result, or the outcome that the flight was parked for. */
  #readableOutcome(claim: Claim, now: number): Outcome | undefined {
    const { value, outcome } = this
    if (
      outcome &&
      claim.parkedFence > 0 &&
      outcome.fence > claim.afterFence &&
      outcome.fence >= claim.parkedFence &&
      outcome.readableUntil > now
    ) {
      if (outcome.kind === 'value' && value?.fence === outcome.fence) return this.#valueOutcome(value, now)
      if (outcome.kind === 'error') return this.#errorOutcome(outcome, now)
      if (outcome.kind === 'unstored')
        return { ...this.#errorOutcome(outcome, now), kind: 'value', ttlLeft: 0 }
    }
    if (claim.refresh) return undefined
    if (value && value.fence > claim.afterFence && value.freshUntil > now)
      return this.#valueOutcome(value, now)
    if (outcome?.kind === 'error' && outcome.fence > claim.afterFence && outcome.errorFreshUntil > now)
      return this.#errorOutcome(outcome, now)
    return undefined
  }

  #valueOutcome(value: ValueGroup, now: number): Outcome {
    return {
      kind: 'value',
      fence: value.fence,
      bytes: value.bytes,
      ttlLeft: Math.max(0, value.freshUntil - now),
      invalidated: this.invalidatedUpTo >= value.fence,
      staleLeft: Math.max(0, value.staleUntil - Math.max(now, value.freshUntil)),
      tags: value.tags,
    }
  }

  #errorOutcome(outcome: OutcomeGroup, now: number): Outcome {
    return {
      kind: 'error',
      fence: outcome.fence,
      bytes: outcome.bytes ?? Buffer.alloc(0),
      ttlLeft: Math.max(0, outcome.errorFreshUntil - now),
      invalidated: this.invalidatedUpTo >= outcome.fence,
      staleLeft: 0,
      tags: outcome.tags,
    }
  }

  #park(claim: Claim, client: Client, stale: StaleValue | undefined, now: number): ClaimReply {
    const { lease } = this
    const park = client.inbox + claim.nonce
    if (!this.parks.has(park)) {
      if (this.parks.size >= client.maxParked) return { status: 'overloaded' }
      this.parks.set(park, claim.waitOnly ? 'waits' : 'claims')
    }
    if (claim.waitOnly) {
      this.waitsUntil = now + WAIT_RETENTION
      this.#updateExpiry()
    }
    const needsNextGrant = claim.refresh || this.invalidatedUpTo >= this.fence
    return {
      status: 'parked',
      fence: lease ? this.fence : this.fence + 1,
      leaseLeft: Math.max(0, (lease?.expiresAt ?? 0) - now),
      afterFence: needsNextGrant ? Math.max(claim.afterFence, this.fence) : claim.afterFence,
      trace: lease?.trace ?? '',
      progress: lease?.progress,
      stale,
    }
  }

  /** The fence of the next grant; undefined when none above the last one is exact. */
  #nextFence(at: TransitionContext): number | undefined {
    const fence = Math.max(this.fence + 1, at.micros, at.highestFence + 1)
    return fence <= MAX_EXACT_INTEGER ? fence : undefined
  }

  #grant(
    fence: number,
    token: string,
    length: number,
    trace: string,
    client: Client,
    at: TransitionContext,
  ): void {
    this.fence = fence
    this.lease = {
      token,
      expiresAt: at.now + length,
      length,
      holder: client.holder,
      trace,
      progress: undefined,
      notifyUnwanted: false,
    }
    this.#updateExpiry()
  }

  renew(grant: GrantRef & { lease: number }, client: Client, at: TransitionContext): RenewReply {
    const lease = this.#leaseOf(grant, client, at.now)
    if (!lease) return { held: false, invalidated: false }
    lease.expiresAt = at.now + grant.lease
    lease.length = grant.lease
    this.#updateExpiry()
    return { held: true, invalidated: this.invalidatedUpTo >= this.fence }
  }

  /** The lease, if it is that of `grant`: an expired one still is for as long as it was, unless it was taken over. */
  #leaseOf(grant: GrantRef, client: Client, now: number): LeaseGroup | undefined {
    const { lease } = this
    if (lease?.token !== tokenOf(grant.inbox ?? client.inbox, grant) || this.fence !== grant.fence)
      return undefined
    return now <= lease.expiresAt + lease.length ? lease : undefined
  }

  settle(settlement: Settlement, client: Client, at: TransitionContext): SettleReply {
    const { fence, kind, bytes, tags } = settlement
    if (this.outcome?.fence === fence)
      return { accepted: this.#isRepeated(settlement), invalidated: this.invalidatedUpTo >= fence }
    if (!this.#leaseOf(settlement, client, at.now)) return { accepted: false, invalidated: false }
    const invalidated = this.invalidatedUpTo >= fence
    const ttl = invalidated || kind === 'unstored' ? 0 : settlement.ttl
    const keepStale = invalidated || kind !== 'value' ? 0 : settlement.keepStale
    const freshUntil = invalidated ? 0 : at.now + ttl
    const replaced =
      kind === 'value' && Math.max(this.value?.freshUntil ?? 0, this.value?.staleUntil ?? 0) > at.now
    const parks = [...this.parks.keys()]
    this.parks.clear()
    this.waitsUntil = 0
    const ended = this.#endGrant(fence, kind, at.now + settlement.outcomeRetention)
    if (kind === 'value') {
      const staleUntil = keepStale > 0 ? freshUntil + keepStale : 0
      this.value = { bytes, fence, freshUntil, staleUntil, acceptedAt: at.now, tags }
      this.bypassUntil = 0
    } else Object.assign(ended, { bytes, tags })
    if (kind === 'error') ended.errorFreshUntil = freshUntil
    if (kind === 'unstored') this.bypassUntil = invalidated ? 0 : at.now + settlement.bypassFor
    this.#updateExpiry()
    const outcome: Outcome = {
      kind: kind === 'error' ? 'error' : 'value',
      fence,
      bytes,
      ttlLeft: ttl,
      invalidated,
      staleLeft: keepStale,
      tags,
    }
    for (const park of parks) at.notify(park, { kind: 'outcome', outcome })
    if (replaced) at.broadcastInvalidation(fence - 1)
    return { accepted: true, invalidated }
  }

  #endGrant(fence: number, kind: OutcomeGroup['kind'], readableUntil: number): OutcomeGroup {
    this.lease = undefined
    this.outcome = { fence, kind, readableUntil, bytes: undefined, errorFreshUntil: 0, tags: '' }
    return this.outcome
  }

  /** Whether a settlement repeats the one that was accepted under its grant. */
  #isRepeated({ kind, bytes }: Settlement): boolean {
    const accepted = kind === 'value' ? this.value?.bytes : this.outcome?.bytes
    return this.outcome?.kind === kind && accepted !== undefined && accepted.equals(bytes)
  }

  release(release: Release, client: Client, at: TransitionContext): ReleaseReply {
    const { fence, nonce, regrant } = release
    const regrantToken = regrant && tokenOf(client.inbox, { nonce, attempt: regrant.attempt })
    if (regrantToken !== undefined && this.lease?.token === regrantToken) {
      return { released: true, fence: this.fence }
    }
    if (this.outcome?.fence === fence) return { released: this.outcome.kind === 'release', fence: undefined }
    const held = this.#leaseOf(release, client, at.now)
    if (!held) return { released: false, fence: undefined }
    const granted = regrant && this.#nextFence(at)
    if (release.asExpired && granted === undefined) {
      held.expiresAt = Math.min(held.expiresAt, at.now)
      this.#updateExpiry()
      for (const park of this.#claiming()) at.notify(park, { kind: 'free' })
      return { released: true, fence: undefined }
    }
    this.#endGrant(fence, 'release', at.now + release.outcomeRetention)
    if (regrant && regrantToken !== undefined && granted !== undefined) {
      this.#grant(granted, regrantToken, regrant.lease, held.trace, client, at)
      return { released: true, fence: granted }
    }
    this.#updateExpiry()
    this.#notifyFree(at)
    return { released: true, fence: undefined }
  }

  /** The parked flights that do not only wait. */
  #claiming(): string[] {
    return [...this.parks].filter(([, kind]) => kind === 'claims').map(([park]) => park)
  }

  /** Notifies the first parked flight that claims and whose inbox exists. It must claim; nothing is granted here. */
  #notifyFree(at: TransitionContext): void {
    for (const park of this.#claiming()) {
      if (at.notify(park, { kind: 'free' })) return
      this.parks.delete(park)
    }
  }

  releaseIfUnwanted(
    { outcomeRetention, ...grant }: GrantRef & { outcomeRetention: number },
    client: Client,
    at: TransitionContext,
  ): 'released' | 'wanted' | 'lost' {
    const { fence } = grant
    if (this.outcome?.fence === fence) return this.outcome.kind === 'release' ? 'released' : 'lost'
    const lease = this.#leaseOf(grant, client, at.now)
    if (!lease) return 'lost'
    for (const park of [...this.parks.keys()]) {
      if (!at.notify(park, { kind: 'probe' })) this.parks.delete(park)
    }
    lease.notifyUnwanted = this.parks.size > 0
    if (lease.notifyUnwanted) return 'wanted'
    this.#endGrant(fence, 'release', at.now + outcomeRetention)
    this.#updateExpiry()
    return 'released'
  }

  unpark(park: string, at: TransitionContext): void {
    const kind = this.parks.get(park)
    if (!this.parks.delete(park)) return
    // The flight that leaves may be the one that was notified of the free resource: without this the others would wait
    // for their next poll.
    if (!this.lease) return kind === 'claims' ? this.#notifyFree(at) : undefined
    const holder = this.lease.token.slice(0, this.lease.token.lastIndexOf('.'))
    if (this.lease.notifyUnwanted && this.parks.size === 0) at.notify(holder, { kind: 'unwanted' })
  }

  progress(grant: GrantRef & { bytes: Buffer }, client: Client, at: TransitionContext): boolean {
    const lease = this.#leaseOf(grant, client, at.now)
    if (!lease) return false
    lease.progress = grant.bytes
    for (const park of this.parks.keys()) at.notify(park, { kind: 'progress', bytes: grant.bytes })
    return true
  }

  invalidate(at: TransitionContext): InvalidateReply {
    const running = this.lease !== undefined
    const first = running && this.invalidatedUpTo < this.fence
    this.invalidatedUpTo = this.fence
    // Flights that were parked for the value may still read it.
    if (this.value) Object.assign(this.value, { freshUntil: 0, staleUntil: 0 })
    if ((this.outcome?.readableUntil ?? 0) <= at.now) this.value = undefined
    if (this.outcome) this.outcome.errorFreshUntil = 0
    this.bypassUntil = 0
    this.#updateExpiry()
    at.broadcastInvalidation(this.fence > 0 ? this.fence : MAX_EXACT_INTEGER)
    return { invalidatedGrant: first ? this.fence : 0 }
  }

  snapshot(now: number): Snapshot {
    const { lease, value } = this
    const held = lease && lease.expiresAt > now
    return {
      lease: held
        ? {
            holder: lease.holder,
            fence: this.fence,
            leaseLeft: lease.expiresAt - now,
            parked: this.parks.size,
          }
        : undefined,
      value:
        value && Math.max(value.freshUntil, value.staleUntil) > now
          ? {
              fence: value.fence,
              age: now - value.acceptedAt,
              ttlLeft: Math.max(0, value.freshUntil - now),
              staleLeft: Math.max(0, value.staleUntil - Math.max(now, value.freshUntil)),
            }
          : undefined,
    }
  }

  /** The value, if it is fresh. */
  freshValue(now: number): Outcome | undefined {
    const { value } = this
    return value && value.freshUntil > now ? this.#valueOutcome(value, now) : undefined
  }

  /** Called by every transition: the record must not be deleted before its last deadline. */
  #updateExpiry(): void {
    const { value, lease, outcome } = this
    this.expiresAt = Math.max(
      value?.freshUntil ?? 0,
      value?.staleUntil ?? 0,
      this.bypassUntil,
      this.waitsUntil,
      outcome?.readableUntil ?? 0,
      outcome?.errorFreshUntil ?? 0,
      lease ? lease.expiresAt + lease.length : 0,
    )
  }
}

/** Names the grant of a claim attempt: no other attempt, flight or process has the same. */
function tokenOf(inbox: string, grant: { nonce: string; attempt: number }): string {
  return `${inbox}${grant.nonce}.${grant.attempt}`
}

/** The lease of the processor. Deadlines are ms since the epoch, by the clock of the store. */
interface LeaseGroup {
  token: string
  /** Then another flight may take over. */
  expiresAt: number
  /** How long it is, ms. Unless taken over, it can still be published under for as long after `expiresAt`. */
  length: number
  /** Host and process id, for `peek`. */
  holder: string
  trace: string
  /** Written by `progress`. */
  progress: Buffer | undefined
  /** Written by `releaseIfUnwanted`: the holder is to be notified when the last parked flight leaves. */
  notifyUnwanted: boolean
}

/** How the last grant ended. */
interface OutcomeGroup {
  fence: number
  kind: Settlement['kind'] | 'release'
  /** Until then it is readable to flights that were parked. */
  readableUntil: number
  /** The failure, or the value that was not to be stored. */
  bytes: Buffer | undefined
  /** Of a failure: until when it answers every claim. */
  errorFreshUntil: number
  /** The tags of `bytes`. */
  tags: string
}

/** The stored value. */
interface ValueGroup {
  bytes: Buffer
  fence: number
  freshUntil: number
  /** Until when it is kept for callers that accept stale; 0 when it is not kept beyond `freshUntil`. */
  staleUntil: number
  acceptedAt: number
  tags: string
}

type Granted = Extract<ClaimReply, { status: 'granted' }>

/** What a transition knows of the server, and the messages that it may send. */
export interface TransitionContext {
  /** Now, ms since the epoch. */
  now: number
  /** Now, µs since the epoch: a lower bound of the next fence. */
  micros: number
  /** The highest fence that the client has ever seen: another lower bound. */
  highestFence: number
  /** Sends a notice to a parked flight. Returns false when its inbox does not exist any more. */
  notify(park: string, notice: Notice): boolean
  /** Notifies all processes that results accepted under `fence` or an earlier one must not be served any more. */
  broadcastInvalidation(fence: number): void
}

/** The process that a claimer or a holder belongs to. */
export interface Client {
  inbox: string
  /** Host and process id, for `peek`. */
  holder: string
  /** Flights that it lets park on one record. */
  maxParked: number
}
