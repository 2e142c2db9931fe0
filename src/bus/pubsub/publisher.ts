import pDefer from 'p-defer'
import { OverloadedError, UnavailableError } from '../../errors.ts'
import { Fifo } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import { Deadlines, outsideWork, type Pending } from '../../kernel/time.ts'
import { refProcess, unrefProcess } from '../../kernel/waiter.ts'
import type { BusContext } from '../context.ts'
import { MAX_BATCH, MAX_BATCH_BYTES, type TopicTerms } from '../store/store.ts'

/** Messages that wait in one publisher, and their bytes. */
const MAX_WAITING = 100_000
const MAX_WAITING_BYTES = 64 * 1024 * 1024

/** A message that is published. */
class Publication implements Pending {
  deadline: number = Number.POSITIVE_INFINITY
  readonly bytes: Buffer
  readonly #topic: string
  readonly #deferred = pDefer<void>()
  state: 'waiting' | 'sent' | 'settled' = 'waiting'

  constructor(topic: string, bytes: Buffer) {
    this.#topic = topic
    this.bytes = bytes
  }

  get promise(): Promise<void> {
    return this.#deferred.promise
  }

  expire(): void {
    const sent = this.state === 'sent'
    this.reject(new UnavailableError('The message was not published in time', { key: this.#topic, sent }))
  }

  resolve(): void {
    this.state = 'settled'
    this.#deferred.resolve()
  }

  reject(error: Error): void {
    this.state = 'settled'
    this.#deferred.reject(error)
  }
}

/**
 * Publishes messages of one topic in order. While a batch is sent, the next one collects. Each batch has a number: if the
 * connection sends it twice, it counts once.
 */
export class Publisher {
  readonly #id = newId()
  readonly #topic: string
  readonly #terms: TopicTerms
  readonly #context: BusContext
  readonly #deadlines: Deadlines
  readonly #waiting = new Fifo<Publication>()
  #waitingBytes = 0
  #number = 0
  /** Resolves when nothing waits any more; undefined: nothing does. */
  #sending: Promise<void> | undefined

  constructor(topic: string, terms: TopicTerms, context: BusContext) {
    this.#topic = topic
    this.#terms = terms
    this.#context = context
    this.#deadlines = new Deadlines(context.clock)
  }

  /** @throws OverloadedError; rejects with UnavailableError, OverloadedError, ClosedError. */
  publish(bytes: Buffer): Promise<void> {
    if (this.#waiting.size >= MAX_WAITING || this.#waitingBytes + bytes.length > MAX_WAITING_BYTES)
      throw new OverloadedError('Too many messages wait to be published', { key: this.#topic })
    const publication = new Publication(this.#topic, bytes)
    this.#deadlines.add(publication, this.#context.within)
    this.#waiting.push(publication)
    this.#waitingBytes += bytes.length
    this.#sending ??= outsideWork(() => this.#sendAll())
    return publication.promise
  }

  /** Never rejects. */
  async #sendAll(): Promise<void> {
    const { clock } = this.#context
    refProcess(clock)
    const stop = this.#context.onDisconnect(async () => this.#sending)
    // The messages of one turn are sent together.
    await undefined
    for (let batch = this.#nextBatch(); batch.length > 0; batch = this.#nextBatch()) await this.#send(batch)
    this.#sending = undefined
    stop()
    unrefProcess(clock)
  }

  /** Takes as many messages as one batch may have. */
  #nextBatch(): Publication[] {
    const batch: Publication[] = []
    let bytes = 0
    for (let next = this.#waiting.first; next && batch.length < MAX_BATCH; next = this.#waiting.first) {
      if (next.state === 'waiting') {
        if (batch.length > 0 && bytes + next.bytes.length > MAX_BATCH_BYTES) break
        bytes += next.bytes.length
        next.state = 'sent'
        batch.push(next)
      }
      this.#waiting.shift()
      this.#waitingBytes -= next.bytes.length
    }
    return batch
  }

  async #send(batch: readonly Publication[]): Promise<void> {
    const { places, within } = this.#context
    const messages = batch.map(({ bytes }) => bytes)
    const request = { publisher: this.#id, number: ++this.#number, messages, terms: this.#terms }
    const failure = await places
      .place('topic', this.#topic, ({ instance }) => instance.topics.publish(this.#topic, request, within))
      .then(
        () => undefined,
        (error: Error) => error,
      )
    for (const publication of batch) {
      if (publication.state === 'settled') continue
      this.#deadlines.delete(publication, within)
      if (failure) publication.reject(failure)
      else publication.resolve()
    }
  }
}
