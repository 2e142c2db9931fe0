/** What is computed, kept and handed out in every part: some 2 KB of JSON. */
export interface Value {
  n: number
  name: string
  email: string
  active: boolean
  orders: Order[]
}

interface Order {
  id: string
  title: string
  quantity: number
  price: number
  at: string
}

/** What a caller receives: the value, or what `request` wraps it in. */
export type Answer = Value | { result: Value } | undefined | null

/** The value of a key `…:<n>`. */
export function valueFor(key: string): Value {
  const n = numberOf(key)
  const order = (index: number): Order => ({
    id: `order-${n}-${index}`,
    title: `Replacement part, number ${index} of a set`,
    quantity: index + 1,
    price: 19.95 + index,
    at: new Date(1_700_000_000_000 + (n * 16 + index) * 60_000).toISOString(),
  })
  return {
    n,
    name: `User ${n}`,
    email: `user.${n}@example.org`,
    active: true,
    orders: Array.from({ length: 14 }, (_, index) => order(index)),
  }
}

/** The number of the key whose value this is. */
export function numberIn(answer: Answer): number | undefined {
  return answer ? valueIn(answer).n : undefined
}

export function valueIn(answer: NonNullable<Answer>): Value {
  return 'result' in answer ? answer.result : answer
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
  get(key: string): Promise<Answer>
  /** Computes a value that is to be kept. @default get */
  fill?(key: string): Promise<Answer>
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
  load: () => Promise<Open>
}

const ALL = ['memory', 'redis', 'both'] as const

const soloflight = async (call: keyof typeof import('./soloflight.ts')): Promise<Open> =>
  (await import('./soloflight.ts'))[call]

/** Everybody, by name. `soloflight` is what people call: `run` with options. */
export const ENTRANTS = {
  soloflight: { layers: ALL, load: () => soloflight('run') },
  'soloflight, options hoisted': { layers: ALL, load: () => soloflight('runHoisted') },
  'soloflight, no options': { layers: ALL, load: () => soloflight('runWithoutOptions') },
  'soloflight, memoize': { layers: ALL, load: () => soloflight('memoized') },
  'soloflight, request': { layers: ALL, load: () => soloflight('request') },
  'lru-cache, ttlResolution 0': {
    package: 'lru-cache',
    layers: ['memory'],
    load: async () => (await import('./lru-cache.ts')).exact,
  },
  'lru-cache': { layers: ['memory'], load: async () => (await import('./lru-cache.ts')).byDefault },
  'ioredis GET': {
    package: 'ioredis',
    layers: ['redis'],
    load: async () => (await import('./ioredis-get.ts')).open,
  },
  'layered-loader': {
    package: 'layered-loader',
    layers: ALL,
    load: async () => (await import('./layered-loader.ts')).open,
  },
  'redis-semaphore': {
    package: 'redis-semaphore',
    layers: ['redis'],
    load: async () => (await import('./redis-semaphore.ts')).open,
  },
  'async-cache-dedupe': {
    package: 'async-cache-dedupe',
    layers: ['memory', 'redis'],
    load: async () => (await import('./async-cache-dedupe.ts')).open,
  },
  bentocache: {
    package: 'bentocache',
    layers: ALL,
    load: async () => (await import('./bentocache.ts')).open,
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
