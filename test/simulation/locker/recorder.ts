import { jsonCodec } from '../../../src/kernel/codec/codec.ts'
import { parseTagVersions } from '../../../src/locker/cache/tag-guard.ts'
import type { Claim, ClaimReply, GrantRef, Release, Settlement } from '../../../src/locker/store/store.ts'
import { identityOf } from '../history.ts'
import type { Acceptance, GrantRecord, Invalidation, LockerHistory } from './history.ts'
import { keyOf } from './keys.ts'
import type { Port } from './port.ts'
import type { SimServer } from './server.ts'

/** The state of a key, from the replies of the store. */
interface Known {
  /** The last grant. */
  grant: GrantRecord | undefined
  /** The last accepted settlement, and the server's time until which it must be remembered. */
  accepted: Acceptance | undefined
  remembered: number
}

/** What may have kept a fence from growing. */
interface Before {
  /** The fence that the record remembered; 0: none, it was lost, and may have been made anew by a flight that waits. */
  remembered: number
  /** The highest fence that the process had seen. */
  seen: number
  now: number
}

/**
 * Records all transitions of the store in order, and checks each at once: S1 and S6 of claims, S2 of everything that needs
 * a grant, S3 of publishes.
 */
export class Recorder {
  readonly #history: LockerHistory
  readonly #server: SimServer
  readonly #remembers: boolean
  /** Called when a key was released, and no process holds it. */
  freed: (key: string) => void = () => {}
  /** Leases released because no caller waited any more. */
  unwanted = 0
  /** Called when a lease was released as unwanted, with the number of parked flights. */
  givenUp: (key: string, parked: number) => void = () => {}
  readonly #keys = new Map<string, Known>()

  /** `remembers`: the store evicts nothing. */
  constructor(history: LockerHistory, server: SimServer, remembers: boolean) {
    this.#history = history
    this.#remembers = remembers
    this.#server = server
  }

  #of(key: string): Known {
    let known = this.#keys.get(key)
    if (!known) {
      known = { grant: undefined, accepted: undefined, remembered: 0 }
      this.#keys.set(key, known)
    }
    return known
  }

  get #serverNow(): number {
    return this.#server.clock.now()
  }

  /** Records were lost: grants have ended, and a repetition counts as new. */
  lost(): void {
    const moment = this.#history.moment()
    this.#history.disasters.push(moment)
    for (const known of this.#keys.values()) {
      if (known.grant) known.grant.over ??= moment
      known.remembered = 0
    }
  }

  /** The transitions as they run for one process. */
  wrap(port: Port, process: number, seen: () => number): Port {
    return {
      claim: async (claim) => {
        const record = this.#server.find(claim.record)
        const remembered = record?.fence ?? 0
        const before = { absent: !record, remembered, seen: seen(), now: this.#serverNow }
        const reply = await port.claim(claim)
        this.#claimed(claim, reply, process, before)
        return reply
      },
      renew: async (grant) => {
        const reply = await port.renew(grant)
        this.#say(process, () => `renew ${grant.record} ${grant.fence} → ${JSON.stringify(reply)}`)
        if (reply.held) this.#checkCurrent(grant, 'a renewal')
        return reply
      },
      settle: async (settlement) => {
        const reply = await port.settle(settlement)
        this.#settled(settlement, reply.accepted, process)
        return reply
      },
      release: async (release) => {
        const reply = await port.release(release)
        this.#released(release, reply, process)
        return reply
      },
      releaseIfUnwanted: async (grant) => {
        const parked = this.#server.parked(grant.record).length
        // A lease that was released before was handed over then.
        const { fence, lease } = this.#server.find(grant.record) ?? {}
        const held = lease !== undefined && fence === grant.fence
        const reply = await port.releaseIfUnwanted(grant)
        this.#abandoned(grant, reply, process)
        if (reply === 'released' && held) this.givenUp(keyOf(grant.record), parked)
        return reply
      },
      unpark: (key, nonce) => {
        this.#say(process, () => `unpark ${key} ${nonce.slice(0, 4)}`)
        return port.unpark(key, nonce)
      },
      progress: (grant) => port.progress(grant),
      invalidate: async (key) => {
        const reply = await port.invalidate(key)
        this.#say(process, () => `invalidate ${key} → ${JSON.stringify(reply)}`)
        return reply
      },
      snapshot: (key) => port.snapshot(key),
      readFresh: (key) => port.readFresh(key),
      tagVersions: async (tags, keepFor) => {
        const versions = await port.tagVersions(tags, keepFor)
        this.#say(process, () => `versions of ${tags.join(' ')}`)
        return versions
      },
      invalidateTag: (tag) => {
        this.#say(process, () => `invalidate tag ${tag}`)
        return port.invalidateTag(tag)
      },
    }
  }

  /** Records when an invalidation first took effect. */
  invalidating(invalidation: Invalidation): void {
    invalidation.effect ??= this.#history.moment()
  }

  #say(process: number, line: () => string): void {
    this.#history.say(() => `    p${process} ${line()}`)
  }

  #claimed(claim: Claim, reply: ClaimReply, process: number, before: Before & { absent: boolean }): void {
    const { lease } = claim
    const key = keyOf(claim.record)
    const token = tokenOf(process, claim)
    this.#say(
      process,
      () => `claim ${key} ${token} after ${claim.afterFence} parked ${claim.parkedFence} → ${told(reply)}`,
    )
    const known = this.#of(key)
    const { grant } = known
    // An expired record: the grant has ended too.
    if (grant && before.absent) grant.over ??= this.#history.moment()
    if (grant && !grant.over && grant.token === token) {
      if (reply.status === 'granted' && reply.fence === grant.fence) return
      this.#history.violate('S6', `a repeated claim of ${key} was answered '${reply.status}', not its grant`)
    }
    if (reply.status !== 'granted') return
    this.#checkFence(key, reply.fence, known, before)
    this.#granted(known, { key, token, lease, process, fence: reply.fence, takeover: reply.takeover })
  }

  #checkFence(key: string, fence: number, { grant }: Known, { remembered, seen, now }: Before): void {
    if (!grant || fence > grant.fence) return
    const excused = remembered === 0 && now * 1000 <= grant.fence + 1 && seen < grant.fence
    if (excused) this.#history.repeats = true
    else this.#history.violate('S1', `the fence of ${key} went from ${grant.fence} to ${fence}`)
  }

  #granted(
    known: Known,
    grant: Pick<GrantRecord, 'key' | 'token' | 'lease' | 'process' | 'fence' | 'takeover'>,
  ): void {
    const record = {
      ...this.#history.moment(),
      ...grant,
      delivered: undefined,
      returned: undefined,
      settling: undefined,
      settled: undefined,
      over: undefined,
    }
    this.#history.grants.push(record)
    known.grant = record
  }

  /** A renewal, publish or release must have the last grant. */
  #checkCurrent(grant: GrantRef, what: string): void {
    const key = keyOf(grant.record)
    const current = this.#of(key).grant
    if (current?.fence === grant.fence) return
    const { fence } = grant
    this.#history.violate(
      'S2',
      `${what} under ${fence} was taken for ${key}, granted anew as ${current?.fence}`,
    )
  }

  #settled(settlement: Settlement, accepted: boolean, process: number): void {
    const { fence, bytes, outcomeRetention: linger, keepStale: stale, tags } = settlement
    const kept = settlement.kind !== 'unstored'
    const kind = settlement.kind === 'error' ? 'error' : 'value'
    const ttl = kept ? settlement.ttl : 0
    const key = keyOf(settlement.record)
    const known = this.#of(key)
    const identity = kind === 'value' ? identityOf(jsonCodec.decode(bytes)) : failureIn(bytes)
    const terms = `ttl ${ttl} stale ${stale}${kept ? '' : ' unkept'}`
    this.#say(process, () => `settle ${key} ${fence} ${kind} ${identity} ${terms} → ${accepted}`)
    const repeated = known.accepted?.fence === fence
    if (!accepted) {
      const { accepted } = known
      const same = accepted?.kind === kind && accepted.kept === kept && accepted.identity === identity
      if (repeated && same && known.remembered > this.#serverNow)
        this.#history.violate('S6', `a repeated publish of ${key} under ${fence} was refused`)
      return
    }
    if (repeated) return
    this.#checkCurrent(settlement, 'a publish')
    const moment = this.#history.moment()
    if (known.grant?.fence === fence) known.grant.over = moment
    const names = [...parseTagVersions(tags).keys()].map(keyOf)
    const serverNow = this.#serverNow
    const acceptance = {
      ...moment,
      key,
      fence,
      kind,
      kept,
      identity,
      ttl,
      stale,
      tags: names,
      serverNow,
    } as const
    known.accepted = acceptance
    known.remembered = this.#remembers ? serverNow + linger : 0
    this.#history.acceptances.push(acceptance)
  }

  #abandoned(grant: GrantRef, reply: 'released' | 'wanted' | 'lost', process: number): void {
    const { fence } = grant
    const known = this.#of(keyOf(grant.record))
    this.#say(process, () => `abandon ${grant.record} ${fence} → ${reply}`)
    if (reply !== 'released' || known.grant?.fence !== fence || known.grant.over) return
    known.grant.over = this.#history.moment()
    known.remembered = 0
    this.unwanted++
  }

  #released(
    release: Release,
    reply: { released: boolean; fence: number | undefined },
    process: number,
  ): void {
    const { fence, nonce, regrant: next } = release
    const key = keyOf(release.record)
    const known = this.#of(key)
    this.#say(process, () => `release ${key} ${fence} next ${next?.attempt} → ${JSON.stringify(reply)}`)
    if (!reply.released) return
    const token = next ? tokenOf(process, { nonce, attempt: next.attempt }) : undefined
    if (known.grant?.token === token && known.grant?.fence === reply.fence) return
    const moment = this.#history.moment()
    if (known.grant?.fence === fence) known.grant.over = moment
    // The record remembers this outcome: it is the last.
    known.remembered = 0
    if (!next) this.freed(key)
    if (token === undefined || !next || reply.fence === undefined) return
    this.#checkFence(key, reply.fence, known, { remembered: fence, seen: 0, now: 0 })
    this.#granted(known, { key, token, lease: next.lease, process, fence: reply.fence, takeover: false })
  }
}

function tokenOf(process: number, grant: { nonce: string; attempt: number }): string {
  return `p${process}:${grant.nonce.slice(0, 4)}.${grant.attempt}`
}

function failureIn(bytes: Buffer): string {
  const { message } = jsonCodec.decode(bytes) as { message: string }
  return message
}

function told(reply: ClaimReply): string {
  switch (reply.status) {
    case 'done': {
      const { kind, fence, bytes, ttlLeft: fresh, invalidated } = reply.outcome
      return `done ${kind} ${fence} ${bytes.toString().slice(0, 40)} fresh ${fresh}${invalidated ? ' invalidated' : ''}`
    }
    case 'granted':
      return `granted ${reply.fence}${reply.takeover ? ' by takeover' : ''}`
    case 'parked':
      return `parked under ${reply.fence}, ${reply.leaseLeft.toFixed(1)} left`
    default:
      return reply.status
  }
}
