import pDefer from 'p-defer'
import { ClosedError, UnavailableError } from '../../errors.ts'
import type { CensusAnswer, CensusResult, ProcessIdentity } from '../census.ts'
import { MESSAGE_LIMIT, newId } from '../keys.ts'
import type { Clock, Timer } from '../time.ts'
import type { Request } from './call.ts'
import { type Asked, type Page, parsePage, questionMessage } from './census-wire.ts'
import type { Hint, Inbox, Listener } from './subscription.ts'

/** Processes whose answers are taken, at most. */
const MAX_PROCESSES = 10_000

/** Bytes of all answers together, at most: each of the items may be large. */
const MAX_BYTES = 64 * 1024 * 1024

/** What a connection gives to its census. */
export interface CensusLink {
  readonly inbox: Inbox
  readonly inboxPrefix: string
  readonly broadcastChannel: string
  readonly clock: Clock
  readonly cluster: boolean
  readonly subscribed: boolean
  readonly lastError: Error | undefined
  call(request: Request, timeout: number): Promise<unknown>
}

/** The answer of one process, as far as its pages have arrived. */
class PartialAnswer {
  readonly identity: ProcessIdentity
  readonly #pages = new Map<number, readonly object[]>()
  /** Of the last page, once that has arrived. */
  #lastIndex: number | undefined
  #lacksItems = false

  constructor(identity: ProcessIdentity) {
    this.identity = identity
  }

  /** All pages have arrived. */
  get isWhole(): boolean {
    return this.#lastIndex !== undefined && this.#pages.size === this.#lastIndex + 1
  }

  /** Whether a page is not known yet, and can belong to this answer. */
  accepts({ identity, index, isLast }: Page): boolean {
    const { host, pid, since } = this.identity
    if (identity.host !== host || identity.pid !== pid || identity.since !== since) return false
    if (this.#pages.has(index)) return false
    if (this.#lastIndex !== undefined) return !isLast && index < this.#lastIndex
    return !isLast || [...this.#pages.keys()].every((other) => other < index)
  }

  /** Adds a page with so many of its items. */
  add({ index, isLast, isComplete, items }: Page, room: number): void {
    this.#pages.set(index, items.slice(0, room))
    if (isLast) this.#lastIndex = index
    if (!isComplete || items.length > room) this.#lacksItems = true
  }

  get answer(): CensusAnswer<object> {
    const pages = [...this.#pages].sort(([one], [other]) => one - other)
    const complete = this.isWhole && !this.#lacksItems
    return { ...this.identity, items: pages.flatMap(([, items]) => items), complete }
  }
}

/** A question that was sent, and the answers to it. Its nonce is its own. */
class Round {
  readonly nonce: string = newId()
  readonly answers = new Map<string, PartialAnswer>()
  /** Redis has confirmed that it was published. */
  isConfirmed = false
  /** How many heard it; undefined: not known yet, or a Cluster. */
  receivers: number | undefined
  items = 0
  /** Of the JSON of all pages. */
  bytes = 0
  /** Answers of which all pages have arrived. */
  whole = 0
  /** Items, or processes, were left out. */
  capped = false
}

/**
 * One census, from its question to its result.
 *
 *   asking   the question is to be sent, or answers are waited for
 *   over     enough has arrived, the time has run out, or the question could not be sent
 *
 * When a connection was lost, the question is sent again, and begins a new round: answers to the earlier one are dropped.
 */
export class Inquiry implements Listener {
  readonly #link: CensusLink
  readonly #asked: Asked
  readonly #deferred = pDefer<CensusResult<object>>()
  readonly #timer: Timer
  /** The question that was sent last. */
  #round: Round | undefined
  #state: 'asking' | 'over' = 'asking'

  /** @throws TypeError if the question is too large for a message. */
  constructor(link: CensusLink, asked: Asked) {
    this.#link = link
    this.#asked = asked
    if (Buffer.byteLength(this.#message(newId())) > MESSAGE_LIMIT)
      throw new TypeError(`Expected a question of at most ${MESSAGE_LIMIT} bytes: \`filter\` is too long`)
    this.#timer = link.clock.after(asked.within, () => this.#onTimeout())
    // Without a subscription no answer would arrive: the question is sent when there is one.
    if (link.subscribed) this.ask()
  }

  get result(): Promise<CensusResult<object>> {
    return this.#deferred.promise
  }

  #message(nonce: string): string {
    return questionMessage(this.#link.inbox.id, nonce, this.#asked)
  }

  /** Sends the question. If it was sent before, answers may have been missed. */
  ask(): void {
    const { broadcastChannel } = this.#link
    let round: Round | undefined
    const request: Request = {
      send: (sender) => {
        // A command without a reply would count against the server.
        if (this.#state === 'over') return sender.send('time', [])
        round = this.#beginRound()
        return sender.send('publish', [broadcastChannel, this.#message(round.nonce)])
      },
    }
    this.#link.call(request, this.#asked.within).then(
      (receivers) => this.#onSent(round, Number(receivers)),
      (error) => {
        if (!this.#round?.isConfirmed) this.#fail(error)
      },
    )
  }

  #beginRound(): Round {
    const { inbox } = this.#link
    if (this.#round) inbox.ignore(this.#round.nonce)
    this.#round = new Round()
    inbox.listen(this.#round.nonce, this)
    return this.#round
  }

  #onSent(round: Round | undefined, receivers: number): void {
    if (!round) return
    round.isConfirmed = true
    if (!this.#link.cluster) round.receivers = receivers
    this.#endIfAnswered()
  }

  hint(hint: Hint): void {
    const page = parsePage(hint)
    if (!page || !this.#round) return
    this.#add(page, this.#round)
    if (this.#round.capped) this.#end()
    else this.#endIfAnswered()
  }

  #add(page: Page, round: Round): void {
    const { process } = page.identity
    const known = round.answers.get(process)
    const answer = known ?? new PartialAnswer(page.identity)
    if (!answer.accepts(page)) return
    const room = this.#asked.maxItems - round.items
    const isRefused = round.bytes + page.bytes > MAX_BYTES || (!known && round.answers.size === MAX_PROCESSES)
    round.capped = isRefused || page.items.length > room
    if (isRefused) return
    round.answers.set(process, answer)
    round.bytes += page.bytes
    answer.add(page, room)
    round.items += Math.min(room, page.items.length)
    if (answer.isWhole) round.whole++
  }

  #endIfAnswered(): void {
    const { receivers, whole = 0 } = this.#round ?? {}
    if (receivers !== undefined && whole >= receivers) this.#end()
  }

  #onTimeout(): void {
    if (this.#round?.isConfirmed) return this.#end()
    const { subscribed, lastError } = this.#link
    const why = subscribed ? 'the question was not sent' : 'without a subscription no answer arrives'
    const message = `No census within ${this.#asked.within} ms: ${why}`
    this.#fail(new UnavailableError(message, { cause: lastError }))
  }

  #end(): void {
    const { answers: partial = new Map<string, PartialAnswer>(), receivers, capped } = this.#round ?? {}
    const answers = [...partial.values()].map(({ answer }) => answer)
    const silent = receivers === undefined ? undefined : Math.max(0, receivers - answers.length)
    const heard = this.#link.subscribed && (this.#link.cluster || silent === 0)
    const complete = heard && !capped && answers.every((answer) => answer.complete)
    if (this.#stop()) this.#deferred.resolve({ answers, complete, silent })
  }

  #fail(error: unknown): void {
    if (this.#stop()) this.#deferred.reject(error)
  }

  close(): void {
    this.#fail(new ClosedError('The connection was closed'))
  }

  /** Returns whether it was asking. */
  #stop(): boolean {
    if (this.#state === 'over') return false
    this.#state = 'over'
    this.#timer.cancel()
    if (this.#round) this.#link.inbox.ignore(this.#round.nonce)
    return true
  }
}
