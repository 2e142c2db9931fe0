import { type QueueContext, QueueRecord } from '../../../../src/bus/store/queue-record.ts'
import type { LeaveRequest, TakeRequest } from '../../../../src/bus/store/store.ts'

// Records of queues with known bugs.

/** Returned messages come after those that were never given. */
export class TailRecord extends QueueRecord {
  override take(request: TakeRequest, context: QueueContext) {
    const { life } = this
    const kept = life?.messages.has(life.cursor) ? [...life.returned] : []
    if (kept.length > 0) life?.returned.clear()
    const reply = super.take(request, context)
    for (const id of kept) life?.returned.add(id)
    return reply
  }
}

/** Counts no deliveries. */
export class UncountingRecord extends QueueRecord {
  override take(request: TakeRequest, context: QueueContext) {
    this.inspect(context)
    for (const message of this.life?.messages.values() ?? []) message.redelivered = 0
    return super.take(request, context)
  }
}

/** Counts messages as given that were not handed over. */
export class OvercountingRecord extends QueueRecord {
  override leave(request: LeaveRequest, context: QueueContext): void {
    super.leave({ ...request, unhanded: [] }, context)
  }
}

/** Removes what is acknowledged, whoever holds it. */
export class CredulousRecord extends QueueRecord {
  override take(request: TakeRequest, context: QueueContext) {
    const { life } = this
    for (const id of request.acked) {
      const others = [...(life?.consumers ?? [])].filter(([address]) => address !== request.address)
      if (others.some(([, { held }]) => held.delete(id))) life?.messages.delete(id)
    }
    return super.take(request, context)
  }
}

/** Gives messages of a key while another one is held. */
export class KeylessRecord extends QueueRecord {
  override take(request: TakeRequest, context: QueueContext) {
    this.life?.turns.clear()
    return super.take(request, context)
  }
}

/** Forgets the next message of a key when its turn comes. */
export class TurnlessRecord extends QueueRecord {
  override take(request: TakeRequest, context: QueueContext) {
    return this.#withoutTurns(() => super.take(request, context))
  }

  override leave(request: LeaveRequest, context: QueueContext): void {
    this.#withoutTurns(() => super.leave(request, context))
  }

  #withoutTurns<T>(run: () => T): T {
    const blocked = new Set([...(this.life?.blocked.values() ?? [])].flatMap((ids) => [...ids]))
    const result = run()
    for (const id of blocked) this.life?.returned.delete(id)
    return result
  }
}

/** An exclusive consumer that dies stays the one that receives. */
export class MourningRecord extends QueueRecord {
  override take(request: TakeRequest, context: QueueContext) {
    const holder = this.life?.holder
    const hadLeft = holder !== undefined && !this.life?.consumers.has(holder)
    const reply = super.take(request, context)
    const { life } = this
    if (life && holder !== undefined && !hadLeft && !life.consumers.has(holder) && life.holder !== holder)
      life.holder = holder
    return reply
  }
}

/** Exclusive consumers have all one fence. */
export class FencelessRecord extends QueueRecord {
  override take(request: TakeRequest, context: QueueContext) {
    const fence = this.life?.fence ?? 0
    const reply = super.take(request, context)
    if (this.life && fence > 0) this.life.fence = fence
    return reply
  }
}

/** Renewals do not reach consumers. */
export class UnrenewedRecord extends QueueRecord {
  override renew(address: string, context: QueueContext) {
    const consumer = this.life?.consumers.get(address)
    const leaseEndsAt = consumer?.leaseEndsAt
    const reply = super.renew(address, context)
    if (consumer && leaseEndsAt !== undefined) consumer.leaseEndsAt = leaseEndsAt
    return reply
  }
}
