import { z } from 'zod'
import type { Pubsub } from '../../../bus/index.ts'
import { MAX_KEEP } from '../../../bus/internal.ts'
import { JsonText } from '../../../kernel/codec/json-text.ts'
import { checkScope } from '../../access.ts'
import { elementTexts } from '../../http/json.ts'
import { callService, MAX_ARGUMENTS, MAX_TRIES } from '../../messaging/service-call.ts'
import { begin, readable, valid } from '../handles.ts'
import { duration, json, type MessageType, message, name } from '../message.ts'
import type { Subscription } from '../subscriptions.ts'

const DAY = 24 * 60 * 60_000

/** Of a topic: what is kept. */
const TOPIC_OPTIONS = {
  keep: z.int().min(0).max(MAX_KEEP).optional(),
  retain: z.boolean().optional(),
  ttl: duration(1, 366 * DAY).optional(),
}

class TopicHandle implements Subscription {
  readonly #topic: Pubsub

  constructor(topic: Pubsub) {
    this.#topic = topic
  }

  end(): Promise<void> {
    return this.#topic.unsubscribe()
  }
}

/** Services are called, and topics of the bus published and subscribed to. */
export const TOPIC_MESSAGES: readonly MessageType[] = [
  message({
    type: 'call',
    scope: 'submit',
    summary: 'Calls an event of a service. Answers what its handler returned.',
    members: {
      service: name,
      event: name,
      args: z.array(json).max(MAX_ARGUMENTS).default([]),
      timeout: duration(1, Number.MAX_SAFE_INTEGER).optional(),
      tries: z.int().min(1).max(MAX_TRIES).optional(),
      wait: duration(0, Number.MAX_SAFE_INTEGER).optional(),
    },
    handle: ({ deps, signal }, { values, texts }) =>
      callService(deps, { ...values, args: elementTexts(texts.get('args') ?? '[]') ?? [] }, signal),
  }),
  message({
    type: 'publish',
    scope: 'submit',
    summary: 'Publishes a message to the subscribers of a topic.',
    members: { topic: name, message: json, ...TOPIC_OPTIONS },
    async handle({ deps }, { values: { topic, message: _, ...options }, texts }) {
      const published = JsonText.parse(texts.get('message') ?? 'null')
      await valid(() => deps.messaging.publish(topic, published, options))
      return undefined
    },
  }),
  message({
    type: 'subscribe',
    scope: 'read',
    summary:
      'Subscribes to a topic: `message` with its `life` and `number`, or `gap`. Goes on behind `from`. To have messages kept needs the scope submit too.',
    members: {
      topic: name,
      ...TOPIC_OPTIONS,
      from: z.strictObject({ life: z.string().min(1).max(64), number: z.int().min(0) }).optional(),
    },
    handle: (session, { id, values: { topic, from, ...options } }) =>
      valid(async () => {
        if (Object.values(options).some((option) => option !== undefined))
          checkScope(session.scopes, 'submit')
        const pubsub = session.deps.messaging.bus.pubsub(topic, options)
        const push = (members: Record<string, string>) => {
          const { life, number } = pubsub.position ?? {}
          void session.push(id, { ...members, life: JSON.stringify(life), number: JSON.stringify(number) })
        }
        pubsub.on('message', (value) => push({ message: readable(value) }))
        pubsub.on('gap', (missed) => push({ gap: JSON.stringify(missed ?? null) }))
        await begin(session, id, new TopicHandle(pubsub), () => pubsub.subscribe({ from }))
        return JSON.stringify(pubsub.position ?? null)
      }),
  }),
]
