import { UnavailableError } from '../errors.ts'
import type { Connection } from '../kernel/connection.ts'
import type { LockerScripts } from './scripts/index.ts'
import type { CallLimits, Claim, ClaimLimits, ClaimReply } from './store.ts'

/** Claims that one script carries at most: it runs alone on the server, so it must stay short. */
const MAX_BATCH = 64

interface Entry {
  claim: Claim
  resolve: (reply: ClaimReply) => void
  reject: (error: unknown) => void
  limits: ClaimLimits
}

/** What goes before the claims in every call. */
export interface ClaimHead {
  inbox: string
  holder: string
  maxParked: number
}

/** Reads what the claim script returned for one key; `undefined`: it failed for that key alone. */
function parse(reply: unknown[]): ClaimReply | undefined {
  const status = String(reply[0])
  const [, a, b, c, d, e] = reply
  switch (status) {
    case 'V':
    case 'E': {
      const outcome = { fence: Number(a), bytes: d as Buffer, fresh: Number(b), doomed: Number(c) === 1 }
      return { status: 'done', outcome: { kind: status === 'V' ? 'value' : 'error', ...outcome } }
    }
    case 'G':
      return { status: 'granted', fence: Number(a), takeover: Number(b) === 1 }
    case 'P':
      return {
        status: 'parked',
        fence: Number(a),
        left: Number(b),
        after: Number(c),
        trace: String(d),
        progress: (e as Buffer | null) ?? undefined,
      }
    case 'X':
      return { status: 'abandoned' }
    case 'O':
      return { status: 'overloaded' }
    default:
      return undefined
  }
}

function extraOf(claim: Claim): string {
  const flags = (claim.refresh ? 1 : 0) + (claim.takeover ? 0 : 2)
  if (claim.after === 0 && claim.parked === 0 && flags === 0 && claim.trace === '') return ''
  return `${claim.after} ${claim.parked} ${flags} ${claim.trace}`
}

/**
 * Carries the claims that are made in one tick in one script call: on a standalone server; on a cluster each goes alone,
 * since its key has a slot of its own.
 */
export class ClaimBatch {
  readonly #connection: Connection
  readonly #scripts: LockerScripts
  readonly #head: ClaimHead
  /** The highest fence seen so far: the next is above it, even if the server has lost the record and its clock. */
  readonly #seen: () => number
  readonly #within: number
  readonly #size: number
  /** Claims of this tick; flushed when it ends. */
  #entries: Entry[] = []

  constructor(
    connection: Connection,
    scripts: LockerScripts,
    head: ClaimHead,
    seen: () => number,
    limits: CallLimits,
  ) {
    this.#connection = connection
    this.#scripts = scripts
    this.#head = head
    this.#seen = seen
    this.#within = limits.within
    this.#size = connection.cluster ? 1 : MAX_BATCH
  }

  add(claim: Claim, limits: ClaimLimits): Promise<ClaimReply> {
    return new Promise((resolve, reject) => {
      this.#entries.push({ claim, resolve, reject, limits })
      if (this.#entries.length === 1) process.nextTick(() => this.#flush())
    })
  }

  #flush(): void {
    const entries = this.#entries
    this.#entries = []
    for (let from = 0; from < entries.length; from += this.#size)
      this.#send(entries.slice(from, from + this.#size))
  }

  #send(entries: Entry[]): void {
    const { inbox, holder, maxParked } = this.#head
    const args = [inbox, holder, String(this.#seen()), String(maxParked)]
    for (const { claim, limits } of entries) {
      limits.sending()
      args.push(`${claim.nonce}.${claim.attempt}`, String(claim.lease), extraOf(claim))
    }
    const late = (replies: unknown) => {
      ;(replies as unknown[][]).forEach((raw, index) => {
        const reply = parse(raw)
        if (reply) entries[index]?.limits.late(reply)
      })
    }
    this.#connection
      .call(
        this.#scripts.claim,
        entries.map(({ claim }) => claim.key),
        args,
        { within: this.#within, late },
      )
      .then(
        (replies) => {
          for (const [index, entry] of entries.entries()) this.#answer(entry, (replies as unknown[][])[index])
        },
        (error) => {
          for (const entry of entries) entry.reject(error)
        },
      )
  }

  #answer(entry: Entry, raw: unknown[] | undefined): void {
    const reply = raw && parse(raw)
    if (reply) entry.resolve(reply)
    else if (raw)
      this.#send([entry]) // It failed for this key among others: alone, Redis says how.
    else entry.reject(new UnavailableError('Redis gave an answer that is none', { key: entry.claim.key }))
  }
}
