// A process with queues and channels on a given Redis. It notes what it receives in a file that outlives it.

import { appendFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type AttachOptions,
  Bus,
  type Channel,
  type MessageInfo,
  type Queue,
  type QueueMessage,
} from '../../src/bus/index.ts'
import type { ChildBusOptions, ChildConnection, ChildConsumption, Note } from './bus-protocol.ts'
import { emit, serve } from './process-child.ts'

let bus: Bus | undefined
let options: ChildBusOptions | undefined
const queues = new Map<string, Queue>()
const channels = new Map<string, Channel>()
const iterations = new Map<string, AsyncIterator<QueueMessage<unknown>>>()
/** What is done at each message of a queue. */
const consumptions = new Map<string, ChildConsumption>()

function opened(): { bus: Bus; options: ChildBusOptions } {
  if (!bus || !options) throw new Error('Expected `open` before other calls')
  return { bus, options }
}

function note(entry: Omit<Note, 'pid'>): void {
  appendFileSync(opened().options.log, `${JSON.stringify({ ...entry, pid: process.pid })}\n`)
  emit(entry.what, entry)
}

function block(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

function onMessage(name: string, value: unknown, id: number, info: MessageInfo): void {
  const { redelivered, key, fence } = info
  note({
    ...{ what: 'message', name, value, id, redelivered },
    ...(key === undefined ? {} : { key }),
    ...(fence === undefined ? {} : { fence }),
  })
  const { blocks = 0, acks = false } = consumptions.get(name) ?? {}
  block(blocks)
  // It is acknowledged later if the instance does not answer now.
  if (acks)
    void queueOf(name)
      .ack(id)
      .catch(() => {})
}

function queueOf(name: string): Queue {
  const known = queues.get(name)
  if (known) return known
  const queue = opened().bus.queue(name)
  queues.set(name, queue)
  queue.on('message', (value, id, info) => onMessage(name, value, id, info))
  for (const event of ['attached', 'detached', 'closed'] as const)
    queue.on(event, () => note({ what: event, name }))
  return queue
}

async function iterate(name: string, count: number): Promise<void> {
  const iteration = iterations.get(name)
  for (let n = 0; n < count; n++) {
    const next = await iteration?.next()
    if (!next || next.done) return
    onMessage(name, next.value.value, next.value.id, next.value)
  }
}

const handlers = {
  open: (given: ChildBusOptions): Promise<void> => {
    options = given
    const { redis, unavailableAfter } = given
    bus = new Bus({ redis, ...(unavailableAfter === undefined ? {} : { unavailableAfter }) })
    return bus.connect()
  },
  attach: (name: string, given: AttachOptions): Promise<boolean> => queueOf(name).attach(given),
  consume: async (name: string, given: ChildConsumption): Promise<void> => {
    consumptions.set(name, given)
    const { iterates, blocks: _, acks: __, ...rest } = given
    if (iterates === undefined) return queueOf(name).consume(rest)
    iterations.set(name, queueOf(name).messages(rest))
    return iterate(name, iterates)
  },
  /** Takes more messages of the iteration. */
  iterate,
  ack: (name: string, id: number): Promise<void> => queueOf(name).ack(id),
  stop: (name: string): Promise<void> => queueOf(name).stop(),
  /** Pushes numbers from `from` on, so many at once, and notes those that were pushed, until it is killed. */
  produce: async (name: string, from: number, atOnce: number): Promise<void> => {
    for (let next = from; ; next += atOnce) {
      const values = Array.from({ length: atOnce }, (_, n) => next + n)
      await Promise.all(
        values.map(async (value) => {
          const id = await queueOf(name).push(value)
          note({ what: 'pushed', name, value, id })
        }),
      )
    }
  },
  isAttached: (name: string): boolean => queueOf(name).isAttached(),
  isConsuming: (name: string): boolean => queueOf(name).isConsuming(),
  /** Resolves when the process has its role. */
  connect: (name: string, { as, ...given }: ChildConnection): Promise<void> => {
    const channel = opened().bus.channel(name)
    channels.set(name, channel)
    for (const event of ['connect', 'disconnect', 'remote:connect', 'remote:disconnect', 'end'] as const)
      channel.on(event, () => note({ what: event, name }))
    channel.on('message', (value, id, { redelivered }) =>
      note({ what: 'message', name, value, id, redelivered }),
    )
    return as === 'local' ? channel.connect(given) : channel.listen(given)
  },
  send: async (name: string, values: unknown[]): Promise<void> => {
    await Promise.all(values.map((value) => channels.get(name)?.send(value)))
  },
  /** Keeps the event loop from turning. */
  block: async (ms: number): Promise<void> => {
    emit('blocked')
    await sleep(10)
    block(ms)
  },
}

export type BusHandlers = typeof handlers

process.once('SIGTERM', async () => {
  await bus?.disconnect({ grace: options?.grace ?? 5_000 })
  process.disconnect()
})

serve(handlers)
