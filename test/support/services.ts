import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AnyApi, Api, Service } from '../../src/services/index.ts'
import {
  MemoryServices,
  type RegisterOptions,
  Services,
  type ServicesOptions,
} from '../../src/services/index.ts'
import { ServiceKeys } from '../../src/services/store/redis/service-calls.ts'
import { loadOf } from '../../src/services/store/service-record.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

/** Where the services of a test keep their records. */
export interface ServicesWorld extends AsyncDisposable {
  readonly kind: 'memory' | 'redis'
  /** The server, and what reaches it; undefined in memory. */
  readonly t: Setup | undefined
  /** What reaches the records, for a Services object. */
  readonly place: Pick<ServicesOptions, 'redis' | 'store'>
  /** One more Services object, as another process would have it. Closed at the end. */
  open(options?: ServicesOptions): Services
  /** One more Services object that serves a service. */
  serve<A extends Api<A> = AnyApi>(
    name: string,
    options?: RegisterOptions & { of?: ServicesOptions },
  ): Promise<{ services: Services; service: Service<A> }>
  /** The Services object with this id. */
  find(id: string): Services
  /** The load of each process of a service, by the record. */
  loads(service: string): Promise<Record<string, number>>
  /** V4: all calls of a service are over, and the record says so. */
  idle(service: string): Promise<void>
}

async function worldIn(kind: ServicesWorld['kind']): Promise<ServicesWorld> {
  const t = kind === 'redis' ? await setup() : undefined
  const store = new MemoryServices()
  const place = t ? { redis: t.redis } : { store }
  const opened: Services[] = []
  const open = (options: ServicesOptions = {}) => {
    const services = new Services({ ...place, ...options })
    opened.push(services)
    return services
  }
  const loads = async (service: string): Promise<Record<string, number>> => {
    if (!t)
      return store.apply(service, ({ processes }) =>
        Object.fromEntries([...processes].map(([process, entry]) => [process, loadOf(entry)])),
      )
    const [, , key = ''] = new ServiceKeys('soloflight', service).all
    const flat = (await t.server.call('HGETALL', key)) as string[]
    const pairs = flat.flatMap((process, index) => {
      if (index % 2 === 1) return []
      const [dealt = 0, finished = 0] = (flat[index + 1] ?? '').split(' ').map(Number)
      return [[process, dealt - finished] as const]
    })
    return Object.fromEntries(pairs)
  }
  return {
    kind,
    t,
    place,
    open,
    async serve<A extends Api<A> = AnyApi>(
      name: string,
      { of, ...options }: RegisterOptions & { of?: ServicesOptions } = {},
    ) {
      const services = open(of)
      return { services, service: await services.register<A>(name, options) }
    },
    find(id) {
      const found = opened.find((services) => services.id === id)
      return found ?? assert.fail(`no Services object has the id ${id}`)
    },
    loads,
    async idle(service) {
      const fact = async () => Object.values(await loads(service)).every((load) => load === 0)
      await until(fact, { what: `${service} to be idle` }).catch(async () =>
        assert.fail(`loads: ${JSON.stringify(await loads(service))}`),
      )
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(opened.map((services) => services.close({ grace: 0 })))
      await t?.[Symbol.asyncDispose]()
    },
  }
}

/** The same test twice: embedded, and on a Redis of its own. */
export function onBothStores(title: string, body: (world: ServicesWorld) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using world = await worldIn(kind)
      await body(world)
    })
  }
}

/** What is left of a sequence. */
export async function all<T>(values: AsyncIterable<T>): Promise<T[]> {
  const taken: T[] = []
  for await (const value of values) taken.push(value)
  return taken
}
