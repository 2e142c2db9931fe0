import { z } from 'zod'
import type { Persisted } from '../../../bus/index.ts'
import { MAX_PROPERTIES, MIN_OBJECT_TTL } from '../../../bus/internal.ts'
import { JsonText } from '../../../kernel/codec/json-text.ts'
import { textOf } from '../../http/json.ts'
import { Problem } from '../../problem.ts'
import { HANDLE, valid, valueTexts } from '../handles.ts'
import { duration, json, type MessageType, message, name } from '../message.ts'
import type { SocketSession } from '../socket-session.ts'
import type { MessageId, Subscription } from '../subscriptions.ts'

/** Longest ttl of an object, ms: one year. */
const MAX_TTL = 365 * 24 * 60 * 60_000

/** What a property keeps beside its name and its value, bytes. */
const KEPT_BY_PROPERTY = 64

/** How often an object keeps its values: as they are, and as they are stored. */
const KEPT_VALUES = 2

type Properties = Record<string, unknown>

/** An object of the bus, as a client has loaded or saved it last. */
class ObjectHandle implements Subscription {
  readonly object: Persisted<Properties>
  readonly properties: readonly string[]

  constructor(object: Persisted<Properties>, properties: readonly string[]) {
    this.object = object
    this.properties = properties
  }

  /** The bytes of its names, and of what it keeps of each property. */
  get bytes(): number {
    return this.properties.reduce((sum, property) => sum + property.length + KEPT_BY_PROPERTY, 0)
  }

  end(): void {
    this.object.unpersist()
  }
}

function handleOf(session: SocketSession, { sub }: { sub: MessageId }): ObjectHandle {
  return session.subscription(sub, ObjectHandle)
}

/** Persisted objects of the bus. */
export const OBJECT_MESSAGES: readonly MessageType[] = [
  message({
    type: 'object',
    scope: ['read', 'submit'],
    summary: 'Opens an object with these properties.',
    members: { object: name, properties: z.array(name).min(1).max(MAX_PROPERTIES) },
    handle: async (session, { id, values: { object: objectName, properties } }) => {
      const empty: Properties = Object.create(null)
      const { bus } = session.deps.messaging
      // Nothing is awaited before it is open: a message that comes right behind finds it.
      await valid(() => {
        const handle = new ObjectHandle(bus.persistify(objectName, empty, properties), properties)
        session.subscribe(id, handle, handle.bytes)
      })
      return undefined
    },
  }),
  message({
    type: 'load',
    scope: 'read',
    summary: 'Answers the properties that are stored; null if the object does not exist.',
    members: HANDLE,
    handle: async (session, { values }) => {
      const handle = handleOf(session, values)
      const { object, properties } = handle
      if (!(await object.load())) return undefined
      const stored = properties.filter((property) => object[property] !== undefined)
      const members = stored.map((property) => `${JSON.stringify(property)}:${textOf(object[property])}`)
      const text = `{${members.join()}}`
      await session.keeps(values.sub, handle.bytes + KEPT_VALUES * text.length)
      return text
    },
  }),
  message({
    type: 'save',
    scope: 'submit',
    summary:
      'Writes all properties; those that are absent are undefined. Answers false if somebody else has saved the object since.',
    members: { ...HANDLE, values: z.record(z.string(), json) },
    handle: async (session, { values: { sub }, texts }) => {
      const handle = handleOf(session, { sub })
      const { object, properties } = handle
      const { messaging } = session.deps
      const given = valueTexts(texts)
      const known = new Set(properties)
      if (Object.keys(given).some((property) => !known.has(property)))
        throw new Problem(400, 'invalid message', { detail: 'A property is none of those of the object' })
      const size = texts.get('values')?.length ?? 0
      await session.keeps(sub, handle.bytes + KEPT_VALUES * size)
      for (const property of properties) {
        const text = given[property]
        object[property] = text === undefined ? undefined : messaging.message(JsonText.parse(text))
      }
      return JSON.stringify(await valid(() => object.save()))
    },
  }),
  message({
    type: 'keep',
    scope: 'submit',
    summary:
      'Keeps an object for so long, again and again, while the socket is there; without `ttl`, no more.',
    members: { ...HANDLE, ttl: duration(MIN_OBJECT_TTL, MAX_TTL).optional() },
    handle: async (session, { values }) => {
      const { object } = handleOf(session, values)
      const { ttl } = values
      if (ttl === undefined) object.unpersist()
      else await valid(() => object.persist(ttl))
      return undefined
    },
  }),
]
