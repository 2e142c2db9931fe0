import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bus, type BusOptions, MemoryBus } from '../../src/bus/index.ts'
import { type Setup, setup } from './setup.ts'

/** Where the buses of a test keep their records. */
export interface BusWorld extends AsyncDisposable {
  readonly kind: 'memory' | 'redis'
  /** The server, and what reaches it; undefined in memory. */
  readonly t: Setup | undefined
  /** One more Bus object, as another process would have it. Disconnected at the end. */
  open(options?: BusOptions): Bus
}

async function worldIn(kind: BusWorld['kind']): Promise<BusWorld> {
  const t = kind === 'redis' ? await setup() : undefined
  const store = new MemoryBus()
  const opened: Bus[] = []
  return {
    kind,
    t,
    open(options = {}) {
      const bus = new Bus({ ...(t ? { redis: t.redis } : { store }), ...options })
      opened.push(bus)
      return bus
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(opened.map((bus) => bus.disconnect({ grace: 1000 })))
      // U4
      if (t) await assertMortal(t)
      await t?.[Symbol.asyncDispose]()
    },
  }
}

async function assertMortal({ server }: Setup): Promise<void> {
  const keys = ((await server.call('KEYS', '*')) as unknown[]).map(String)
  for (const key of keys) assert.notEqual(Number(await server.call('PTTL', key)), -1, `${key} has no expiry`)
}

/** The same test twice: embedded, and on a Redis of its own. */
export function onBothStores(title: string, body: (world: BusWorld) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using world = await worldIn(kind)
      await body(world)
    })
  }
}
