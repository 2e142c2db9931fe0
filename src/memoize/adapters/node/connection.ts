import type { Socket } from 'node:net'
import type { CapturedConnection } from './captured-connection.ts'

/**
 * The socket that a handler sees while its response is captured. Streaming and lifetime are those of the captured connection;
 * everything else (addresses, certificate, server) is read from the client's socket.
 */
export function socketProxy(captured: CapturedConnection, client: Socket): Socket {
  // A socket knows its addresses after its end only if they were read before.
  Reflect.get(client, 'remoteAddress')
  Reflect.get(client, 'localAddress')
  const handler: ProxyHandler<CapturedConnection> = {
    get: (_target, name) => {
      const owner = name in captured ? captured : client
      const value: unknown = Reflect.get(owner, name, owner)
      return typeof value === 'function' && name !== 'constructor' ? bound(value, owner) : value
    },
    set: (_target, name, value) => Reflect.set(captured, name, value, captured),
    has: (_target, name) => name in captured || name in client,
    getPrototypeOf: () => Object.getPrototypeOf(client),
  }
  // Each method is bound once, so that reads of it are identical.
  const bindings = new WeakMap<object, unknown>()
  const bound = (method: object, owner: object): unknown => {
    const call = bindings.get(method) ?? Function.prototype.bind.call(method as () => unknown, owner)
    bindings.set(method, call)
    return call
  }
  return new Proxy(captured, handler) as unknown as Socket
}
