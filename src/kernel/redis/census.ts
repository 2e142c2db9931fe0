import {
  type CensusMember,
  type CensusOptions,
  type CensusResult,
  type Contributor,
  Contributors,
  processIdentity,
  resolveCensusOptions,
} from '../census.ts'
import type { CommandSender } from './call.ts'
import { type CensusLink, Inquiry } from './census-inquiry.ts'
import { type Asked, isQuestion, pageMessage, parseQuestion } from './census-wire.ts'

/** Questions that a process answers in one second, at most: anybody who can publish can ask. */
const MAX_QUESTIONS_PER_SECOND = 10

/** The census of one connection: asks all processes, and answers for this one. */
export class RedisCensus implements CensusMember {
  readonly #link: CensusLink
  readonly #contributors = new Contributors()
  readonly #inquiries = new Set<Inquiry>()
  /** The second in which questions are counted: when it began, by the clock, and how many there were. */
  #secondBegan = Number.NEGATIVE_INFINITY
  #questions = 0

  constructor(link: CensusLink) {
    this.#link = link
  }

  contribute(layer: string, contributor: Contributor): () => void {
    return this.#contributors.add(layer, contributor)
  }

  async census<Item>(options: CensusOptions): Promise<CensusResult<Item>> {
    const inquiry = new Inquiry(this.#link, resolveCensusOptions(options))
    this.#inquiries.add(inquiry)
    try {
      return (await inquiry.result) as CensusResult<Item>
    } finally {
      this.#inquiries.delete(inquiry)
    }
  }

  /** Messages arrive from now on; some may have been missed. */
  onSubscribed(): void {
    for (const inquiry of this.#inquiries) inquiry.ask()
  }

  /** Answers a broadcast that is a question. Returns whether it is meant to be one. */
  onBroadcast(message: Buffer): boolean {
    if (!isQuestion(message)) return false
    const question = this.#admits() ? parseQuestion(message) : undefined
    if (question) void this.#answer(question.asked, question.inbox, question.nonce)
    return true
  }

  #admits(): boolean {
    const now = this.#link.clock.now()
    if (now - this.#secondBegan >= 1000) {
      this.#secondBegan = now
      this.#questions = 0
    }
    return ++this.#questions <= MAX_QUESTIONS_PER_SECOND
  }

  /** Sends the pages one after the other, until one of them cannot be sent, or nobody hears it. Never rejects. */
  async #answer(asked: Asked, inbox: string, nonce: string): Promise<void> {
    const { clock, cluster, inboxPrefix } = this.#link
    const until = clock.now() + asked.within
    const identity = processIdentity(this.#link.inbox.id)
    const { pages, complete: isComplete } = this.#contributors.gather(asked, asked.maxItems)
    for (const [index, items] of pages.entries()) {
      const left = until - clock.now()
      if (left <= 0) return
      const page = { identity, index, isLast: index === pages.length - 1, isComplete }
      const args = [inboxPrefix + inbox, pageMessage(nonce, page, items)]
      const request = { send: (sender: CommandSender) => sender.send('publish', args) }
      const receivers = await this.#link.call(request, left).catch(() => undefined)
      // On a Cluster the number says nothing.
      if (receivers === undefined || (receivers === 0 && !cluster)) return
    }
  }

  /** Rejects those who ask. */
  close(): void {
    for (const inquiry of this.#inquiries) inquiry.close()
  }
}
