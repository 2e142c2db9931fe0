import type { MessageType } from '../message.ts'
import { EVENT_MESSAGES } from './event-messages.ts'
import { SESSION_MESSAGES } from './session-messages.ts'
import { WORK_MESSAGES } from './work-messages.ts'

/** All messages that a client may send on a WebSocket. */
export const MESSAGE_TYPES: readonly MessageType[] = [
  ...SESSION_MESSAGES,
  ...WORK_MESSAGES,
  ...EVENT_MESSAGES,
]
