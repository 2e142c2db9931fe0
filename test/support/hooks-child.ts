// What a user's own hooks throw, or reject with: it is told as a warning, and the queue goes on.

import { subscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import pDefer from 'p-defer'
import {
  channelName,
  Locker,
  MemoryQueueStore,
  type QueueOptions,
  RedisQueue,
  type TelemetryEvents,
  type WorkContext,
} from '../../src/index.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { emit, serve } from './process-child.ts'

process.on('warning', (warning) => {
  const { name, message, code } = warning as Error & { code?: string }
  emit('warned', { name, message, code })
})
subscribe(channelName('hook'), (message) => emit('hook', (message as TelemetryEvents['hook']).hook))

function throwing(name: string): () => never {
  return () => {
    throw new Error(name)
  }
}

function rejecting(name: string): () => Promise<never> {
  return async () => {
    throw new Error(name)
  }
}

/** Runs jobs under hooks that throw or reject. Returns what became of them. */
async function run(path: string | undefined, rejects: boolean): Promise<unknown> {
  const failing = rejects ? rejecting : throwing
  const place: QueueOptions = {
    ...(path === undefined ? { store: new MemoryQueueStore() } : { redis: path }),
    trace: failing('trace') as () => never,
    backoff: failing('backoff') as () => never,
    exposeError: failing('exposeError') as () => never,
  }
  const [here, there] = [new RedisQueue('queue', place), new RedisQueue('queue', place)]
  for (const event of ['submitted', 'active', 'completed', 'retrying', 'failed'] as const) {
    here.on(event, failing(event))
  }
  await here.watch(failing('watch'))
  here.process('work', (n: number, job) => {
    job.progress(n)
    if (n < 0 || job.attempt < 2) throw new Error('x')
    return n
  })
  const options = { attempts: 2, onProgress: failing('onProgress') }
  const results = await Promise.allSettled([1, 2, -1].map((n) => there.submit('work', n, options)))
  const enqueued = await here.enqueue('work', 3, { attempts: 2 })
  results.push(...(await Promise.allSettled([enqueued.result()])))
  await Promise.all([here.close(), there.close()])
  return results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason.code))
}

/** Runs works under hooks that throw or reject. Returns what became of them. */
async function works(path: string | undefined, rejects: boolean): Promise<unknown> {
  const failing = rejects ? rejecting : throwing
  const locker = new Locker({
    ...(path !== undefined && { redis: path }),
    trace: failing('trace') as () => never,
    exposeError: failing('exposeError') as () => never,
  })
  const shown: unknown[] = []
  const gate = pDefer()
  const work = async ({ key, progress }: WorkContext) => {
    await gate.promise
    progress(1)
    if (key === 'bad') throw new Error('x')
    return key
  }
  const callers = ['good', 'bad'].flatMap((key) => [
    locker.run(key, work, { onProgress: failing('onProgress') }),
    locker.run(key, work, { onProgress: (value) => shown.push(value) }),
  ])
  gate.resolve()
  const results: PromiseSettledResult<unknown>[] = await Promise.allSettled(callers)
  const stream = locker.stream('stream', () => {
    throw new Error('x')
  })
  results.push(...(await Promise.allSettled([stream.next()])))
  await locker.close()
  return [
    ...results.map((result) =>
      result.status === 'fulfilled' ? result.value : [result.reason.code, result.reason.remote?.name],
    ),
    shown,
  ]
}

/** Fails requests, and the hook that is told of that. Returns their statuses. */
async function requests(rejects: boolean): Promise<number[]> {
  const onError = (rejects ? rejecting : throwing)('onError')
  const locker = new Locker()
  const fail = async () => {
    throw new Error('x')
  }
  const server = createServer(memoizeHandler(locker, { onError }, fail))
  // A `next` of the user's own that throws.
  const broken = createServer((request, response) =>
    memoizeHandler(locker)(request, response, throwing('next')),
  )
  const statuses: number[] = []
  for (const each of [server, broken]) {
    each.listen(0, '127.0.0.1')
    await once(each, 'listening')
    const { port } = each.address() as AddressInfo
    const status = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } }).then(
      (response) => response.status,
      () => 0,
    )
    statuses.push(status)
    each.close()
  }
  await locker.close()
  return statuses
}

const handlers = { run, works, requests }
serve(handlers)

export type HooksHandlers = typeof handlers
