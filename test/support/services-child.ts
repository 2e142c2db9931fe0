// A process that serves 'work' on a given Redis, and notes each run of a handler in a file that outlives it.

import { appendFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster } from 'ioredis'
import pDefer, { type DeferredPromise } from 'p-defer'
import { Services, type ServicesStats } from '../../src/services/index.ts'
import { emit, serve } from './process-child.ts'
import { type ChildServicesOptions, SERVICE, type Task, type WorkApi } from './services-protocol.ts'

let services: Services | undefined
let options: ChildServicesOptions | undefined
/** Handlers that wait for `finish`, by task. */
const works = new Map<string, Set<DeferredPromise<void>>>()

function opened(): { services: Services; options: ChildServicesOptions } {
  if (!services || !options) throw new Error('Expected `open` before other calls')
  return { services, options }
}

function note(name: string, attempt: number): void {
  appendFileSync(opened().options.log, `${JSON.stringify({ name, attempt, pid: process.pid })}\n`)
}

function finished(name: string): Promise<void> {
  const deferred = pDefer<void>()
  const waiting = works.get(name) ?? new Set()
  works.set(name, waiting.add(deferred))
  return deferred.promise
}

function block(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

const handlers = {
  open: async (given: ChildServicesOptions): Promise<string> => {
    const { redis, cluster, capacity, backlog, lease, unavailableAfter } = given
    options = given
    services = new Services({
      redis: cluster ? new Cluster(cluster) : redis,
      lease,
      ...(unavailableAfter === undefined ? {} : { unavailableAfter }),
    })
    const work = await services.register<WorkApi>(SERVICE, {
      ...(capacity === undefined ? {} : { capacity }),
      ...(backlog === undefined ? {} : { backlog }),
    })
    work.on('run', async ({ name, ms, blocks, quiet = false }: Task, call) => {
      if (quiet) return process.pid
      note(name, call.attempt)
      call.signal.addEventListener('abort', () => emit('aborted', name))
      emit('begun', name)
      if (blocks !== undefined) block(blocks)
      else if (ms === undefined) await finished(name)
      else if (ms > 0) await sleep(ms)
      return process.pid
    })
    work.on('count', async function* (name: string, count: number, ms: number, call) {
      note(name, call.attempt)
      for (let n = 0; n < count; n++) {
        if (ms > 0) await sleep(ms)
        yield n
      }
    })
    return services.id
  },
  /** Ends the handlers of a task. */
  finish: (name: string): void => {
    for (const deferred of works.get(name) ?? []) deferred.resolve()
    works.delete(name)
  },
  /** Keeps the event loop from turning. */
  block: (ms: number): void => {
    emit('blocked')
    block(ms)
  },
  /** Calls the service from this process. */
  call: (task: Task): Promise<number> =>
    opened().services.require<WorkApi>(SERVICE).emit('run', task) as Promise<number>,
  stats: (): ServicesStats => opened().services.stats(),
  close: (grace: number): Promise<void> => opened().services.close({ grace }),
}

export type ServicesHandlers = typeof handlers

process.once('SIGTERM', async () => {
  await services?.close({ grace: options?.grace ?? 5_000 })
  process.disconnect()
})

serve(handlers)
