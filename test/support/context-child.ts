// Asks for everything once in a context of its own, and looks what of that context is left while others ask on.

import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Locker, RedisQueue } from '../../src/index.ts'
import { memoizeHandler as memoizeFetch } from '../../src/memoize/fetch.ts'
import { serve } from './process-child.ts'
import { until } from './wait.ts'

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

const context = new AsyncLocalStorage<object>()

/** Names of the kinds of call whose store was not collected. */
async function leftover(path: string | undefined): Promise<string[]> {
  const place = path === undefined ? {} : { redis: path }
  const locker = new Locker({ ...place, ttl: 60_000, concurrency: 2 })
  const queue = new RedisQueue('queue', { ...place, ttl: 60_000 })
  const handler = memoizeFetch(locker, { ttl: 60_000 }, () => new Response('page'))
  const read = async (name: string) => {
    for await (const chunk of locker.stream(name, () => [1, 2])) assert.ok(chunk)
  }
  const lease = async (name: string) => {
    const ticket = await locker.request(name)
    if (ticket.status === 'locked') await ticket.publish('published')
  }
  const asks: Record<string, (name: string) => Promise<unknown>> = {
    run: (name) => locker.run(name, () => sleep(1), { timeout: 5_000, onProgress: () => {} }),
    request: lease,
    runMany: (name) => locker.runMany([name, `${name}2`], (keys) => keys),
    stream: read,
    fetch: async (name) => (await handler(new Request(`http://localhost/${name}`))).text(),
    counts: () => queue.counts(),
    submit: (name) => queue.submit('work', name, { onProgress: () => {} }),
    invalidate: (name) => locker.invalidate(name),
  }
  const stores = new Map<string, WeakRef<object>>()
  // Node keeps the stores of whoever makes the first Response of a process.
  await new Response('first').text()
  const first = async (kind: string, ask: (name: string) => Promise<unknown>) => {
    const store = { kind, bytes: new Uint8Array(1024) }
    stores.set(kind, new WeakRef(store))
    await context.run(store, () => ask(`first:${kind}`))
  }
  // In the first call of each kind everything is opened and armed.
  for (const [kind, ask] of Object.entries(asks)) {
    // A handler belongs to whoever registered it.
    if (kind === 'submit') queue.process('work', (payload) => payload, { concurrency: 5 })
    await first(kind, ask)
  }
  const left = () => [...stores].filter(([, store]) => store.deref()).map(([kind]) => kind)
  let round = 0
  const gone = async () => {
    // Lanes and timers are armed again and again, as under load.
    round++
    await Promise.all(Object.entries(asks).map(([kind, ask]) => ask(`${kind}:${round}`)))
    await sleep(1)
    collect()
    return left().length === 0
  }
  await until(gone, { what: 'the stores to be collected', timeout: 6_000 }).catch(() => {})
  await Promise.all([locker.close({ grace: 0 }), queue.close({ grace: 0 })])
  return left()
}

const handlers = { leftover }
serve(handlers)

export type ContextHandlers = typeof handlers
