import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../../errors.ts'
import { assertTransition, type Transitions } from '../../kernel/collections.ts'
import { newId } from '../../kernel/keys.ts'
import { emit } from '../../kernel/telemetry.ts'
import { lossMargin, RENEW_AFTER } from '../../kernel/time.ts'
import type { BusContext, Member } from '../context.ts'
import type { Attached, QueueSignal, RenewalReply } from '../store/store.ts'

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
  /** Stops listening and renewing. */
  end(): void
}

type State =
  | { readonly kind: 'detached' | 'attaching' }
  | { readonly kind: 'attached' | 'recovering' | 'detaching'; readonly place: Place }

const TRANSITIONS: Transitions<State['kind']> = {
  detached: ['attaching'],
  attaching: ['attached', 'detached'],
  attached: ['recovering', 'detaching', 'detached'],
  recovering: ['attached', 'detaching', 'detached'],
  detaching: ['detached'],
}

/**
 * Attaches this process to one queue, and keeps it attached.
 *
 * detached    not attached
 * attaching   looks for the queue, or makes it
 * attached    renews its lease
 * recovering  the instance does not know the attachment: finds out why
 * detaching   tells the instance
 *
 * | event                    | detached  | attaching | attached   | recovering | detaching |
 * | ------------------------ | --------- | --------- | ---------- | ---------- | --------- |
 * | attach                   | attaching |           |            |            |           |
 * | the queue is found, made |           | attached  |            |            |           |
 * | an error                 |           | detached  |            | attached   |           |
 * | a reply: not attached    |           |           | recovering |            |           |
 * | the queue was remade     |           |           |            | attached   |           |
 * | expired or closed        |           |           | detached   | detached   |           |
 * | detach                   |           |           | detaching  | detaching  |           |
 * | the reply, or an error   |           |           |            |            | detached  |
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
  #recovery: Promise<boolean> | undefined

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
    assertTransition('attachment', TRANSITIONS, this.#state.kind, state.kind)
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
        if (reply.kind === 'attached') this.#extend(reply.ttl, sentAt)
        if (reply.kind === 'attached')
          return { place: this.#placeAt(member, address, reply, end), existed: reply.existed }
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

  #placeAt(member: Member, address: string, { life, ttl }: Attached, stopListening: () => void): Place {
    this.#triedAt = this.#context.clock.now()
    this.#stoodStillUntil = undefined
    let stopRenewing = () => {}
    const place: Place = {
      ...{ member, address, life, ttl },
      end: () => {
        stopListening()
        stopRenewing()
      },
    }
    stopRenewing = this.#renew(place, ttl * RENEW_AFTER)
    return place
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
   * still for longer than its lease. Resolves with whether it is attached. Never rejects.
   */
  recover(): Promise<boolean> {
    if (this.#recovery) return this.#recovery
    if (this.#state.kind !== 'attached') return Promise.resolve(this.isAttached)
    const { place } = this.#state
    const stoodStill = this.#hasStoodStill
    this.#moveTo({ kind: 'recovering', place })
    this.#recovery = this.#recover(place, stoodStill).finally(() => {
      this.#recovery = undefined
    })
    return this.#recovery
  }

  async #recover(place: Place, stoodStill: boolean): Promise<boolean> {
    const { member, address, life } = place
    const isRecovering = () => this.#state.kind === 'recovering' && this.#state.place === place
    try {
      if (stoodStill) {
        const info = await member.instance.queues.inspect(this.queue, this.#context.within)
        if (isRecovering()) this.#lose(place, { expired: true, closed: info === undefined })
        return false
      }
      // With this token nothing is made.
      const sentAt = this.#context.clock.now()
      const reply = await this.#request(member, address, newId(), life)
      if (!isRecovering()) return this.isAttached
      if (reply.kind === 'closed') {
        this.#lose(place, { expired: false, closed: true })
        return false
      }
      const remade =
        reply.kind === 'attached' ? { ...place, life: reply.life, ttl: reply.ttl } : await this.#makeAgain()
      if (!isRecovering()) {
        if (reply.kind !== 'attached') remade.end()
        return this.isAttached
      }
      if (reply.kind !== 'attached') place.end()
      else this.#extend(reply.ttl, sentAt)
      this.#triedAt = this.#context.clock.now()
      this.#moveTo({ kind: 'attached', place: remade })
      emit('attachment', { queue: this.queue, change: 'remade' })
      this.#listener.onRemade()
      return true
    } catch {
      // The next renewal tries again.
      if (isRecovering()) this.#moveTo({ kind: 'attached', place })
      return this.isAttached
    }
  }

  /** The queue was lost with its server: it may be made elsewhere now. */
  async #makeAgain(): Promise<Place> {
    this.#context.places.forget('queue', this.queue)
    const { place } = await this.#findOrMake()
    return place
  }

  #lose(place: Place, reasons: { readonly expired: boolean; readonly closed: boolean }): void {
    place.end()
    this.#moveTo({ kind: 'detached' })
    if (reasons.closed) this.#context.places.forget('queue', this.queue)
    emit('attachment', { queue: this.queue, change: reasons.expired ? 'expired' : 'closed' })
    this.#listener.onLost(reasons)
  }

  /** Ends a consumer of which nothing is known here: its `leave` was lost. */
  endStray(): void {
    if (this.#state.kind !== 'attached') return
    const { member, address } = this.#state.place
    const request = { address, acked: [], unhanded: [] }
    member.instance.queues.leave(this.queue, request, this.#context.within).catch(() => {})
  }

  /** Detaches. Never rejects: an instance that does not answer forgets the attachment when its lease ends. */
  async detach(): Promise<void> {
    if (this.#state.kind !== 'attached' && this.#state.kind !== 'recovering') return
    const { place } = this.#state
    this.#moveTo({ kind: 'detaching', place })
    place.end()
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
