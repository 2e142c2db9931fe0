import type { OpenServices } from './services.ts'

/** One library among the others. */
interface ServicesEntrant {
  /** The folder of `peers` that holds its package. */
  peer?: string
  load: () => Promise<{ open: OpenServices }>
}

/** Everybody, by name. */
export const SERVICES_ENTRANTS = {
  soloflight: { load: () => import('./soloflight.ts') },
  Moleculer: { peer: 'moleculer', load: () => import('./moleculer.ts') },
  'two hops': { load: () => import('./two-hops.ts') },
} as const satisfies Record<string, ServicesEntrant>

export type ServicesName = keyof typeof SERVICES_ENTRANTS
