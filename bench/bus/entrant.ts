import type { OpenBus } from './bus.ts'

/** One library among the others. */
interface BusEntrant {
  /** The folder of `peers` that holds its package. */
  peer?: string
  load: () => Promise<{ open: OpenBus }>
}

/** Everybody, by name. */
export const BUS_ENTRANTS = {
  soloflight: { load: () => import('./soloflight.ts') },
  busmq: { peer: 'busmq', load: () => import('./busmq.ts') },
  ioredis: { load: () => import('./ioredis.ts') },
} as const satisfies Record<string, BusEntrant>

export type BusName = keyof typeof BUS_ENTRANTS
