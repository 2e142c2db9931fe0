import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket } from 'ws'
import type { RemoteBus, RemoteBusOptions, WebSocketClass } from '../../src/bus/remote/index.ts'
import { createGateway, type GatewayOptions } from '../../src/gateway/index.ts'
import { toNodeListener } from '../../src/gateway/node.ts'
import { toUpgradeListener } from '../../src/gateway/ws/index.ts'
import { Bus, MemoryBus } from '../../src/index.ts'
import type { GatewayWorld } from './gateway.ts'

/** Options of a remote bus in Node. */
export const remoteOptions = (given: RemoteBusOptions = {}): RemoteBusOptions => ({
  WebSocket: WebSocket as unknown as WebSocketClass,
  ...given,
})

/** A gateway at a port that goes and comes back. */
export class Place implements AsyncDisposable {
  readonly #options: () => GatewayOptions
  #server = createServer()
  #gateway = createGateway()
  port = 0

  constructor(options: () => GatewayOptions) {
    this.#options = options
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/ws`
  }

  async up(): Promise<this> {
    this.#gateway = createGateway(this.#options())
    this.#server = createServer(toNodeListener(this.#gateway))
    this.#server.on('upgrade', toUpgradeListener(this.#gateway))
    this.#server.listen(this.port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.port = (this.#server.address() as AddressInfo).port
    return this
  }

  async down(): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await this.#gateway.close({ grace: 0 })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.down()
  }
}

/** What happens, in order. */
export function recorded(bus: RemoteBus): string[] {
  const log: string[] = []
  bus.on('online', () => log.push('online'))
  bus.on('offline', () => log.push('offline'))
  return log
}

/** A gateway of this world that goes and comes back, and the bus of other processes. */
export function placeIn(w: GatewayWorld): { place: Place; bus: () => Bus; end: () => Promise<void> } {
  const store = new MemoryBus()
  const buses: Bus[] = []
  const bus = () => {
    const made = new Bus(w.t ? { redis: w.t.redis } : { store })
    buses.push(made)
    return made
  }
  const place = new Place(() => (w.t ? { redis: w.t.redis } : { bus: bus() }))
  return {
    place,
    bus,
    end: async () => {
      await place.down()
      await Promise.all(buses.map((each) => each.disconnect({ grace: 0 })))
    },
  }
}
