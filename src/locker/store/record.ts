import { MAX_EXACT_INTEGER } from '../../kernel/redis/fence-memory.ts'
import type {
  Claim,
  ClaimReply,
  Grant,
  Notice,
  Offer,
  Outcome,
  Release,
  Settlement,
  Snapshot,
} from './store.ts'

/** The surroundings of a transition. */
export interface Surroundings {
  /** Now, ms. */
  now: number
  /** A number for the next fence: µs since the epoch. */
  micros: number
  /** The highest fence that the caller has ever seen. */
  seen: number
  /** Sends a notice to a parked flight; false when nobody is there any more. */
  tell(park: string, notice: Notice): boolean
  /** Tells all processes that what was accepted under `fence` or an earlier one is no longer to be served. */
  drop(fence: number): void
}

/** A claimer or holder: the inbox of its process, a name to show, and how many may park beside it. */
export interface Party {
  inbox: string
  holder: string
  maxParked: number
}

/** The processor's group of fields. */
interface LeaseGroup {
  token: string
  until: number
  /** Its length: for one more of that, a lease that nobody took can still be published under. */
  length: number
  holder: string
  trace: string
  progress: Buffer | undefined
  /** In the holder's process nobody waits: it is to be told when nobody is parked either. */
  unwanted: boolean
}

/** The last settled grant: readable, until `until`, to those who were parked. */
interface OutcomeGroup {
  fence: number
  kind: Settlement['kind'] | 'release'
  until: number
  /** The failure, or a value that is not kept; and until when a failure is served to everybody. */
  error: Buffer | undefined
  errorFresh: number
  /** Of those. */
  tags: string
}

interface ValueGroup {
  bytes: Buffer
  fence: number
  /** Until when it is served to everybody. */
  fresh: number
  /** Until when it is kept for those who are content with what is over. */
  staleUntil: number
  acceptedAt: number
  tags: string
}

type Granted = Extract<ClaimReply, { status: 'granted' }>

export function tokenOf(inbox: string, grant: { nonce: string; attempt: number }): string {
  return `${inbox}${grant.nonce}.${grant.attempt}`
}

/**
 * The record of a resource and its transitions: value, lease, outcome and parks are groups that do not exclude each
 * other. This is the specification; the scripts do the same and are held against it, operation by operation.
 */
export class ResourceRecord {
  value: ValueGroup | undefined
  lease: LeaseGroup | undefined
  outcome: OutcomeGroup | undefined
  /** The last fence granted; the next is above it. */
  fence = 0
  /** Grants up to this fence were invalidated. */
  doomed = 0
  /** Until then nobody waits for anybody: what was computed last was not to be kept. */
  passUntil = 0
  /** Inbox and nonce of every flight that is to be told, in the order of arrival. */
  readonly parks: Set<string> = new Set()
  /** When the record may be forgotten: the latest of all its deadlines. */
  expiresAt = 0

  claim(claim: Claim, party: Party, at: Surroundings): ClaimReply {
    const { lease } = this
    const token = tokenOf(party.inbox, claim)
    const offer = this.#offer(claim, at.now)
    if (lease?.token === token) return { ...this.#repeatGrant(lease, claim.lease, at.now), offer }
    const outcome = this.#readable(claim, at.now)
    // Beside a value nothing is offered.
    if (outcome) return { status: 'done', outcome, offer: outcome.kind === 'error' ? offer : undefined }
    if (lease && lease.until > at.now) {
      if (offer && claim.parked === 0 && offer.past < claim.serve) return { status: 'stale', offer }
      return this.#park(claim, lease, party, offer, at.now)
    }
    if (claim.only > 0 && (claim.only !== this.fence || this.doomed >= claim.only))
      return { status: 'refused' }
    if (lease && claim.parked > 0 && !claim.takeover) return { status: 'abandoned', offer }
    // Parked, it may be the one that was told that it is free: it stays so until it leaves, which tells the next one.
    if (claim.pass && this.passUntil > at.now) return { status: 'pass', fence: this.fence, offer }
    const fence = this.#nextFence(at)
    if (fence === undefined) return { status: 'exhausted' }
    this.parks.delete(party.inbox + claim.nonce)
    this.#grant(fence, token, claim.lease, claim.trace, party, at)
    return { status: 'granted', fence, takeover: lease !== undefined, offer }
  }

  /** What is over, if it is not over for longer than the claimer tolerates. */
  #offer(claim: Claim, now: number): Offer | undefined {
    const { value } = this
    if (!value || claim.refresh || value.fence <= claim.after) return undefined
    const past = now - value.fresh
    if (past < 0 || past >= claim.tolerance || value.staleUntil <= now) return undefined
    return { fence: value.fence, bytes: value.bytes, past, left: value.staleUntil - now, tags: value.tags }
  }

  /** The same grant once more, counted from now: the claimer counts it from when it last claimed. */
  #repeatGrant(lease: LeaseGroup, length: number, now: number): Granted {
    lease.until = now + length
    lease.length = length
    this.#expire()
    return { status: 'granted', fence: this.fence, takeover: false }
  }

  /** What the claimer may be served: what is fresh, or what it was parked for. */
  #readable(claim: Claim, now: number): Outcome | undefined {
    const { value, outcome } = this
    if (
      outcome &&
      claim.parked > 0 &&
      outcome.fence > claim.after &&
      outcome.fence >= claim.parked &&
      outcome.until > now
    ) {
      if (outcome.kind === 'value' && value?.fence === outcome.fence) return this.#valueOutcome(value, now)
      if (outcome.kind === 'error') return this.#errorOutcome(outcome, now)
      if (outcome.kind === 'unkept') return { ...this.#errorOutcome(outcome, now), kind: 'value', fresh: 0 }
    }
    if (claim.refresh) return undefined
    if (value && value.fence > claim.after && value.fresh > now) return this.#valueOutcome(value, now)
    if (outcome?.kind === 'error' && outcome.fence > claim.after && outcome.errorFresh > now)
      return this.#errorOutcome(outcome, now)
    return undefined
  }

  #valueOutcome(value: ValueGroup, now: number): Outcome {
    return {
      kind: 'value',
      fence: value.fence,
      bytes: value.bytes,
      fresh: Math.max(0, value.fresh - now),
      doomed: this.doomed >= value.fence,
      stale: Math.max(0, value.staleUntil - Math.max(now, value.fresh)),
      tags: value.tags,
    }
  }

  #errorOutcome(outcome: OutcomeGroup, now: number): Outcome {
    return {
      kind: 'error',
      fence: outcome.fence,
      bytes: outcome.error ?? Buffer.alloc(0),
      fresh: Math.max(0, outcome.errorFresh - now),
      doomed: this.doomed >= outcome.fence,
      stale: 0,
      tags: outcome.tags,
    }
  }

  #park(claim: Claim, lease: LeaseGroup, party: Party, offer: Offer | undefined, now: number): ClaimReply {
    const park = party.inbox + claim.nonce
    if (!this.parks.has(park)) {
      if (this.parks.size >= party.maxParked) return { status: 'overloaded' }
      this.parks.add(park)
    }
    const tooOld = claim.refresh || this.doomed >= this.fence
    return {
      status: 'parked',
      fence: this.fence,
      left: lease.until - now,
      after: tooOld ? Math.max(claim.after, this.fence) : claim.after,
      trace: lease.trace,
      progress: lease.progress,
      offer,
    }
  }

  /** The fence of the next grant; undefined when none above the last one is exact. */
  #nextFence(at: Surroundings): number | undefined {
    const fence = Math.max(this.fence + 1, at.micros, at.seen + 1)
    return fence <= MAX_EXACT_INTEGER ? fence : undefined
  }

  #grant(fence: number, token: string, length: number, trace: string, party: Party, at: Surroundings): void {
    this.fence = fence
    this.lease = {
      token,
      until: at.now + length,
      length,
      holder: party.holder,
      trace,
      progress: undefined,
      unwanted: false,
    }
    this.#expire()
  }

  renew(
    grant: Grant & { lease: number },
    party: Party,
    at: Surroundings,
  ): { held: boolean; doomed: boolean } {
    const lease = this.#heldBy(grant, party, at.now)
    if (!lease) return { held: false, doomed: false }
    lease.until = at.now + grant.lease
    lease.length = grant.lease
    this.#expire()
    return { held: true, doomed: this.doomed >= this.fence }
  }

  /** The lease, if `grant` is the current one. Expired, it still is for one more of its length, unless taken over. */
  #heldBy(grant: Grant, party: Party, now: number): LeaseGroup | undefined {
    const { lease } = this
    if (lease?.token !== tokenOf(party.inbox, grant) || this.fence !== grant.fence) return undefined
    return now <= lease.until + lease.length ? lease : undefined
  }

  settle(settlement: Settlement, party: Party, at: Surroundings): { accepted: boolean; doomed: boolean } {
    const { fence, kind, bytes, tags } = settlement
    if (this.outcome?.fence === fence)
      return { accepted: this.#repeats(settlement), doomed: this.doomed >= fence }
    if (!this.#heldBy(settlement, party, at.now)) return { accepted: false, doomed: false }
    const doomed = this.doomed >= fence
    const ttl = doomed || kind === 'unkept' ? 0 : settlement.ttl
    const stale = doomed || kind !== 'value' ? 0 : settlement.stale
    const fresh = doomed ? 0 : at.now + ttl
    const replaced =
      kind === 'value' && Math.max(this.value?.fresh ?? 0, this.value?.staleUntil ?? 0) > at.now
    const parks = [...this.parks]
    this.parks.clear()
    const ended = this.#end(fence, kind, at.now + settlement.linger)
    if (kind === 'value') {
      const staleUntil = stale > 0 ? fresh + stale : 0
      this.value = { bytes, fence, fresh, staleUntil, acceptedAt: at.now, tags }
      this.passUntil = 0
    } else Object.assign(ended, { error: bytes, tags })
    if (kind === 'error') ended.errorFresh = fresh
    if (kind === 'unkept') this.passUntil = doomed ? 0 : at.now + settlement.bypassFor
    this.#expire()
    const told = { fence, bytes, fresh: ttl, doomed, stale, tags }
    const outcome: Outcome = { kind: kind === 'error' ? 'error' : 'value', ...told }
    for (const park of parks) at.tell(park, { kind: 'outcome', outcome })
    if (replaced) at.drop(fence - 1)
    return { accepted: true, doomed }
  }

  /** The grant is over. */
  #end(fence: number, kind: OutcomeGroup['kind'], until: number): OutcomeGroup {
    this.lease = undefined
    this.outcome = { fence, kind, until, error: undefined, errorFresh: 0, tags: '' }
    return this.outcome
  }

  /** Whether it is what was accepted under its grant, once more. */
  #repeats({ kind, bytes }: Settlement): boolean {
    const accepted = kind === 'value' ? this.value?.bytes : this.outcome?.error
    return this.outcome?.kind === kind && accepted !== undefined && accepted.equals(bytes)
  }

  release(
    release: Release,
    party: Party,
    at: Surroundings,
  ): { released: boolean; fence: number | undefined } {
    const { fence, next } = release
    if (next && this.lease?.token === tokenOf(party.inbox, { nonce: release.nonce, attempt: next.attempt })) {
      return { released: true, fence: this.fence }
    }
    if (this.outcome?.fence === fence) return { released: this.outcome.kind === 'release', fence: undefined }
    const held = this.#heldBy(release, party, at.now)
    if (!held) return { released: false, fence: undefined }
    const granted = next && this.#nextFence(at)
    if (release.expired && granted === undefined) {
      held.until = Math.min(held.until, at.now)
      this.#expire()
      for (const park of this.parks) at.tell(park, { kind: 'free' })
      return { released: true, fence: undefined }
    }
    this.#end(fence, 'release', at.now + release.linger)
    if (next && granted !== undefined) {
      const token = tokenOf(party.inbox, { nonce: release.nonce, attempt: next.attempt })
      this.#grant(granted, token, next.lease, held.trace, party, at)
      return { released: true, fence: granted }
    }
    this.#expire()
    this.#hint(at)
    return { released: true, fence: undefined }
  }

  /** Tells the first parked flight that is still there that the resource is free. It must claim; nothing is granted. */
  #hint(at: Surroundings): void {
    for (const park of [...this.parks]) {
      if (at.tell(park, { kind: 'free' })) return
      this.parks.delete(park)
    }
  }

  /** Gives the lease up unless somebody is parked. */
  abandon(
    { linger, ...grant }: Grant & { linger: number },
    party: Party,
    at: Surroundings,
  ): 'released' | 'wanted' | 'lost' {
    const { fence } = grant
    if (this.outcome?.fence === fence) return this.outcome.kind === 'release' ? 'released' : 'lost'
    const lease = this.#heldBy(grant, party, at.now)
    if (!lease) return 'lost'
    for (const park of [...this.parks]) {
      if (!at.tell(park, { kind: 'probe' })) this.parks.delete(park)
    }
    lease.unwanted = this.parks.size > 0
    if (lease.unwanted) return 'wanted'
    this.#end(fence, 'release', at.now + linger)
    this.#expire()
    return 'released'
  }

  unpark(park: string, at: Surroundings): void {
    if (!this.parks.delete(park)) return
    // The one that was told it is free may be the one that leaves: the next one is told, lest all wait for its tick.
    if (!this.lease) return this.#hint(at)
    const holder = this.lease.token.slice(0, this.lease.token.lastIndexOf('.'))
    if (this.lease.unwanted && this.parks.size === 0) at.tell(holder, { kind: 'unwanted' })
  }

  progress(grant: Grant & { bytes: Buffer }, party: Party, at: Surroundings): void {
    const lease = this.#heldBy(grant, party, at.now)
    if (!lease) return
    lease.progress = grant.bytes
    for (const park of this.parks) at.tell(park, { kind: 'progress', bytes: grant.bytes })
  }

  invalidate(at: Surroundings): { doomed: number } {
    const running = this.lease !== undefined
    const first = running && this.doomed < this.fence
    this.doomed = this.fence
    // Kept for those who were parked for it; served to nobody else.
    if (this.value) Object.assign(this.value, { fresh: 0, staleUntil: 0 })
    if ((this.outcome?.until ?? 0) <= at.now) this.value = undefined
    if (this.outcome) this.outcome.errorFresh = 0
    this.passUntil = 0
    this.#expire()
    at.drop(this.fence)
    return { doomed: first ? this.fence : 0 }
  }

  snapshot(now: number): Snapshot {
    const { lease, value } = this
    const live = lease && lease.until > now
    return {
      lease: live
        ? { holder: lease.holder, fence: this.fence, left: lease.until - now, parked: this.parks.size }
        : undefined,
      value:
        value && Math.max(value.fresh, value.staleUntil) > now
          ? {
              fence: value.fence,
              age: now - value.acceptedAt,
              fresh: Math.max(0, value.fresh - now),
              stale: Math.max(0, value.staleUntil - Math.max(now, value.fresh)),
            }
          : undefined,
    }
  }

  /** The value, if it is fresh. */
  find(now: number): Outcome | undefined {
    const { value } = this
    return value && value.fresh > now ? this.#valueOutcome(value, now) : undefined
  }

  /** Every change ends here: forgetting must never come before the last deadline. */
  #expire(): void {
    const { value, lease, outcome } = this
    this.expiresAt = Math.max(
      value?.fresh ?? 0,
      value?.staleUntil ?? 0,
      this.passUntil,
      outcome?.until ?? 0,
      outcome?.errorFresh ?? 0,
      lease ? lease.until + lease.length : 0,
    )
  }
}
