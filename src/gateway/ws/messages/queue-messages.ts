import { z } from 'zod'
import type { ConsumeOptions, Queue, QueueMessage } from '../../../bus/index.ts'
import { MAX_LEASE } from '../../../bus/internal.ts'
import { JsonText } from '../../../kernel/codec/json-text.ts'
import { objectText } from '../../http/json.ts'
import { begin, HANDLE, LEASE, PREFETCH, prefetchOf, readable, valid, valueTexts } from '../handles.ts'
import { duration, json, type MessageType, message, name } from '../message.ts'
import type { SocketSession } from '../socket-session.ts'
import type { MessageId, Subscription } from '../subscriptions.ts'

const INDEX = z.int().min(0)
/** Of a client, which asks for each message. */
interface Iteration {
  readonly iterator: AsyncIterator<QueueMessage<unknown>>
  isReading: boolean
}

/** A queue of the bus to which a client is attached: the gateway holds its leases while the socket is there. */
class QueueHandle implements Subscription {
  readonly queue: Queue
  readonly #session: SocketSession
  readonly #id: MessageId
  #iteration: Iteration | undefined
  /** Of a throttled consumption whose client has not said that it is ready. */
  #onReady: (() => void) | undefined

  constructor(session: SocketSession, id: MessageId, queue: Queue) {
    this.queue = queue
    this.#session = session
    this.#id = id
    queue.on('message', (value, messageId, info) => this.#push({ value, id: messageId, ...info }))
    queue.on('consuming', (on) => void session.push(id, { event: '"consuming"', on: String(on) }))
    queue.on('closed', () => void session.push(id, { event: '"closed"' }))
    queue.on('detached', () => void session.push(id, { event: '"detached"' }))
  }

  get name(): string {
    return this.queue.name
  }

  #push({ value, id, redelivered, key, fence }: QueueMessage<unknown>): void {
    const info = JSON.stringify({ id, redelivered, key, fence })
    void this.#session.push(this.#id, { message: readable(value), info })
  }

  async consume(options: ConsumeOptions, pace: 'iterate' | 'throttle' | undefined): Promise<void> {
    if (pace === 'iterate') {
      this.#iteration = { iterator: this.queue.messages(options), isReading: false }
      return
    }
    const { whenDrained } = this.#session
    const throttle = pace === undefined ? whenDrained : (ready: () => void) => this.#askClient(ready)
    await this.queue.consume({ ...options, throttle })
  }

  #askClient(ready: () => void): void {
    this.#onReady = ready
    void this.#session.push(this.#id, { event: '"throttle"' })
  }

  /** The client takes the next message of its iteration, or the next fetch. Idempotent until that comes. */
  ready(): void {
    this.#onReady?.()
    this.#onReady = undefined
    void this.#read()
  }

  async #read(): Promise<void> {
    const iteration = this.#iteration
    if (!iteration || iteration.isReading) return
    iteration.isReading = true
    try {
      const { done, value } = await iteration.iterator.next()
      if (!done) this.#push(value)
    } catch {
      // The event `detached` tells it.
    } finally {
      iteration.isReading = false
    }
  }

  end(): Promise<void> {
    return this.queue.detach()
  }
}

function handleOf(session: SocketSession, { sub }: { sub: MessageId }): QueueHandle {
  return session.subscription(sub, QueueHandle)
}

function queueOf(session: SocketSession, values: { sub: MessageId }): Queue {
  return handleOf(session, values).queue
}

/** Message queues of the bus. */
export const QUEUE_MESSAGES: readonly MessageType[] = [
  message({
    type: 'attach',
    scope: ['submit', 'work'],
    summary: 'Attaches to a queue, and makes it if it is not there. Answers whether it was.',
    members: { queue: name, ttl: LEASE.optional(), maxsize: INDEX.optional() },
    handle: async (session, { id, values: { queue: queueName, ...options } }) => {
      const queue = session.deps.messaging.bus.queue(queueName)
      const handle = new QueueHandle(session, id, queue)
      return JSON.stringify(await begin(session, id, handle, () => queue.attach(options)))
    },
  }),
  message({
    type: 'push',
    scope: 'submit',
    summary: 'Pushes a message. Answers its id.',
    members: {
      ...HANDLE,
      message: json,
      key: z.string().optional(),
      wait: duration(0, MAX_LEASE).optional(),
    },
    handle: async (session, { values, texts }) => {
      const { key, wait } = values
      const { messaging, options } = session.deps
      const pushed = messaging.message(JsonText.parse(texts.get('message') ?? 'null'))
      const push = { key, wait: wait && Math.min(wait, options.maxWait) }
      return String(await valid(() => queueOf(session, values).push(pushed, push)))
    },
  }),
  message({
    type: 'consume',
    scope: 'work',
    summary:
      'Consumes: messages come as `message`, with `info`, as fast as the client reads them. By `pace`, one is sent for each `ready`, or the event `throttle` asks for one before each fetch.',
    members: {
      ...HANDLE,
      max: z.int().optional(),
      remove: z.boolean().optional(),
      index: INDEX.optional(),
      reliable: z.boolean().optional(),
      last: INDEX.optional(),
      exclusive: z.boolean().optional(),
      lease: LEASE.optional(),
      prefetch: PREFETCH.optional(),
      pace: z.enum(['iterate', 'throttle']).optional(),
    },
    handle: async (session, { values: { sub, prefetch, pace, ...options } }) => {
      const handle = handleOf(session, { sub })
      const atOnce = prefetchOf(prefetch, options.reliable || pace !== undefined)
      await valid(() => handle.consume({ ...options, prefetch: atOnce }, pace))
      return undefined
    },
  }),
  message({
    type: 'ready',
    scope: 'work',
    summary: 'Takes the next message of an iteration, or lets a throttled consumption fetch.',
    members: HANDLE,
    handle: (session, { values }) => {
      handleOf(session, values).ready()
      return undefined
    },
  }),
  message({
    type: 'ack',
    scope: 'work',
    summary: 'Acknowledges the messages up to this id.',
    members: { ...HANDLE, upTo: z.int().min(1) },
    handle: async (session, { values }) => {
      await valid(() => queueOf(session, values).ack(values.upTo))
      return undefined
    },
  }),
  message({
    type: 'stop',
    scope: 'work',
    summary: 'Stops consuming: what was not acknowledged or sent goes back.',
    members: HANDLE,
    handle: async (session, { values }) => {
      await queueOf(session, values).stop()
      return undefined
    },
  }),
  message({
    type: 'close',
    scope: 'admin',
    action: 'close',
    summary: 'Closes a queue for all, and removes its messages.',
    members: HANDLE,
    handle: async (session, { values }) => {
      await queueOf(session, values).close()
      return undefined
    },
  }),
  message({
    type: 'flush',
    scope: 'admin',
    action: 'flush',
    summary: 'Removes all messages of a queue. Answers their number.',
    members: { queue: name },
    handle: async ({ deps }, { values }) => String(await deps.messaging.bus.queue(values.queue).flush()),
  }),
  message({
    type: 'inspect',
    scope: 'read',
    summary:
      'Answers the number of waiting messages, the ttl in ms, or the maxsize of a queue, or where it is; null if there is none.',
    members: { queue: name, of: z.enum(['count', 'ttl', 'maxsize', 'find']) },
    handle: async ({ deps }, { values }) => {
      const queue = deps.messaging.bus.queue(values.queue)
      return JSON.stringify(await queue[values.of]())
    },
  }),
  message({
    type: 'metadata',
    scope: 'read',
    summary: 'Answers the metadata of a queue; of one name, if it is given.',
    members: { queue: name, name: name.optional() },
    handle: async ({ deps }, { values }) => {
      const queue = deps.messaging.bus.queue(values.queue)
      const found = await (values.name === undefined ? queue.metadata() : queue.metadata(values.name))
      return values.name === undefined ? metadataText(found as Record<string, unknown>) : readable(found)
    },
  }),
  message({
    type: 'set-metadata',
    scope: 'submit',
    summary: 'Writes metadata of a queue. Answers whether there is a queue.',
    members: { queue: name, values: z.record(name, json) },
    handle: async ({ deps }, { values, texts }) => {
      const { messaging } = deps
      const written = Object.entries(valueTexts(texts)).map(
        ([key, text]) => [key, messaging.message(JsonText.parse(text))] as const,
      )
      const queue = messaging.bus.queue(values.queue)
      return JSON.stringify(await valid(() => queue.metadata(Object.fromEntries(written))))
    },
  }),
]

/** All metadata as JSON: the values of our own codec are kept byte for byte. */
function metadataText(found: Readonly<Record<string, unknown>>): string {
  return objectText(Object.fromEntries(Object.entries(found).map(([key, value]) => [key, readable(value)])))
}
