import { IncomingMessage } from 'node:http'

/**
 * A request for the option `IncomingMessage` of a server of node:http that has a listener for `upgrade`. The server gives such a
 * listener all requests with a header Upgrade, and reads no body for them. Here only a request to become a WebSocket is an
 * upgrade. Any other protocol that is asked for, `h2c` for instance, is ignored, as RFC 9110, 7.8 says: the request is answered
 * as if it had not asked. As in a server without such a listener, Node 20 drops what a client sends behind it before the answer.
 */
export class UpgradingMessage extends IncomingMessage {
  // Not #private: the constructor of IncomingMessage writes it, before a private member exists.
  declare private isAsked: boolean | null

  /** The parser writes it, and the server reads it when it has the headers. */
  get upgrade(): boolean | null {
    return this.isAsked && (this.method === 'CONNECT' || asksForWebSocket(this))
  }

  set upgrade(asked: boolean | null) {
    this.isAsked = asked
  }
}

/** Whether a request asks to become a WebSocket, and nothing else. */
export function asksForWebSocket({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.upgrade?.toLowerCase() === 'websocket'
}
