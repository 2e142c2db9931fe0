import { UnavailableError } from '../../../errors.ts'
import { Fifo } from '../../../kernel/collections/fifo.ts'
import { ReplyCallbacks } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import type { FenceWatermark } from '../../../kernel/redis/fence-memory.ts'
import type { Hint, Listener } from '../../../kernel/redis/inbox.ts'
import type { ServerClock } from '../../../kernel/redis/server-clock.ts'
import type { Timer } from '../../../kernel/time/clock.ts'
import { atEndOfTick } from '../../../kernel/time/tick.ts'
import { worksAreDeferred } from '../../../kernel/work/work-scheduler.ts'
import { parseValue } from '../../cache/value.ts'
import {
  ANY_STALENESS,
  type Claim,
  type Claimer,
  type ClaimReply,
  type Outcome,
  type StaleValue,
} from '../store.ts'
import { noticeOf } from './messages.ts'
import type { LockerScripts } from './scripts/index.ts'

/**
 * Claims that one script carries at most: it runs alone on the server, so it must stay short, and while one runs there
 * the next is made here. (8 and 32 measured slower.)
 */
const MAX_BATCH = 16

/**
 * Claims of a burst that are under way at first, on a standalone server. More go out as they are answered, at most twice
 * as many each time, and no more while works of this process wait for others that compute: what it cannot start now,
 * another process may claim and start.
 */
const FEWEST = MAX_BATCH
const MOST = 1024

/** When Redis answers no claim for so long, ms, all that wait go out. */
const PATIENCE = 20

/** One claim on its way. It listens for messages before it goes out: one may overtake the reply. */
class Entry implements Listener {
  readonly claim: Claim
  readonly within: number
  readonly claimer: Claimer

  constructor(claim: Claim, within: number, claimer: Claimer) {
    this.claim = claim
    this.within = within
    this.claimer = claimer
  }

  hint(hint: Hint): void {
    const notice = noticeOf(hint)
    if (notice) this.claimer.notice(notice)
  }
}

/** What goes before the claims in every call. */
export interface ClaimHead {
  inbox: string
  holder: string
  maxParked: number
}

/** Values in the script's reply for each key. */
const STRIDE = 3

/** Reads what the claim script returned for one key; undefined: it failed for that key alone. */
function parse(values: readonly unknown[], index: number): ClaimReply | undefined {
  const bytes = values[index * STRIDE + 1] as Buffer | null
  const third = values[index * STRIDE + 2] as Buffer | null | unknown[]
  const { offer, more } = Array.isArray(third) ? offered(third) : { offer: undefined, more: third }
  const [status, a, b, c, d] = String(values[index * STRIDE]).split(' ')
  switch (status) {
    case 'V': {
      const { tags, bytes: value } = parseValue(bytes as Buffer)
      return { status: 'done', outcome: outcomeOf('value', a, b, c, value, d, tags) }
    }
    case 'U': {
      return { status: 'done', outcome: outcomeOf('value', a, '0', b, bytes, '0', String(more ?? '')) }
    }
    case 'E':
      return {
        status: 'done',
        outcome: outcomeOf('error', a, b, c, bytes, '0', String(more ?? '')),
        stale: offer,
      }
    case 'S':
      return offer && { status: 'stale', stale: offer }
    case 'G':
      return { status: 'granted', fence: Number(a), takeover: b === '1', stale: offer }
    case 'N':
      return { status: 'bypass', fence: Number(a), stale: offer }
    case 'P': {
      return {
        status: 'parked',
        fence: Number(a),
        leaseLeft: Number(b),
        afterFence: Number(c),
        trace: String(bytes ?? ''),
        progress: more ?? undefined,
        stale: offer,
      }
    }
    case 'X':
      return { status: 'lease-expired', stale: offer }
    case 'O':
      return { status: 'overloaded' }
    case 'R':
      return { status: 'conflict' }
    case 'F':
      return { status: 'exhausted' }
    default:
      return undefined
  }
}

/** Reads an offer, and what is shown of the work beside it. */
function offered([head, value, shown]: unknown[]): { offer: StaleValue; more: Buffer | null } {
  const [fence, past, left] = String(head).split(' ').map(Number) as [number, number, number]
  const { tags, bytes } = parseValue(value as Buffer)
  const more = shown as Buffer
  return {
    offer: { fence, staleFor: past, staleLeft: left, bytes, tags },
    more: more.length > 0 ? more : null,
  }
}

type Word = string | undefined

function outcomeOf(
  kind: Outcome['kind'],
  fence: Word,
  fresh: Word,
  invalidated: Word,
  bytes: Buffer | null,
  stale: Word,
  tags: string,
): Outcome {
  return {
    kind,
    fence: Number(fence),
    bytes: bytes ?? Buffer.alloc(0),
    ttlLeft: Number(fresh),
    invalidated: invalidated === '1',
    staleLeft: Number(stale),
    tags,
  }
}

/** Larger numbers are not exact, here and there. */
const whole = (ms: number): number => Math.min(Math.ceil(ms), Number.MAX_SAFE_INTEGER)

/** A claim as the script reads it, under the lease that the call names for all. */
function argumentOf(claim: Claim, lease: number): string {
  const {
    nonce,
    attempt,
    afterFence: after,
    parkedFence: parked,
    maxStaleness: tolerance,
    acceptStaleWhileHeld: serve,
    expectedFence: only,
    trace,
  } = claim
  const flags = (claim.refresh ? 1 : 0) + (claim.takeover ? 0 : 2) + (claim.allowBypass ? 0 : 4)
  const plain = attempt === 1 && claim.lease === lease && flags === 0 && trace === ''
  if (plain && after === 0 && parked === 0 && tolerance === ANY_STALENESS && serve === 0 && only === 0)
    return nonce
  const numbers = [attempt, claim.lease, after, parked, flags, whole(tolerance), whole(serve), only]
  return `${nonce}${numbers.join(' ')} ${trace}`
}

/**
 * Carries the claims that are made in one tick in one script call: on a standalone server; on a cluster each goes alone,
 * since its key has a slot of its own.
 */
export class ClaimBatcher {
  readonly #connection: Connection
  readonly #scripts: LockerScripts
  readonly #head: ClaimHead
  /** Only replies count: messages may be forged. */
  readonly #fences: FenceWatermark
  readonly #clock: ServerClock
  readonly #size: number
  /** Claims of this tick; flushed when it ends. */
  readonly #entries: Entry[] = []
  /** Claims that wait until others are answered. */
  readonly #line = new Fifo<Entry>()
  #underWay = 0
  /** How many may be under way at present. */
  #most: number
  #sending = false
  /** Counts answers and failures. */
  #answers = 0
  #timer: Timer | undefined

  constructor(
    connection: Connection,
    scripts: LockerScripts,
    head: ClaimHead,
    fences: FenceWatermark,
    clock: ServerClock,
  ) {
    this.#connection = connection
    this.#scripts = scripts
    this.#head = head
    this.#fences = fences
    this.#clock = clock
    this.#size = connection.cluster ? 1 : MAX_BATCH
    this.#most = this.#fewest
  }

  /** Claims with the others of this tick. `within`: until when the store has to answer, ms. */
  add(claim: Claim, within: number, claimer: Claimer): void {
    this.#entries.push(new Entry(claim, within, claimer))
    if (this.#entries.length === 1) atEndOfTick(() => this.#flush())
  }

  #flush(): void {
    const entries = this.#entries
    // Each process begins elsewhere: of a burst that all of them ask for, each then wins its part of the work.
    const first = entries.length > this.#size ? Math.floor(Math.random() * entries.length) : 0
    for (let n = 0; n < entries.length; n++) this.#line.push(entries[(first + n) % entries.length] as Entry)
    entries.length = 0
    this.#sendSome()
  }

  /** On a cluster, one node that is silent must not hold up the claims of others: all are under way at once. */
  get #fewest(): number {
    return this.#connection.cluster ? Number.POSITIVE_INFINITY : FEWEST
  }

  /** A claim may fail while it is being sent, and call this again: the loop that runs already goes on then. */
  #sendSome(): void {
    if (this.#sending) return
    this.#sending = true
    try {
      while (this.#line.first && this.#underWay < this.#most) this.#send(this.#take(this.#line.first.within))
    } finally {
      this.#sending = false
    }
    if (this.#line.size > 0) return this.#watch()
    this.#timer?.cancel()
    this.#timer = undefined
  }

  /** The next claims for one script: they share its time limit. */
  #take(within: number): Entry[] {
    const entries: Entry[] = []
    while (entries.length < this.#size && this.#line.first?.within === within)
      entries.push(this.#line.shift() as Entry)
    return entries
  }

  /** Lets all of the line go when nothing is answered. */
  #watch(): void {
    const answers = this.#answers
    this.#timer ??= this.#connection.clock.after(
      PATIENCE,
      () => {
        this.#timer = undefined
        if (this.#answers === answers) this.#most = Number.POSITIVE_INFINITY
        this.#sendSome()
      },
      true,
    )
  }

  /** So many claims are answered, or failed. */
  #over(count: number): void {
    this.#answers++
    this.#underWay -= count
    if (this.#line.size === 0) {
      if (this.#underWay < FEWEST) this.#most = this.#fewest
    } else if (!worksAreDeferred(this.#connection.clock))
      this.#most = Math.max(this.#most, Math.min(2 * this.#most, MOST))
    this.#sendSome()
  }

  #send(entries: Entry[]): void {
    const count = entries.length
    this.#underWay += count
    const { inbox, holder, maxParked } = this.#head
    const lease = entries[0]?.claim.lease ?? 0
    const within = entries[0]?.within ?? 0
    const keys: string[] = []
    const args = [inbox, holder, String(this.#fences.highest), String(maxParked), String(lease)]
    for (const entry of entries) {
      const { claim, claimer } = entry
      this.#connection.inbox.listen(claim.nonce, entry)
      claimer.sending()
      keys.push(claim.key)
      args.push(argumentOf(claim, lease))
    }
    const sentAt = this.#connection.clock.now()
    const late = (replies: unknown) => this.#answer(entries, replies as unknown[], sentAt)
    const answered = (replies: unknown) => {
      this.#over(count)
      late(replies)
      entries.length = 0
    }
    const failed = (error: Error) => {
      this.#over(count)
      // One of them, or its reply, is too large for a connection: the others need not fail with it.
      const separable = count > 1 && error instanceof UnavailableError && error.lostConnections > 0
      for (const entry of entries) {
        if (separable) this.#send([entry])
        else entry.claimer.claimFailed(error, entry.claim.attempt)
      }
    }
    const request = this.#scripts.claim.with(keys, args)
    this.#connection.send(request, within, new ReplyCallbacks(answered, failed, late))
  }

  #answer(entries: Entry[], replies: unknown[], sentAt: number): void {
    this.#clock.update(Number(replies[entries.length * STRIDE]), sentAt)
    for (let index = 0; index < entries.length; index++) {
      const entry = entries[index] as Entry
      const { claim, claimer } = entry
      const reply = parse(replies, index)
      if (reply?.status === 'granted' || reply?.status === 'parked') this.#fences.observe(reply.fence)
      if (reply) claimer.claimed(reply, claim.attempt)
      else if (entries.length > 1)
        this.#send([entry]) // It failed for this key among others: alone, Redis says how.
      else claimer.claimFailed(new UnavailableError('Redis gave an answer that is none'), claim.attempt)
    }
  }
}
