import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../../errors.ts'
import { assertTransition } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import { emit } from '../../kernel/telemetry.ts'
import { lossMargin, RENEW_AFTER } from '../../kernel/time.ts'
import type { BusContext, Member } from '../context.ts'
import type { Attached, QueueSignal, RenewalReply } from '../store/store.ts'
import { ATTACHMENT_TRANSITIONS } from './attachment-state.ts'

export interface AttachTerms {
  /** ms. */
  readonly ttl: number
  readonly maxsize: number
}

/** Receives the events of an attachment. */
export interface AttachmentListener {
  onSignal(signal: QueueSignal): void
  /** Signals arrive from now on. Some may have been missed. */
  onUp(): void
  /** The instance has a consumer of this attachment. */
  onConsuming?(): void
  /** The queue was lost with its server, and has been made again. This process consumes nothing there yet. */
  onRemade(): void
  /** Not attached any more. `closed`: the queue was closed, or has expired. `expired`: the lease of this process is over. */
  onLost(reasons: { readonly expired: boolean; readonly closed: boolean }): void
}

/** An attachment at the instance of its queue. */
interface Place {
  readonly member: Member
  readonly address: string
  readonly life: string
  readonly ttl: number
  readonly stopListening: () => void
  readonly stopRenewing: () => void
}

/**
 * What has become of an attachment that its instance did not know: attached `again`, to the same queue or to one that was made
 * anew; `lost`; or it is tried `later`, because an instance does not answer.
 */
export type Recovery = 'again' | 'lost' | 'later'

type State =
  | { readonly kind: 'detached' | 'attaching' }
  | { readonly kind: 'attached' | 'recovering' | 'detaching'; readonly place: Place }

/**
 * Attaches this process to one queue, and keeps it attached.
 */
export class Attachment {
  readonly queue: string
  readonly #context: BusContext
  readonly #listener: AttachmentListener
  readonly #watchesHolder: boolean
  #state: State = { kind: 'detached' }
  #terms: AttachTerms = { ttl: 0, maxsize: 0 }
  /** When this process last tried to renew its lease, by the clock. */
  #triedAt = 0
  /** Between two tries this process stood still for longer than its lease: when that was noticed. */
  #stoodStillUntil: number | undefined
  /** When the lease of this process counts as lost, by the clock. */
  #leaseEndsAt = 0
  #recovery: Promise<Recovery> | undefined

  constructor(
    queue: string,
    context: BusContext,
    listener: AttachmentListener,
    { watchesHolder = false }: { watchesHolder?: boolean } = {},
  ) {
    this.queue = queue
    this.#context = context
    this.#listener = listener
    this.#watchesHolder = watchesHolder
  }

  get isAttached(): boolean {
    return this.#state.kind === 'attached' || this.#state.kind === 'recovering'
  }

  /** Whether the instance still knows this attachment, as far as can be known: otherwise its consumer is lost as well. */
  get isLeaseValid(): boolean {
    return this.isAttached && this.#context.clock.now() < this.#leaseEndsAt
  }

  /** The lease counts from when the request was sent. */
  #extend(ttl: number, sentAt: number): void {
    this.#leaseEndsAt = Math.max(this.#leaseEndsAt, sentAt + ttl - lossMargin(ttl))
  }

  /** Where it is attached. @throws NotAttachedError */
  get place(): Pick<Place, 'member' | 'address' | 'life'> {
    if (this.#state.kind === 'attached' || this.#state.kind === 'recovering') return this.#state.place
    throw new NotAttachedError('The queue is not attached', { key: this.queue })
  }

  #moveTo(state: State): void {
    assertTransition('attachment', ATTACHMENT_TRANSITIONS, this.#state.kind, state.kind)
    this.#state = state
  }

  /**
   * Resolves with whether the queue existed.
   * @throws AlreadyAttachedError, UnavailableError, OverloadedError, ClosedError.
   */
  async attach(terms: AttachTerms): Promise<boolean> {
    this.#context.assertOpen()
    if (this.#state.kind !== 'detached')
      throw new AlreadyAttachedError('The queue is attached', { key: this.queue })
    this.#moveTo({ kind: 'attaching' })
    this.#terms = terms
    const { place, existed } = await this.#findOrMake().catch((error: Error) => {
      this.#moveTo({ kind: 'detached' })
      throw error
    })
    this.#moveTo({ kind: 'attached', place })
    try {
      // The bus may have been disconnected meanwhile: nothing would detach this.
      this.#context.assertOpen()
    } catch (error) {
      void this.detach()
      throw error
    }
    emit('attachment', { queue: this.queue, change: 'attached' })
    return existed
  }

  #findOrMake(): Promise<{ place: Place; existed: boolean }> {
    return this.#context.places.place('queue', this.queue, async (member, token) => {
      const { address, end } = member.instance.queues.listen({
        onSignal: (signal) => this.#onSignal(signal),
        onUp: () => this.#listener.onUp(),
      })
      try {
        const sentAt = this.#context.clock.now()
        const reply = await this.#request(member, address, token, '')
        if (reply.kind === 'attached')
          return { place: this.#placeAt(member, address, reply, sentAt, end), existed: reply.existed }
        end()
        return undefined
      } catch (error) {
        end()
        throw error
      }
    })
  }

  #request(member: Member, address: string, token: string, attachedTo: string) {
    const watchesHolder = this.#watchesHolder
    const request = { ...this.#terms, address, life: newId(), token, attachedTo, watchesHolder }
    return member.instance.queues.attach(this.queue, request, this.#context.within)
  }

  /** `sentAt`: when the request to attach was sent. */
  #placeAt(
    member: Member,
    address: string,
    { life, ttl, maxsize }: Attached,
    sentAt: number,
    stopListening: () => void,
  ): Place {
    // If it must be made again, it is made as it was.
    this.#terms = { ttl, maxsize }
    this.#triedAt = sentAt
    this.#stoodStillUntil = undefined
    this.#extend(ttl, sentAt)
    const stopRenewing = this.#renew({ member, address }, ttl * RENEW_AFTER)
    return { member, address, life, ttl, stopListening, stopRenewing }
  }

  #renew(
    { member, address }: Pick<Place, 'member' | 'address'>,
    interval: number,
    onReply?: (reply: RenewalReply, sentAt: number) => void,
  ): () => void {
    const onRenewal = (reply: RenewalReply | Error, sentAt: number) => {
      this.#onRenewal(reply, sentAt)
      if (!(reply instanceof Error)) onReply?.(reply, sentAt)
    }
    return member.queueLeases.add({ queue: this.queue, address }, interval, onRenewal, () => this.#onTry())
  }

  /**
   * Renews the leases every `interval` ms as well: a consumer has one of its own. The returned function ends that.
   * @throws NotAttachedError
   */
  renewEvery(interval: number, onReply: (reply: RenewalReply, sentAt: number) => void): () => void {
    return this.#renew(this.place, interval, onReply)
  }

  #onTry(): void {
    const now = this.#context.clock.now()
    if (this.#hasStoodStill) this.#stoodStillUntil ??= now
    this.#triedAt = now
  }

  get #hasStoodStill(): boolean {
    if (this.#state.kind !== 'attached') return false
    if (this.#stoodStillUntil !== undefined) return true
    return this.#context.clock.now() - this.#triedAt >= this.#state.place.ttl
  }

  #onRenewal(reply: RenewalReply | Error, sentAt: number): void {
    if (reply === 'detached') return void this.recover()
    if (reply instanceof Error || this.#state.kind !== 'attached') return
    if (reply === 'consuming') this.#listener.onConsuming?.()
    // A reply from before says nothing about the lease.
    if (this.#stoodStillUntil !== undefined && sentAt >= this.#stoodStillUntil)
      this.#stoodStillUntil = undefined
    this.#extend(this.#state.place.ttl, sentAt)
  }

  #onSignal(signal: QueueSignal): void {
    // It may be forged: the instance knows.
    if (signal === 'closed') void this.#check()
    else this.#listener.onSignal(signal)
  }

  async #check(): Promise<void> {
    if (this.#state.kind !== 'attached') return
    const { member, address } = this.#state.place
    const renewals = [{ queue: this.queue, address }]
    const sentAt = this.#context.clock.now()
    const [reply] = await member.instance.queues.renew(renewals, this.#context.within)
    if (reply !== undefined) this.#onRenewal(reply, sentAt)
  }

  /**
   * The instance says that this process is not attached: attaches it again, unless the queue was closed or this process stood
   * still for longer than its lease. Never rejects.
   */
  recover(): Promise<Recovery> {
    if (this.#recovery) return this.#recovery
    if (this.#state.kind !== 'attached') return Promise.resolve('lost')
    const { place } = this.#state
    const stoodStill = this.#hasStoodStill
    this.#moveTo({ kind: 'recovering', place })
    this.#recovery = this.#recover(place, stoodStill).finally(() => {
      this.#recovery = undefined
    })
    return this.#recovery
  }

  async #recover(place: Place, stoodStill: boolean): Promise<Recovery> {
    const { member, address, life } = place
    const isRecovering = () => this.#state.kind === 'recovering' && this.#state.place === place
    try {
      if (stoodStill) {
        const info = await member.instance.queues.inspect(this.queue, this.#context.within)
        if (isRecovering()) this.#lose(place, { expired: true, closed: info === undefined })
        return 'lost'
      }
      const again = await this.#attachAgain(place)
      if (!isRecovering()) {
        if (again && again.address !== address) again.stopListening()
        again?.stopRenewing()
        return 'lost'
      }
      if (!again) {
        this.#lose(place, { expired: false, closed: true })
        return 'lost'
      }
      place.stopRenewing()
      if (again.address !== address) place.stopListening()
      this.#moveTo({ kind: 'attached', place: again })
      emit('attachment', { queue: this.queue, change: again.life === life ? 'attached' : 'remade' })
      this.#listener.onRemade()
      return 'again'
    } catch {
      if (!isRecovering()) return 'lost'
      // The next renewal tries again.
      this.#moveTo({ kind: 'attached', place })
      return 'later'
    }
  }

  /** Undefined if the queue was closed. */
  async #attachAgain({ member, address, life, stopListening }: Place): Promise<Place | undefined> {
    const sentAt = this.#context.clock.now()
    // With this token nothing is made.
    const reply = await this.#request(member, address, newId(), life)
    if (reply.kind === 'closed') return undefined
    if (reply.kind === 'attached') return this.#placeAt(member, address, reply, sentAt, stopListening)
    // It was lost with its server: it may be made elsewhere now.
    this.#context.places.forget('queue', this.queue)
    return (await this.#findOrMake()).place
  }

  #lose(place: Place, reasons: { readonly expired: boolean; readonly closed: boolean }): void {
    endPlace(place)
    this.#moveTo({ kind: 'detached' })
    if (reasons.closed) this.#context.places.forget('queue', this.queue)
    emit('attachment', { queue: this.queue, change: reasons.expired ? 'expired' : 'closed' })
    this.#listener.onLost(reasons)
  }

  /** Ends a consumer of which nothing is known here: its `leave` was lost. It is settled as if its lease were over. */
  endStray(): void {
    if (this.#state.kind !== 'attached') return
    const { member, address, ttl } = this.#state.place
    const { queues } = member.instance
    const { within } = this.#context
    const consumer = { address, lease: ttl, reliable: false, exclusive: false, last: 0 }
    queues
      .consume(this.queue, consumer, within)
      .then(() => queues.leave(this.queue, { address, acked: [], unhanded: [] }, within))
      .catch(() => {})
  }

  /** Detaches. Never rejects: an instance that does not answer forgets the attachment when its lease ends. */
  async detach(): Promise<void> {
    if (this.#state.kind !== 'attached' && this.#state.kind !== 'recovering') return
    const { place } = this.#state
    this.#moveTo({ kind: 'detaching', place })
    endPlace(place)
    await place.member.instance.queues.detach(this.queue, place.address, this.#context.within).catch(() => {})
    this.#moveTo({ kind: 'detached' })
    emit('attachment', { queue: this.queue, change: 'detached' })
  }

  /** Removes the queue with its messages. @throws NotAttachedError, UnavailableError, OverloadedError, ClosedError. */
  async removeQueue(): Promise<void> {
    const { member, address } = this.place
    const isRemoved = await member.instance.queues.remove(this.queue, address, this.#context.within)
    if (!isRemoved) throw new ClosedError('The queue was closed, or has expired', { key: this.queue })
    if (this.#state.kind === 'attached' || this.#state.kind === 'recovering')
      this.#lose(this.#state.place, { expired: false, closed: true })
  }
}

function endPlace({ stopListening, stopRenewing }: Place): void {
  stopListening()
  stopRenewing()
}
