// What the bench uses of its peers, stated here so that the repository type-checks without their being installed.

declare module 'layered-loader' {
  export interface LoaderConfig<T> {
    inMemoryCache?: { cacheType?: 'lru-map' | 'lru-object'; ttlInMsecs: number; maxItems?: number } | false
    asyncCache?: RedisCache<T>
    dataSourceGetOneFn: (key: string) => Promise<T>
  }
  export class Loader<T> {
    constructor(config: LoaderConfig<T>)
    get(key: string): Promise<T | undefined | null>
    close(): Promise<void>
  }
  export class RedisCache<T> {
    constructor(redis: unknown, config: { prefix: string; json: boolean; ttlInMsecs: number })
    readonly valueType?: T
  }
}

declare module 'bentocache' {
  export interface Layer {
    useL1Layer(driver: unknown): Layer
    useL2Layer(driver: unknown): Layer
    useBus(driver: unknown): Layer
  }
  export function bentostore(): Layer
  export class BentoCache {
    constructor(config: { default: string; prefix?: string; ttl: number; stores: Record<string, Layer> })
    getOrSet<T>(options: { key: string; factory: () => Promise<T> | T }): Promise<T>
    disconnectAll(): Promise<void>
  }
}

declare module 'bentocache/drivers/memory' {
  export function memoryDriver(options: { maxItems?: number }): unknown
}

declare module 'bentocache/drivers/redis' {
  export function redisDriver(options: { connection: unknown }): unknown
  export function redisBusDriver(options: { connection: unknown }): unknown
}

declare module 'redis-semaphore' {
  export class Mutex {
    constructor(redis: unknown, key: string, options?: { onLockLost?: (error: Error) => void })
    acquire(): Promise<void>
    release(): Promise<void>
  }
}

declare module 'async-cache-dedupe' {
  export interface Cache {
    define<T>(name: string, original: (key: string) => Promise<T> | T): void
  }
  export type Storage =
    | { type: 'memory'; options: { size: number } }
    | { type: 'redis'; options: { client: unknown } }
  export function createCache(options: { ttl: number; storage: Storage }): Cache
}

declare module 'bee-queue' {
  import type { Payload } from './queues/payload.ts'

  export interface Job {
    readonly id: string
    readonly data: Payload
    setId(id: string): this
    on(event: 'succeeded', listener: (result: unknown) => void): this
    on(event: 'failed', listener: (error: Error) => void): this
    save(): Promise<this>
  }
  export default class BeeQueue {
    constructor(
      name: string,
      settings: {
        redis: { host: string; port: number }
        isWorker?: boolean
        getEvents?: boolean
        storeJobs?: boolean
        removeOnSuccess?: boolean
        stallInterval?: number
      },
    )
    /** Those of which this process waits for an event. */
    readonly jobs: Map<string, Job>
    on(event: 'error', listener: (error: Error) => void): this
    on(event: 'job succeeded', listener: (id: string, result: unknown) => void): this
    ready(): Promise<this>
    process(concurrency: number, handler: (job: Job) => Promise<number>): this
    checkStalledJobs(interval: number): Promise<number>
    createJob(data: Payload): Job
    saveAll(jobs: Job[]): Promise<Map<Job, Error>>
    checkHealth(): Promise<{ waiting: number }>
  }
}

declare module 'bullmq' {
  import type { Payload } from './queues/payload.ts'

  export interface JobsOptions {
    removeOnComplete?: boolean | { count: number }
    deduplication?: { id: string }
  }
  export interface Job {
    readonly data: Payload
    waitUntilFinished(events: QueueEvents): Promise<unknown>
  }
  export class Queue {
    constructor(name: string, options: { connection: unknown })
    on(event: 'error', listener: (error: Error) => void): this
    waitUntilReady(): Promise<unknown>
    add(name: string, data: Payload, options: JobsOptions): Promise<Job>
    addBulk(jobs: { name: string; data: Payload; opts: JobsOptions }[]): Promise<Job[]>
    getWaitingCount(): Promise<number>
  }
  export class QueueEvents {
    constructor(name: string, options: { connection: unknown })
    on(event: 'error', listener: (error: Error) => void): this
    waitUntilReady(): Promise<unknown>
  }
  export class Worker {
    constructor(
      name: string,
      handler: (job: Job) => Promise<number>,
      options: {
        connection: unknown
        concurrency: number
        lockDuration?: number
        stalledInterval?: number
      },
    )
    on(event: 'error', listener: (error: Error) => void): this
    waitUntilReady(): Promise<unknown>
  }
}

declare module 'autocannon' {
  import type { EventEmitter } from 'node:events'

  export interface Options {
    url: string
    connections: number
    /** Seconds. */
    duration: number
    headers?: Record<string, string>
  }
  export interface Result {
    requests: { average: number; total: number }
    errors: number
    timeouts: number
    non2xx: number
  }
  /** Emits 'response' with client, status, bytes and the time that it took (ms). */
  export default function autocannon(
    options: Options,
    done: (error: Error | null, result: Result) => void,
  ): EventEmitter
}
