import type { GatewayOptions } from '../../src/gateway/index.ts'
import { Bus, MemoryBus, MemoryServices, Services } from '../../src/index.ts'
import type { GatewayServer, GatewayWorld } from './gateway.ts'

/** Gateways with services and a bus, and others that use the same ones. */
export interface MessagingWorld extends AsyncDisposable {
  /** One more gateway. On Redis its services and bus are its own; in memory they are given. */
  open(options?: GatewayOptions): Promise<GatewayServer>
  /** The services of another process. Closed at the end. */
  services(): Services
  /** The bus of another process. Closed at the end. */
  bus(): Bus
}

export function messagingIn(world: GatewayWorld): MessagingWorld {
  const memory = { services: new MemoryServices(), bus: new MemoryBus() }
  const services: Services[] = []
  const buses: Bus[] = []
  const newServices = () => {
    const made = new Services(world.t ? { redis: world.t.redis } : { store: memory.services })
    services.push(made)
    return made
  }
  const newBus = () => {
    const made = new Bus(world.t ? { redis: world.t.redis } : { store: memory.bus })
    buses.push(made)
    return made
  }
  return {
    open: (options = {}) =>
      world.open(world.t ? options : { services: newServices(), bus: newBus(), ...options }),
    services: newServices,
    bus: newBus,
    async [Symbol.asyncDispose]() {
      await Promise.all(services.map((each) => each.close({ grace: 0 })))
      await Promise.all(buses.map((each) => each.disconnect({ grace: 0 })))
    },
  }
}
