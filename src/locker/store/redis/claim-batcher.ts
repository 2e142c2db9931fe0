import { UnavailableError } from '../../../errors.ts'
import { Fifo } from '../../../kernel/collections.ts'
import { ReplyCallbacks } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import type { FenceWatermark, ServerClock } from '../../../kernel/redis/server.ts'
import type { Hint, Listener } from '../../../kernel/redis/subscription.ts'
import { atEndOfTurn, type Timer } from '../../../kernel/time.ts'
import { worksAreDeferred } from '../../../kernel/work-scheduler.ts'
import type { Client } from '../record.ts'
import type { Claim, Claimer } from '../store.ts'
import type { LockerScripts } from './scripts/index.ts'
import { encodeClaim, parseClaimReply, parseNotice, VALUES_PER_CLAIM } from './wire.ts'

/**
 * Most claims of one script. A script runs alone on the server, so it must stay short; while one runs there, the next is
 * encoded here. Of 8, 16 and 32, 16 gave the lowest p99 (bench `keys`).
 */
const MAX_BATCH = 16

/**
 * Claims in flight on a standalone server, as a window that grows as replies arrive and starts over when the queue is
 * empty. It does not grow while works of this process are deferred: another process may be granted a claim that waits
 * here, and start its work at once (bench `keys`).
 */
const INITIAL_WINDOW = MAX_BATCH
const MAX_WINDOW = 1024

/** When no reply arrives for this long, ms, the window opens: all claims go out, so that each fails at its own deadline. */
const STALL = 20

/** A claim and its claimer. Listens before the claim is sent, since a message may overtake the reply. */
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
    const notice = parseNotice(hint)
    if (notice) this.claimer.notice(notice)
  }
}

/**
 * Sends the claims of one turn in one script call on a standalone server. On a cluster each claim is sent by itself, because its
 * key has a slot of its own.
 */
export class ClaimBatcher {
  readonly #connection: Connection
  readonly #scripts: LockerScripts
  readonly #client: Client
  /** Learns from replies only: messages may be forged. */
  readonly #fences: FenceWatermark
  readonly #clock: ServerClock
  readonly #batchSize: number
  /** Claims of this turn, until it ends. */
  readonly #turn: Entry[] = []
  /** Claims that wait for the window. */
  readonly #queue = new Fifo<Entry>()
  #inFlight = 0
  #window: number
  #sending = false
  /** Counts replies and failures, for the stall timer. */
  #settled = 0
  #stallTimer: Timer | undefined

  constructor(
    connection: Connection,
    scripts: LockerScripts,
    client: Client,
    fences: FenceWatermark,
    clock: ServerClock,
  ) {
    this.#connection = connection
    this.#scripts = scripts
    this.#client = client
    this.#fences = fences
    this.#clock = clock
    this.#batchSize = connection.cluster ? 1 : MAX_BATCH
    this.#window = this.#initialWindow
  }

  /** Claims with the others of this turn. `within`: how long the store may take to answer, ms. */
  add(claim: Claim, within: number, claimer: Claimer): void {
    this.#turn.push(new Entry(claim, within, claimer))
    if (this.#turn.length === 1) atEndOfTurn(() => this.#flush())
  }

  #flush(): void {
    const entries = this.#turn
    // A burst begins at a random entry: processes that claim the same keys then win different ones (bench `keys`).
    const first = entries.length > this.#batchSize ? Math.floor(Math.random() * entries.length) : 0
    for (let n = 0; n < entries.length; n++) this.#queue.push(entries[(first + n) % entries.length] as Entry)
    entries.length = 0
    this.#sendQueued()
  }

  /** Infinite on a cluster: a node that does not answer must not delay the claims of the others. */
  get #initialWindow(): number {
    return this.#connection.cluster ? Number.POSITIVE_INFINITY : INITIAL_WINDOW
  }

  /** Sends what fits in the window. A claim that fails while it is sent calls this again: the running loop goes on then. */
  #sendQueued(): void {
    if (this.#sending) return
    this.#sending = true
    try {
      while (this.#queue.first && this.#inFlight < this.#window)
        this.#send(this.#nextBatch(this.#queue.first.within))
    } finally {
      this.#sending = false
    }
    if (this.#queue.size > 0) return this.#watchForStall()
    this.#stallTimer?.cancel()
    this.#stallTimer = undefined
  }

  /** The next claims for one script, which share its deadline. */
  #nextBatch(within: number): Entry[] {
    const entries: Entry[] = []
    while (entries.length < this.#batchSize && this.#queue.first?.within === within)
      entries.push(this.#queue.shift() as Entry)
    return entries
  }

  #watchForStall(): void {
    const settled = this.#settled
    this.#stallTimer ??= this.#connection.clock.after(
      STALL,
      () => {
        this.#stallTimer = undefined
        if (this.#settled === settled) this.#window = Number.POSITIVE_INFINITY
        this.#sendQueued()
      },
      true,
    )
  }

  /** A batch of claims was answered, or failed. */
  #onBatchSettled(count: number): void {
    this.#settled++
    this.#inFlight -= count
    if (this.#queue.size === 0) {
      if (this.#inFlight < INITIAL_WINDOW) this.#window = this.#initialWindow
    } else if (!worksAreDeferred(this.#connection.clock))
      this.#window = Math.max(this.#window, Math.min(2 * this.#window, MAX_WINDOW))
    this.#sendQueued()
  }

  #send(entries: Entry[]): void {
    const count = entries.length
    this.#inFlight += count
    const { inbox, holder, maxParked } = this.#client
    const lease = entries[0]?.claim.lease ?? 0
    const within = entries[0]?.within ?? 0
    const keys: string[] = []
    const args = [inbox, holder, String(this.#fences.highest), String(maxParked), String(lease)]
    for (const entry of entries) {
      const { claim, claimer } = entry
      this.#connection.inbox.listen(claim.nonce, entry)
      claimer.sending()
      keys.push(claim.record)
      args.push(encodeClaim(claim, lease))
    }
    const sentAt = this.#connection.clock.now()
    const onLateReply = (replies: unknown) => this.#deliver(entries, replies as unknown[], sentAt)
    const onReply = (replies: unknown) => {
      this.#onBatchSettled(count)
      onLateReply(replies)
      entries.length = 0
    }
    const onError = (error: Error) => {
      this.#onBatchSettled(count)
      // One claim, or its reply, may be too large for a connection: each is sent again alone, so that only that one fails.
      const separable = count > 1 && error instanceof UnavailableError && error.lostConnections > 0
      for (const entry of entries) {
        if (separable) this.#send([entry])
        else entry.claimer.claimFailed(error, entry.claim.attempt)
      }
    }
    const request = this.#scripts.claim.with(keys, args)
    this.#connection.send(request, within, new ReplyCallbacks(onReply, onError, onLateReply))
  }

  #deliver(entries: Entry[], replies: unknown[], sentAt: number): void {
    this.#clock.update(Number(replies[entries.length * VALUES_PER_CLAIM]), sentAt)
    for (let index = 0; index < entries.length; index++) {
      const entry = entries[index] as Entry
      const { claim, claimer } = entry
      const reply = parseClaimReply(replies, index)
      if (reply?.status === 'granted' || reply?.status === 'parked') this.#fences.observe(reply.fence)
      if (reply) claimer.claimed(reply, claim.attempt)
      // Sent alone, a claim fails with the error of Redis.
      else if (entries.length > 1) this.#send([entry])
      else claimer.claimFailed(new UnavailableError('Redis returned a malformed reply'), claim.attempt)
    }
  }
}
