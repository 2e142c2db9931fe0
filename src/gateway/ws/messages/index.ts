import type { MessageType } from '../message.ts'
import { CHANNEL_MESSAGES } from './channel-messages.ts'
import { EVENT_MESSAGES } from './event-messages.ts'
import { OBJECT_MESSAGES } from './object-messages.ts'
import { QUEUE_MESSAGES } from './queue-messages.ts'
import { SOCKET_MESSAGES } from './socket-messages.ts'
import { TOPIC_MESSAGES } from './topic-messages.ts'
import { WORK_MESSAGES } from './work-messages.ts'

/** All messages that a client may send on a WebSocket. */
export const MESSAGE_TYPES: readonly MessageType[] = [
  ...SOCKET_MESSAGES,
  ...WORK_MESSAGES,
  ...EVENT_MESSAGES,
  ...TOPIC_MESSAGES,
  ...QUEUE_MESSAGES,
  ...CHANNEL_MESSAGES,
  ...OBJECT_MESSAGES,
]
