import { FORMAT } from '../../../kernel/keys.ts'
import { atEndOfTurn, type Timer } from '../../../kernel/time.ts'
import type { Assignment, WorkerListener, WorkerRef } from '../store.ts'
import type { QueueCalls } from './queue-calls.ts'
import { notifyWorker } from './wire.ts'

/** How long the last message to a removed worker is waited for, ms. */
const LAST_MESSAGE_TIMEOUT = 500

/** The workers of a queue in this process, and the messages to them. */
export class WorkerRegistry {
  /** What processes broadcast when a job is ready and no worker is known for its command. */
  readonly capacityRequest: string
  readonly #calls: QueueCalls
  readonly #acceptWithin: number
  /** Listeners by nonce, including those of removed workers until they are unregistered. */
  readonly #listeners = new Map<string, WorkerListener>()
  /** Nonces of the workers that take jobs. */
  readonly #workers = new Set<string>()
  /** What resolves the removal of a worker, by nonce. Called with its last message. */
  readonly #removals = new Map<string, () => void>()
  readonly #unlisten: () => void

  /** `acceptWithin`: the lease of an attempt until its worker accepts it, ms. */
  constructor(calls: QueueCalls, acceptWithin: number) {
    this.#calls = calls
    this.#acceptWithin = acceptWithin
    this.capacityRequest = `${FORMAT}w ${calls.keys.base}`
    this.#unlisten = calls.connection.listen({
      up: () => {},
      down: () => {},
      broadcast: (message) => this.#onBroadcast(message),
    })
  }

  #onBroadcast(message: Buffer): void {
    if (this.#workers.size === 0 || message.toString() !== this.capacityRequest) return
    for (const nonce of this.#workers) this.#listeners.get(nonce)?.onCapacityRequested()
  }

  async setCapacity(
    worker: WorkerRef,
    slots: () => number,
    listener: WorkerListener,
    within: number,
    former?: number,
  ): Promise<Assignment> {
    const { connection, scripts, serverClock } = this.#calls
    this.#register(worker, listener)
    const commands = [this.#calls.command(worker.command)]
    const request = scripts.setCapacity.with(this.#calls.keysFor(commands), () => [
      ...this.#calls.argsFor(commands),
      ...[this.#calls.address(worker), String(slots()), worker.command, String(former ?? '')],
    ])
    const sentAt = connection.clock.now()
    const reply = await connection.call(request, within)
    const [now, since, assigned, more] = (reply as unknown[]).map(Number) as [number, number, number, number]
    serverClock.update(now, sentAt)
    return { since, assigned, more: more === 1 }
  }

  #register({ nonce }: WorkerRef, listener: WorkerListener): void {
    const { connection, fenceWatermark, serverClock } = this.#calls
    this.#listeners.set(nonce, listener)
    this.#workers.add(nonce)
    connection.inbox.listen(nonce, {
      hint: (hint) => {
        if (hint.kind === 'j') fenceWatermark.observe(Number(hint.fields[1]))
        if (hint.kind === 'w') this.#removals.get(nonce)?.()
        // Bounded, since the server's clock may have been set.
        notifyWorker(listener, hint, (until) => Math.min(serverClock.remaining(until), this.#acceptWithin))
      },
    })
  }

  /** Resolves when all that was delivered to the worker has arrived. */
  async remove(worker: WorkerRef, within: number): Promise<void> {
    // A worker that never set its capacity gets no deliveries. A removed one may have got a slot back since.
    if (!this.#listeners.has(worker.nonce)) return
    this.#workers.delete(worker.nonce)
    // After the outcomes of this turn, each of which gives a slot back.
    await new Promise<void>((resolve) => atEndOfTurn(resolve))
    const command = this.#calls.command(worker.command)
    const lastMessage = this.#lastMessage(worker)
    const { removeWorker } = this.#calls.scripts
    await this.#calls.call(removeWorker, [command], [], [this.#calls.address(worker)], within)
    await lastMessage
  }

  /** Resolves when the last message to a worker has arrived: deliveries before its removal may still be on the way. */
  async #lastMessage({ nonce }: WorkerRef): Promise<void> {
    const { connection } = this.#calls
    if (!connection.subscribed) return
    let timer: Timer | undefined
    await new Promise<void>((resolve) => {
      this.#removals.set(nonce, resolve)
      timer = connection.clock.after(LAST_MESSAGE_TIMEOUT, resolve, true)
    })
    timer?.cancel()
    this.#removals.delete(nonce)
  }

  unregister(nonce: string): void {
    this.#listeners.delete(nonce)
  }

  close(): void {
    this.#unlisten()
  }
}
