import { MemoryServices, Services } from '../services/index.ts'
import type { ResolvedBusOptions } from './options.ts'
import type { MemoryBus } from './store/memory-store.ts'
import { RedisInstance } from './store/redis/redis-instance.ts'
import type { Instance } from './store/store.ts'

/** Services within this process, shared by the Bus objects of one MemoryBus. */
const memoryServices = new WeakMap<MemoryBus, MemoryServices>()

function memoryServicesOf(bus: MemoryBus): MemoryServices {
  const services = memoryServices.get(bus) ?? new MemoryServices({ clock: bus.clock })
  memoryServices.set(bus, services)
  return services
}

/** The Services object of each instance, created when it is first used. */
export class ServiceEngines {
  readonly #options: ResolvedBusOptions
  readonly #memory: MemoryBus | undefined
  readonly #engines = new Map<Instance, Services>()

  constructor(options: ResolvedBusOptions, memory: MemoryBus | undefined) {
    this.#options = options
    this.#memory = memory
  }

  at(instance: Instance): Services {
    const known = this.#engines.get(instance)
    if (known) return known
    const { prefix, unavailableAfter, maxMessage, codec } = this.#options
    const services = new Services({
      ...{ prefix, unavailableAfter, maxMessage, codec },
      redis: instance instanceof RedisInstance ? instance.connection : null,
      store: this.#memory && memoryServicesOf(this.#memory),
    })
    this.#engines.set(instance, services)
    return services
  }

  /** Never rejects. */
  async close(grace: number): Promise<void> {
    await Promise.all([...this.#engines.values()].map((services) => services.close({ grace })))
  }
}
