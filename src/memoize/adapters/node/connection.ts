import type { Socket } from 'node:net'
import type { Wire } from './wire.ts'

/**
 * A client's connection as a handler sees it whose response is captured: what is written to it, and how long it lives, is
 * the wire's; what it tells of the client (addresses, certificate, server) is its own.
 */
export function connectionFace(wire: Wire, real: Socket): Socket {
  // A socket remembers its addresses beyond its end, once it was asked.
  for (const _ of [real.remoteAddress, real.localAddress]);
  const handler: ProxyHandler<Wire> = {
    get: (_target, name) => {
      const owner = name in wire ? wire : real
      const value: unknown = Reflect.get(owner, name, owner)
      return typeof value === 'function' && name !== 'constructor' ? bound(value, owner) : value
    },
    set: (_target, name, value) => Reflect.set(wire, name, value, wire),
    has: (_target, name) => name in wire || name in real,
    getPrototypeOf: () => Object.getPrototypeOf(real),
  }
  const known = new WeakMap<object, unknown>()
  // The same each time: it may be compared.
  const bound = (method: object, owner: object): unknown => {
    const call = known.get(method) ?? Function.prototype.bind.call(method as () => unknown, owner)
    known.set(method, call)
    return call
  }
  return new Proxy(wire, handler) as unknown as Socket
}
