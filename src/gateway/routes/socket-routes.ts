import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

/** `/ws`, asked for without an upgrade. */
export const SOCKET_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/ws',
    scope: 'public',
    effect: 'reads',
    summary:
      'A WebSocket: workers, events, services and the bus on one connection. Its first message says the token.',
    answers: {
      101: 'The connection is a WebSocket.',
      426: 'The request asks for no upgrade, or the gateway serves none.',
    },
    handle() {
      throw new Problem(426, 'upgrade required', { headers: { upgrade: 'websocket', connection: 'upgrade' } })
    },
  }),
]
