import pDefer, { type DeferredPromise } from 'p-defer'
import { ClosedError, UnavailableError } from '../errors.ts'
import { emit } from '../kernel/telemetry.ts'
import type { Clock, Timer } from '../kernel/time.ts'
import type { Member } from './context.ts'
import { type Instances, RendezvousPlaces } from './places/rendezvous-places.ts'
import { Renewals } from './renewals.ts'
import type { Instance } from './store/store.ts'

/** Receives what becomes of the instances. */
export interface InstancesListener {
  /** All are connected, for the first time or after none was. */
  onOnline(): void
  /** None is connected any more. */
  onOffline(): void
  /** One is not connected any more, or could not be connected in time. */
  onDegraded(instance: string): void
  /** It is connected again. */
  onRestored(instance: string): void
}

/**
 * connecting  was never connected, and there is still time
 * online      connected
 * away        not connected any more, or not in time
 */
type Reachability = 'connecting' | 'online' | 'away'

/** An instance, with the leases that are renewed there. */
function memberOf(instance: Instance, within: number): Member {
  const { clock, queues, topics, objects } = instance
  return {
    instance,
    queueLeases: new Renewals(clock, (renewals) => queues.renew(renewals, within)),
    topicLeases: new Renewals(clock, (items) => renewByName(items, (terms) => topics.renew(terms, within))),
    objectLeases: new Renewals(clock, (items) => renewByName(items, (ttls) => objects.renew(ttls, within))),
  }
}

/** Several items may have one name. */
async function renewByName<T>(
  items: readonly (readonly [name: string, terms: T])[],
  renew: (terms: ReadonlyMap<string, T>) => Promise<readonly (Error | undefined)[]>,
): Promise<readonly (undefined | Error)[]> {
  const terms = new Map(items)
  const errors = await renew(terms)
  const errorOf = new Map([...terms.keys()].map((name, index) => [name, errors[index]]))
  return items.map(([name]) => errorOf.get(name))
}

/** The instances of a bus, from the first use or `connect` to `disconnect`. */
export class BusInstances {
  readonly clock: Clock
  readonly places: RendezvousPlaces
  readonly #listener: InstancesListener
  readonly #within: number
  readonly #members: readonly Member[]
  readonly #reachability = new Map<Member, Reachability>()
  /** What `onOnline` and `onOffline` have told. */
  #isOnline = false
  readonly #waiting = new Set<DeferredPromise<void>>()
  /** Undefined until {@link open}. */
  #unwatch: (() => void)[] | undefined
  #connectTimer: Timer | undefined

  /** `within`: time limit of calls and of the first connection, ms. `making`: one instance at least. */
  constructor(
    {
      making,
      existingOnly,
    }: { readonly making: readonly Instance[]; readonly existingOnly: readonly Instance[] },
    within: number,
    listener: InstancesListener,
  ) {
    const [first] = making
    if (!first) throw new Error('A bus has one instance at least')
    this.clock = first.clock
    this.#within = within
    this.#listener = listener
    const instances: Instances = {
      making: making.map((instance) => memberOf(instance, within)),
      existingOnly: existingOnly.map((instance) => memberOf(instance, within)),
    }
    this.#members = [...instances.making, ...instances.existingOnly]
    this.places = new RendezvousPlaces(instances, this.clock, within)
  }

  get all(): readonly Instance[] {
    return this.#members.map(({ instance }) => instance)
  }

  /** Connects. Only the first call has an effect. */
  open(): void {
    if (this.#unwatch) return
    for (const member of this.#members) this.#reachability.set(member, 'connecting')
    this.#connectTimer = this.clock.after(this.#within, () => this.#onConnectTimeout(), true)
    this.#unwatch = this.#members.map((member) => member.instance.open(() => this.#onChange(member)))
  }

  /** Whether all instances were connected, and not all are lost since; of one, whether it is connected. */
  isOnline(name?: string): boolean {
    if (name === undefined) return this.#isOnline
    return this.#members.some(({ instance }) => instance.name === name && instance.online)
  }

  /** Resolves when all instances are connected. @throws UnavailableError after `within` ms, ClosedError. */
  async whenOnline(): Promise<void> {
    if (this.#areAllOnline) return
    const online = pDefer<void>()
    this.#waiting.add(online)
    const timer = this.clock.after(this.#within, () => online.reject(this.#notConnectedError()))
    try {
      await online.promise
    } finally {
      timer.cancel()
      this.#waiting.delete(online)
    }
  }

  get #areAllOnline(): boolean {
    return this.#members.every((member) => this.#reachability.get(member) === 'online')
  }

  #notConnectedError(): UnavailableError {
    const names = this.all.filter(({ online }) => !online).map(({ name }) => name)
    return new UnavailableError(`Not connected within ${this.#within} ms: ${names.join(', ')}`, {
      sent: false,
    })
  }

  #onConnectTimeout(): void {
    for (const [member, reachability] of this.#reachability) {
      if (reachability === 'connecting') this.#onAway(member)
    }
  }

  #onChange(member: Member): void {
    const { online } = member.instance
    const before = this.#reachability.get(member)
    if (online && before !== 'online') this.#onConnected(member, before)
    else if (!online && before === 'online') this.#onAway(member)
  }

  #onConnected(member: Member, before: Reachability | undefined): void {
    this.#reachability.set(member, 'online')
    emit('instance', { instance: member.instance.name, up: true })
    for (const leases of [member.queueLeases, member.topicLeases, member.objectLeases]) leases.renewNow()
    if (before === 'away') this.#listener.onRestored(member.instance.name)
    if (!this.#areAllOnline) return
    for (const { resolve } of this.#waiting) resolve()
    if (this.#isOnline) return
    this.#isOnline = true
    this.#listener.onOnline()
  }

  #onAway(member: Member): void {
    this.#reachability.set(member, 'away')
    emit('instance', { instance: member.instance.name, up: false })
    this.#listener.onDegraded(member.instance.name)
    const isAnyOnline = [...this.#reachability.values()].includes('online')
    if (isAnyOnline || !this.#isOnline) return
    this.#isOnline = false
    this.#listener.onOffline()
  }

  /** Disconnects. `onOffline` is called unless it was. Never rejects. */
  async close(): Promise<void> {
    this.#connectTimer?.cancel()
    for (const unwatch of this.#unwatch ?? []) unwatch()
    for (const { reject } of this.#waiting) reject(new ClosedError('The bus was disconnected'))
    await Promise.all(this.all.map((instance) => instance.close().catch(() => {})))
    if (!this.#isOnline) return
    this.#isOnline = false
    this.#listener.onOffline()
  }
}
