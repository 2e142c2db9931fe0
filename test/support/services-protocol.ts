import type { Address } from './daemon.ts'

/** The name of the service of a scene. */
export const SERVICE = 'work'

/** What a process does with its Services object, and how it serves. */
export interface ChildServicesOptions {
  /** Servers, or how ioredis finds them. */
  redis: Address | { sentinels: { host: string; port: number }[]; name: string }
  /** Start nodes of a cluster: instead of `redis`. */
  cluster?: { host: string; port: number }[]
  lease: number
  unavailableAfter?: number
  capacity?: number
  backlog?: number
  /** Of `close` at SIGTERM. @default 5_000 */
  grace?: number
  /** Where it notes each run of a handler: `<name> <attempt> <pid>`. */
  log: string
}

/** The argument of the event 'run': what its handler does. Its result is the pid. */
export interface Task {
  name: string
  /** It takes so long, ms. Without it, it goes on until `finish`. */
  ms?: number
  /** Keeps the event loop from turning so long, ms. */
  blocks?: number
  /** Its run is not noted. */
  quiet?: boolean
  /** Makes the call larger. */
  pad?: string
}

/** One run of a handler. */
export interface Run {
  name: string
  attempt: number
  pid: number
}

/** The contract of the service. */
export type WorkApi = {
  run(task: Task): number
  /** Yields 0, 1, … up to `count`, with a pause of so many ms. */
  count(name: string, count: number, ms: number): AsyncIterable<number>
}
