import { z } from 'zod'
import type { Channel } from '../../../bus/index.ts'
import { JsonText } from '../../../kernel/codec/json-text.ts'
import { begin, HANDLE, LEASE, PREFETCH, prefetchOf, readable, valid } from '../handles.ts'
import { json, type MessageType, message, name } from '../message.ts'
import type { SocketSession } from '../socket-session.ts'
import type { MessageId, Subscription } from '../subscriptions.ts'

/** A channel of the bus in which a client has a role: the gateway holds its lease while the socket is there. */
class ChannelHandle implements Subscription {
  readonly channel: Channel
  readonly #session: SocketSession
  readonly #id: MessageId
  /** Of a throttled channel whose client has not said that it is ready. */
  #onReady: (() => void) | undefined

  constructor(session: SocketSession, id: MessageId, channel: Channel) {
    this.channel = channel
    this.#session = session
    this.#id = id
    channel.on('message', (value, messageId, { redelivered }) => {
      void session.push(id, {
        message: readable(value),
        info: JSON.stringify({ id: messageId, redelivered }),
      })
    })
    for (const event of ['connect', 'disconnect', 'remote:connect', 'remote:disconnect', 'end'] as const)
      channel.on(event, () => void session.push(id, { event: JSON.stringify(event) }))
  }

  /** Asks the client before each fetch. */
  readonly askClient = (ready: () => void): void => {
    this.#onReady = ready
    void this.#session.push(this.#id, { event: '"throttle"' })
  }

  /** The client lets it fetch. Said twice, it is once. */
  ready(): void {
    this.#onReady?.()
    this.#onReady = undefined
  }

  end(): Promise<void> {
    return this.channel.disconnect()
  }
}

function channelOf(session: SocketSession, { sub }: { sub: MessageId }): Channel {
  return session.subscription(sub, ChannelHandle).channel
}

/** Channels of the bus. */
export const CHANNEL_MESSAGES: readonly MessageType[] = [
  message({
    type: 'connect',
    scope: 'work',
    summary:
      'Takes the role `local` of a channel. Answers when the client has it. With `pace`, the event `throttle` asks for a `ready-channel` before each fetch.',
    members: {
      channel: name,
      local: name,
      remote: name,
      ttl: LEASE.optional(),
      maxsize: z.int().min(0).optional(),
      reliable: z.boolean().optional(),
      prefetch: PREFETCH.optional(),
      lease: LEASE.optional(),
      pace: z.enum(['throttle']).optional(),
    },
    handle: async (
      session,
      { id, values: { channel: channelName, local, remote, prefetch, pace, ...options } },
    ) => {
      // Nothing is awaited before it has begun: an `end` that comes right behind finds it.
      await valid(() => {
        const channel = session.deps.messaging.bus.channel(channelName, local, remote)
        const handle = new ChannelHandle(session, id, channel)
        const throttle = pace === undefined ? session.whenDrained : handle.askClient
        const atOnce = prefetchOf(prefetch, options.reliable || pace !== undefined)
        return begin(session, id, handle, () => channel.connect({ ...options, prefetch: atOnce, throttle }))
      })
      return undefined
    },
  }),
  message({
    type: 'ready-channel',
    scope: 'work',
    summary: 'Lets a throttled channel fetch.',
    members: HANDLE,
    handle: (session, { values }) => {
      session.subscription(values.sub, ChannelHandle).ready()
      return undefined
    },
  }),
  message({
    type: 'send',
    scope: 'work',
    summary: 'Sends a message to the peer of a channel. Answers its id.',
    members: { ...HANDLE, message: json },
    handle: async (session, { values, texts }) => {
      const sent = session.deps.messaging.message(JsonText.parse(texts.get('message') ?? 'null'))
      return String(await channelOf(session, values).send(sent))
    },
  }),
  message({
    type: 'send-to',
    scope: 'submit',
    summary: 'Sends a message to a role of a channel, without taking one. Answers its id.',
    members: { channel: name, role: name, message: json },
    handle: async ({ deps }, { values: { channel, role }, texts }) => {
      const sent = deps.messaging.message(JsonText.parse(texts.get('message') ?? 'null'))
      return String(await deps.messaging.bus.channel(channel).sendTo(role, sent))
    },
  }),
  message({
    type: 'ack-channel',
    scope: 'work',
    summary: 'Acknowledges the messages of a channel up to this id.',
    members: { ...HANDLE, upTo: z.int().min(1) },
    handle: async (session, { values }) => {
      await channelOf(session, values).ack(values.upTo)
      return undefined
    },
  }),
  message({
    type: 'end-channel',
    scope: 'work',
    summary: 'Ends a channel for both roles.',
    members: HANDLE,
    handle: async (session, { values }) => {
      await channelOf(session, values).end()
      return undefined
    },
  }),
]
