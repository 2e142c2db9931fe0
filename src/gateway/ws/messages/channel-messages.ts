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

  constructor(session: SocketSession, id: MessageId, channel: Channel) {
    this.channel = channel
    channel.on('message', (value, messageId, { redelivered }) => {
      void session.push(id, {
        message: readable(value),
        info: JSON.stringify({ id: messageId, redelivered }),
      })
    })
    for (const event of ['connect', 'disconnect', 'remote:connect', 'remote:disconnect', 'end'] as const)
      channel.on(event, () => void session.push(id, { event: JSON.stringify(event) }))
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
    summary: 'Takes the role `local` of a channel. Answers when the client has it.',
    members: {
      channel: name,
      local: name,
      remote: name,
      ttl: LEASE.optional(),
      maxsize: z.int().min(0).optional(),
      reliable: z.boolean().optional(),
      prefetch: PREFETCH.optional(),
      lease: LEASE.optional(),
    },
    handle: async (
      session,
      { id, values: { channel: channelName, local, remote, prefetch, ...options } },
    ) => {
      const open = () => session.deps.messaging.bus.channel(channelName, local, remote)
      const channel = await valid(open)
      const throttle = session.whenDrained
      const atOnce = prefetchOf(prefetch, options.reliable)
      const handle = new ChannelHandle(session, id, channel)
      await begin(session, id, handle, () => channel.connect({ ...options, prefetch: atOnce, throttle }))
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
