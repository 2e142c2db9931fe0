/** What is computed, kept and handed out in every part. */
export interface Value {
  n: number
  name: string
  email: string
  roles: string[]
  active: boolean
}

/** The value of a key `…:<n>`. */
export function valueFor(key: string): Value {
  const n = numberOf(key)
  return {
    n,
    name: `User ${n}`,
    email: `user.${n}@example.org`,
    roles: ['reader', 'writer', 'admin'],
    active: true,
  }
}

/** The number at the end of a key. */
export function numberOf(key: string): number {
  return Number(key.slice(key.lastIndexOf(':') + 1))
}

/** Where values are kept: in the process alone, in Redis alone, or in both. */
export type Layers = 'memory' | 'redis' | 'both'

/** What a contender is made of. */
export interface Terms {
  layers: Layers
  host: string
  port: number
  /** Begins all its keys in Redis. */
  prefix: string
  /** ms */
  ttl: number
  /** Entries that it keeps in the process. */
  max: number
  /** How long a processor that gives no sign of life is waited for, ms; where the contender has such a thing. */
  lease: number
  /** Computes the value of a key that is nowhere. */
  work: (key: string) => Promise<Value> | Value
}

/** One library, used as its documentation says. */
export interface Contender {
  /** The value of a key: kept, or computed now. */
  get(key: string): Promise<Value | undefined | null>
  close(): Promise<void>
}

/** Makes a contender that is connected. */
export type Open = (terms: Terms) => Promise<Contender>

/** One contender among the others. */
export interface Entrant {
  /** The package that it is, for its version. */
  package?: string
  /** The layers that it can be without the others. */
  layers: readonly Layers[]
  load: () => Promise<{ open: Open }>
}

const ALL = ['memory', 'redis', 'both'] as const

/** Everybody, by name. */
export const ENTRANTS = {
  soloflight: { layers: ALL, load: () => import('./soloflight.ts') },
  'lru-cache': { package: 'lru-cache', layers: ['memory'], load: () => import('./lru-cache.ts') },
  'ioredis GET': { package: 'ioredis', layers: ['redis'], load: () => import('./ioredis-get.ts') },
  'layered-loader': { package: 'layered-loader', layers: ALL, load: () => import('./layered-loader.ts') },
  'redis-semaphore': {
    package: 'redis-semaphore',
    layers: ['redis'],
    load: () => import('./redis-semaphore.ts'),
  },
  'async-cache-dedupe': {
    package: 'async-cache-dedupe',
    layers: ['memory', 'redis'],
    load: () => import('./async-cache-dedupe.ts'),
  },
  bentocache: { package: 'bentocache', layers: ALL, load: () => import('./bentocache.ts') },
  cacheable: { package: 'cacheable', layers: ['memory', 'both'], load: () => import('./cacheable.ts') },
  'cache-manager': { package: 'cache-manager', layers: ALL, load: () => import('./cache-manager.ts') },
  cachified: {
    package: '@epic-web/cachified',
    layers: ['memory', 'redis'],
    load: () => import('./cachified.ts'),
  },
} as const satisfies Record<string, Entrant>

export type Name = keyof typeof ENTRANTS

/** The fullest of the layers that a contender can be and that are asked for, in this order. */
export function layersOf(name: Name, wanted: readonly Layers[]): Layers {
  const able: readonly Layers[] = ENTRANTS[name].layers
  const layers = wanted.find((each) => able.includes(each))
  if (!layers) throw new Error(`${name} can be none of ${wanted.join(', ')}`)
  return layers
}
