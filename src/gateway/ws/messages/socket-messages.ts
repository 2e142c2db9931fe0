import { z } from 'zod'
import { HANDLE } from '../handles.ts'
import { type MessageType, message } from '../message.ts'

/** The socket itself. */
export const SOCKET_MESSAGES: readonly MessageType[] = [
  message({
    type: 'hello',
    scope: 'public',
    summary: 'Says the token. Answers with its scopes.',
    members: { token: z.string().max(4_096) },
    handle: (session, { values }) => JSON.stringify({ scopes: session.signIn(values.token) }),
  }),
  message({
    type: 'ping',
    scope: 'public',
    summary: 'Nothing: the answer tells that the gateway is there.',
    handle: () => undefined,
  }),
  message({
    type: 'end',
    scope: ['read', 'submit', 'work'],
    summary:
      'Ends a subscription, named by the id of the message that began it. Answers whether there was one.',
    members: HANDLE,
    handle: async (session, { values }) => JSON.stringify(await session.unsubscribe(values.sub)),
  }),
]
