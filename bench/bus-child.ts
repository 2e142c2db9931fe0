// A process of the bench of buses: sends messages, or receives them.

import { serve } from '../test/support/process-child.ts'
import { until } from '../test/support/wait.ts'
import type { BusTerms, Receiver, Route, Send } from './bus/bus.ts'
import { BUS_ENTRANTS, type BusName } from './bus/entrant.ts'
import { type Heard, messageOf, Tally } from './bus/messages.ts'
import { valueFor } from './contenders/contender.ts'
import { DEADLINE, type Pumped, pump } from './pump.ts'
import type { Address } from './queues/queue.ts'
import { now } from './statistics.ts'

/** What came of sending for a while. */
export interface Sending extends Pumped {
  /** Messages, those that failed among them. */
  sent: number
  /** ms on the clock of the machine. */
  startedAt: number
}

/** What the pump asks for: a key whose value is the same for all messages. */
const KEY = 'sent:0'
const SENT = valueFor(KEY)

const senders = new Map<string, { route: Route; send: Send; sent: number; failed: number }>()
const receivers = new Map<string, { tally: Tally; receiver: Receiver }>()

function openIn<T>(routes: ReadonlyMap<string, T>, name: string): T {
  const open = routes.get(name)
  if (!open) throw new Error(`${name} is not open`)
  return open
}

const handlers = {
  open: async (name: BusName, servers: Address[], { sends, receives, serves }: BusTerms): Promise<void> => {
    const { open } = await BUS_ENTRANTS[name].load()
    const bus = await open(servers)
    for (const route of receives) {
      const tally = new Tally(route.kind)
      const receiver = await bus.receiver(route, (message) => tally.hear(message))
      receivers.set(route.name, { tally, receiver })
    }
    for (const route of sends)
      senders.set(route.name, { route, send: await bus.sender(route), sent: 0, failed: 0 })
    for (const service of serves) await bus.serve?.(service)
  },
  /** Sends messages, so many at once. */
  pump: async (name: string, inFlight: number, ms: number): Promise<Sending> => {
    const sender = openIn(senders, name)
    const { send, route } = sender
    const before = sender.sent
    const get = () => send(messageOf(route.kind, sender.sent++)).then(() => SENT)
    const startedAt = now()
    const pumped = await pump({ get, close: async () => {} }, [KEY], inFlight, ms)
    sender.failed += pumped.lost
    return { ...pumped, sent: sender.sent - before, startedAt }
  },
  /** Messages sent since the process began, those that failed among them; and those. */
  sent: (name: string): { sent: number; failed: number } => {
    const { sent, failed } = openIn(senders, name)
    return { sent, failed }
  },
  /** What was received, once it is so much, or nothing more comes. */
  heard: async (name: string, count: number): Promise<Heard> => {
    const { tally } = openIn(receivers, name)
    const askedAt = now()
    const settled = () => tally.received >= count || now() - Math.max(askedAt, tally.lastAt) > DEADLINE
    await until(settled, { what: `${count} messages of ${name}`, timeout: 60_000 })
    const { received, wrong, disordered, lastAt } = tally
    return { received, wrong, disordered, lastAt }
  },
  restart: (name: string): Promise<void> | undefined => openIn(receivers, name).receiver.restart?.(),
  /** Microseconds of CPU used since the process began. */
  cpu: (): number => {
    const { user, system } = process.cpuUsage()
    return user + system
  },
}

export type BusHandlers = typeof handlers

serve(handlers)
