import type { MessageInfo } from '../../../src/bus/index.ts'
import type { Delivery, Entry, Mode } from './history.ts'
import type { BusActor, BusWorld } from './world.ts'

/** One consumption of a queue object: from `consume` until it is over. */
export interface ConsumptionRecord {
  readonly no: number
  readonly queue: string
  readonly mode: Mode
  readonly reliable: boolean
  readonly max: number
  /** Whether `stop` was called: no message may follow. */
  stopping: boolean
  over: boolean
  received: number
  /** The last message. */
  last: Entry | undefined
  lastGivenAs: number
  /** Messages that are not acknowledged, by id. */
  readonly unacked: Map<number, Entry>
}

/** Checks each message that is handed over: B1, B2, B3. */
export class DeliveryCheck {
  readonly #world: BusWorld

  constructor(world: BusWorld) {
    this.#world = world
  }

  /** Returns the entry of the message. */
  onMessage(
    actor: BusActor,
    consumption: ConsumptionRecord,
    value: number,
    id: number,
    info: MessageInfo,
  ): Entry | undefined {
    const { history } = this.#world
    const { queue, mode, max, reliable } = consumption
    const process = actor.process.id
    const name = `${queue} ${id} (${value})`
    history.say(() => `p${process} receives ${name}, ${JSON.stringify(info)}, c${consumption.no} ${mode}`)
    const violate = (guarantee: string, what: string) => history.violate(guarantee, `p${process}: ${what}`)
    if (consumption.stopping || consumption.over) violate('B1', `${name} follows the end of its consumption`)
    if (++consumption.received > max) violate('B1', `${name} follows the maximum of ${max}`)
    const entry = history.entriesOf(value).findLast((one) => one.id === id && one.queue === queue)
    if (!entry) {
      violate('B4', `${name} was never pushed with this id`)
      return undefined
    }
    if (info.key !== (entry.key || undefined)) violate('B2', `${name} has the key ${info.key}`)
    if (mode === 'reader') this.#onRead(consumption, entry, name, violate)
    else this.#onTaken(consumption, entry, info, name, process, violate)
    const moment = history.moment()
    const delivery: Delivery = { ...moment, process, mode: reliable ? 'reliable' : mode, ...info }
    if (mode !== 'reader') entry.deliveries.push(delivery)
    if (reliable) consumption.unacked.set(id, entry)
    consumption.last = entry
    return entry
  }

  /** A reader receives everything that is not removed, in order. */
  #onRead(
    { last }: ConsumptionRecord,
    entry: Entry,
    name: string,
    violate: (guarantee: string, what: string) => void,
  ): void {
    if (last?.life !== entry.life) return
    if (last.id >= entry.id) violate('B2', `${name} was read after ${last.id}`)
    const missed = this.#world.history.entries.find(
      (one) =>
        one.queue === entry.queue &&
        one.life === entry.life &&
        one.id > last.id &&
        one.id < entry.id &&
        !one.removed,
    )
    if (missed) violate('B2', `${name} was read, and ${missed.id} passed over`)
  }

  #onTaken(
    consumption: ConsumptionRecord,
    entry: Entry,
    { redelivered, fence }: MessageInfo,
    name: string,
    process: number,
    violate: (guarantee: string, what: string) => void,
  ): void {
    const { history } = this.#world
    const { last, lastGivenAs, mode } = consumption
    if (entry.deliveries.some((one) => one.mode !== 'reliable')) violate('B1', `${name} was delivered before`)
    if (entry.acked) violate('B2', `${name} was acknowledged at ${entry.acked.at.toFixed(1)}`)
    this.#checkHeld(entry, process, fence, name, violate)
    const times = entry.deliveries.length
    const isExact = this.#world.plan.calm && redelivered === times
    if (redelivered < times || redelivered >= entry.given || (this.#world.plan.calm && !isExact))
      violate('B2', `${name} has the count ${redelivered}, it was delivered ${times} times`)
    if (redelivered > 0) history.counts.redelivered++
    if (last?.life === entry.life && entry.givenAs < lastGivenAs && entry.id < last.id)
      violate('B2', `${name} comes after ${last.id}`)
    consumption.lastGivenAs = entry.givenAs
    if (mode !== 'exclusive') return
    history.counts.exclusive++
    if (!fence) violate('B3', `${name} has no fence`)
  }

  /** Its consumer holds it, unless the queue or its messages are gone. */
  #checkHeld(
    { queue, life: its, id, removed }: Entry,
    process: number,
    fence: number | undefined,
    name: string,
    violate: (guarantee: string, what: string) => void,
  ): void {
    const { server } = this.#world
    if (removed?.how === 'lost') violate('B1', `${name} was lost, and is handed over`)
    if (removed?.how === 'acked') violate('B1', `${name} was removed, and is handed over`)
    const life = server.queues.get(queue)?.life
    if (removed || !life || life.id !== its) return
    const holder = [...life.consumers].find(([, { held }]) => [...held].includes(id))
    const holding = holder && server.processOf(holder[0])
    if (holding !== process) violate('B2', `${name} is handed over, and p${holding ?? ' nobody'} holds it`)
    else if (fence !== undefined && (fence !== life.fence || life.holder !== holder?.[0]))
      violate('B3', `${name} is handed over under the fence ${fence}, which is over`)
    else if (holder && holder[1].leaseEndsAt <= server.now)
      violate('B2', `${name} is handed over, and its lease is over`)
  }
}
