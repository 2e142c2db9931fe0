// U1: user code runs in the async context of the call that started or registered it, even if calls share a connection, a
// batch, a turn of the event loop or a flight.

import assert from 'node:assert/strict'
import { AsyncLocalStorage } from 'node:async_hooks'
import { createServer, get } from 'node:http'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { DeadlockError, Locker, type LockerOptions, RedisQueue } from '../../src/index.ts'
import { memoizeHandler as memoizeFetch } from '../../src/memoize/fetch.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import type { ContextHandlers } from '../support/context-child.ts'
import { HttpWorld, onBoth as onBothHttp, received } from '../support/http-scene.ts'
import { lockersIn } from '../support/lockers.ts'
import { Child } from '../support/process.ts'
import { setup } from '../support/setup.ts'
import { onBothStores } from '../support/stores.ts'
import { until } from '../support/wait.ts'

const context = new AsyncLocalStorage<string>()
const here = () => context.getStore()

/** Runs in the context of each tenant, concurrently, in one tick. */
function each<T>(act: (tenant: string) => T | Promise<T>): Promise<T[]> {
  return Promise.all(['acme', 'evil'].map((tenant) => context.run(tenant, async () => await act(tenant))))
}

/** Runs a test in memory, and on a Redis without a connection yet. */
function onBoth(title: string, body: (open: (options?: LockerOptions) => Locker) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`U1 async context - ${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using t = kind === 'redis' ? await setup() : undefined
      const lockers: Locker[] = []
      try {
        await body((options = {}) => {
          const locker = new Locker({ ...(t && { redis: t.redis }), ...options })
          lockers.push(locker)
          return locker
        })
      } finally {
        await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
      }
    })
  }
}

onBoth('works of two callers in one tick', async (open) => {
  const locker = open()
  for (const round of [1, 2]) {
    const stores = await each((tenant) =>
      locker.run(`page:${tenant}:${round}`, async () => {
        const before = here()
        await locker.run(`part:${tenant}:${round}`, () => {})
        return [before, here()]
      }),
    )
    assert.deepEqual(stores, [
      ['acme', 'acme'],
      ['evil', 'evil'],
    ])
  }
})

onBoth('works that wait for their turn under `concurrency`', async (open) => {
  const locker = open({ concurrency: 1 })
  const gate = pDefer()
  const running = context.run('acme', () => locker.run('acme', () => gate.promise.then(here)))
  await until(() => locker.stats().running === 1, { what: 'the first work' })
  const waiting = context.run('evil', () => locker.run('evil', here))
  await until(() => locker.stats().queued === 1, { what: 'the second to wait' })
  gate.resolve()
  assert.deepEqual(await Promise.all([running, waiting]), ['acme', 'evil'])
})

onBoth('the work of the caller that takes over a flight', async (open) => {
  const locker = open({ concurrency: 1 })
  const gate = pDefer()
  const blocker = locker.run('blocker', () => gate.promise)
  const first = context.run('first', () => locker.request('key', { timeout: 5000 }))
  const lease = await first
  assert.equal(lease.status, 'locked')
  const second = context.run('second', () => locker.run('key', here))
  await until(() => locker.stats().joins === 1, { what: 'the second to join' })
  if (lease.status === 'locked') await context.run('first', () => lease.release())
  gate.resolve()
  assert.equal(await second, 'second')
  await blocker
})

onBoth('memoized functions and runMany', async (open) => {
  const locker = open()
  const memoized = locker.memoize((tenant: string) => [tenant, here()], {
    key: (tenant) => {
      assert.equal(here(), tenant)
      return `memoized:${tenant}`
    },
    tags: (tenant) => {
      assert.equal(here(), tenant)
      return [tenant]
    },
  })
  assert.deepEqual(await each(memoized), [
    ['acme', 'acme'],
    ['evil', 'evil'],
  ])
  const many = await each((tenant) =>
    locker.runMany([`a:${tenant}`, `b:${tenant}`], async (keys) => {
      await locker.run(`inner:${tenant}`, () => {})
      return keys.map(here)
    }),
  )
  assert.deepEqual(many, [
    ['acme', 'acme'],
    ['evil', 'evil'],
  ])
})

onBoth('renewals of stale results', async (open) => {
  const locker = open({ staleWhileRevalidate: 60_000, ttl: 1 })
  await locker.run('key', () => 'old')
  await until(async () => (await locker.peek('key')).status !== 'done', { what: 'the end of the ttl' })
  const renewed = pDefer<unknown>()
  await context.run('acme', () => locker.run('key', () => renewed.resolve(here())))
  assert.equal(await renewed.promise, 'acme')
})

onBoth('producers of streams, to the end of their generators', async (open) => {
  const locker = open({ concurrency: 1 })
  const ended: unknown[] = []
  const read = async (tenant: string) => {
    const stream = locker.stream(
      `stream:${tenant}`,
      async function* ({ signal }) {
        signal.addEventListener('abort', () => ended.push(here()))
        try {
          yield here()
          await locker.run(`part:${tenant}`, () => {})
          for (;;) yield here()
        } finally {
          ended.push(here())
        }
      },
      { abortUnwanted: true },
    )
    // The reader is another tenant than the caller of `stream`.
    const chunks: unknown[] = []
    await context.run('reader', async () => {
      for await (const chunk of stream) if (chunks.push(chunk) === 3) break
    })
    return chunks
  }
  assert.deepEqual(await each(read), [
    ['acme', 'acme', 'acme'],
    ['evil', 'evil', 'evil'],
  ])
  await until(() => ended.length === 4, { what: 'the ends of the producers' })
  assert.deepEqual(ended.sort(), ['acme', 'acme', 'evil', 'evil'])
})

onBoth('onProgress, trace, exposeError and the signal', async (open) => {
  const told: unknown[] = []
  const locker = open({
    trace: () => void told.push(['trace', here()]),
    exposeError: (failure) => {
      told.push(['exposeError', here()])
      return failure
    },
  })
  const gate = pDefer()
  const worker = context.run('worker', () =>
    locker.run('key', async ({ progress }) => {
      await gate.promise
      progress(1)
      throw new Error('fails')
    }),
  )
  worker.catch(() => {})
  await until(() => locker.stats().running === 1, { what: 'the work' })
  const shown = pDefer<unknown>()
  const joined = context.run('joined', () =>
    locker.run('key', () => 'unused', { onProgress: () => shown.resolve(here()) }),
  )
  joined.catch(() => {})
  gate.resolve()
  await assert.rejects(worker)
  assert.equal(await shown.promise, 'joined')
  const [started, aborted] = [pDefer(), pDefer<unknown>()]
  const closing = context.run('closing', () =>
    locker.run('closing', ({ signal }) => {
      started.resolve()
      signal.addEventListener('abort', () => aborted.resolve(here()))
      return new Promise(() => {})
    }),
  )
  closing.catch(() => {})
  await started.promise
  await locker.close({ grace: 0 })
  assert.equal(await aborted.promise, 'closing')
  assert.deepEqual(told, [
    ['trace', 'worker'],
    ['exposeError', 'worker'],
    ['trace', 'closing'],
  ])
})

onBothHttp('U1 async context - handlers of node:http', async (w) => {
  const handler = memoizeHandler(w.locker(), { ttl: 60_000 }, (_request, response) => {
    response.end(here())
  })
  const server = await w.listen(
    createServer((request, response) => context.run(String(request.url), () => handler(request, response))),
  )
  const ask = async (path: string) => {
    const response = await new Promise<Parameters<typeof received>[0]>((resolve) =>
      get({ host: '127.0.0.1', port: server.port, path }, resolve),
    )
    return (await received(response)).text
  }
  const paths = Array.from({ length: 6 }, (_, index) => `/${index}`)
  assert.deepEqual(await Promise.all(paths.map(ask)), paths)
})

onBothHttp('U1 async context - handlers of fetch', async (w) => {
  const handler = memoizeFetch(w.locker(), { ttl: 60_000 }, async () => {
    await null
    return new Response(here())
  })
  const ask = (path: string) =>
    context.run(path, async () => (await handler(new Request(`http://localhost${path}`))).text())
  const paths = Array.from({ length: 6 }, (_, index) => `/${index}`)
  assert.deepEqual(await Promise.all(paths.map(ask)), paths)
})

test('U1 async context - a refresh in the background runs in the context of the request that began it', async () => {
  await using w = new HttpWorld()
  let made = 0
  const seen: unknown[] = []
  const handler = memoizeFetch(w.locker(), { cacheStatus: false }, () => {
    seen.push(here())
    const headers = { 'cache-control': 'max-age=0, stale-while-revalidate=60' }
    return new Response(String(++made), { headers })
  })
  const ask = (name: string) =>
    context.run(name, async () => (await handler(new Request('http://localhost/'))).text())
  await ask('first')
  await ask('second')
  await until(() => made > 1, { what: 'the refresh' })
  assert.equal(seen[1], 'second')
})

onBothStores(
  'U1 async context - handlers and listeners of a queue: that of `process`, `on` and `watch`',
  async (w) => {
    const queue = w.open({
      exposeError: (failure) => {
        told.push(['exposeError', here()])
        return failure
      },
      backoff: () => {
        told.push(['backoff', here()])
        return 1
      },
      trace: () => {
        told.push(['trace', here()])
        return undefined
      },
    })
    const told: unknown[] = []
    // A request opens the subscription.
    await context.run('request', () => queue.counts())
    context.run('on', () => queue.on('completed', () => told.push(['completed', here()])))
    context.run('once', () => queue.once('active', () => told.push(['active', here()])))
    const events = pDefer<unknown>()
    await context.run('watch', () => queue.watch(() => events.resolve(here())))
    context.run('process', () =>
      queue.process('work', async (payload, job) => {
        await null
        job.progress(here())
        told.push(['handler', here()])
        if (job.attempt === 1 || payload === 'bad') throw new Error('fails')
        return here()
      }),
    )
    const shown = pDefer<unknown>()
    const submit = (payload: string) =>
      queue.submit('work', payload, {
        attempts: 2,
        onProgress: (value) => shown.resolve([value, here()]),
      })
    assert.equal(await context.run('submitter', () => submit('good')), 'process')
    await assert.rejects(context.run('submitter', () => submit('bad')))
    assert.deepEqual(await shown.promise, ['process', 'submitter'])
    await until(
      async () => (await submit(String(Math.random()))) && (await Promise.race([events.promise, null])),
      {
        what: 'an event',
      },
    )
    assert.equal(await events.promise, 'watch')
    const kinds = new Set(told.map((each) => JSON.stringify(each)))
    for (const expected of [
      ['trace', 'submitter'],
      ['handler', 'process'],
      ['backoff', 'process'],
      ['exposeError', 'process'],
      ['completed', 'on'],
      ['active', 'once'],
    ])
      assert.ok(kinds.has(JSON.stringify(expected)), `${expected} in ${[...kinds]}`)
    assert.deepEqual(told.filter((each) => JSON.stringify(each).includes('active')).length, 1)
  },
)

onBothStores('U1 async context - the signal of a job that is cancelled', async (w) => {
  const queue = w.open()
  const aborted = pDefer<unknown>()
  const started = pDefer()
  context.run('process', () =>
    queue.process('work', (_, { signal }) => {
      signal.addEventListener('abort', () => aborted.resolve(here()))
      started.resolve()
      return new Promise((resolve) => signal.addEventListener('abort', resolve))
    }),
  )
  const job = await queue.enqueue('work')
  await started.promise
  await context.run('canceller', () => job.cancel())
  assert.equal(await aborted.promise, 'process')
})

test('U1 async context - listeners can be taken away, counted and added once, as with any emitter', () => {
  const queue = new RedisQueue('queue')
  const listener = () => {}
  queue.on('completed', listener).once('completed', listener)
  queue.prependListener('completed', listener).prependOnceListener('completed', listener)
  queue.addListener('completed', listener)
  assert.deepEqual(
    queue.listeners('completed'),
    Array.from({ length: 5 }, () => listener),
  )
  assert.equal(queue.listenerCount('completed'), 5)
  queue.emit('completed', { id: '1', command: 'c', attempt: 1, fence: 1, ms: 1 })
  assert.equal(queue.listenerCount('completed'), 3)
  queue.off('completed', listener).removeListener('completed', listener)
  assert.equal(queue.listenerCount('completed'), 1)
  assert.throws(() => queue.on('completed', 'no function' as unknown as () => void), TypeError)
})

onBoth('a deadlock is found, and a slot lent, inside the restored context', async (open) => {
  const locker = open({ concurrency: 1, timeout: 3000 })
  const stores = await each((tenant) =>
    locker.run(`outer:${tenant}`, async () => [
      await locker.run(`inner:${tenant}`, here),
      await locker.run(`outer:${tenant}`, () => 'unused').catch((error) => error.code),
      here(),
    ]),
  )
  assert.deepEqual(stores, [
    ['acme', 'E_DEADLOCK', 'acme'],
    ['evil', 'E_DEADLOCK', 'evil'],
  ])
})

onBoth('a listener does not belong to the work that it listens to: it may ask for its key', async (open) => {
  const locker = open({ timeout: 3000 })
  const [gate, asked] = [pDefer(), pDefer<Promise<unknown>>()]
  const work = async ({ progress }: { progress(value: unknown): void }) => {
    progress('half')
    await gate.promise
    return 'done'
  }
  const onProgress = () => asked.resolve(Promise.resolve(locker.run('key', () => 'unused')))
  const running = locker.run('key', work, { onProgress })
  await until(() => locker.stats().waiters === 2, { what: 'the listener to wait' })
  gate.resolve()
  assert.equal(await running, 'done')
  assert.equal(await asked.promise, 'done')
})

test('U1 async context - messages do not run in the context of the work that opened the connection', async () => {
  await using t = await setup()
  await using locker = new Locker({ timeout: 3000 })
  await using queue = new RedisQueue('queue', { redis: t.redis })
  await using other = new RedisQueue('queue', { redis: t.redis })
  const asked = pDefer<unknown>()
  const running = locker.run('key', async () => {
    queue.process('work', () => {
      locker.run('key', () => 'unused').then(asked.resolve, asked.reject)
    })
    await until(() => queue.stats().subscribed, { what: 'the subscription' })
    await other.submit('work')
    return 'done'
  })
  assert.equal(await running, 'done')
  assert.equal(await asked.promise, 'done')
})

test('U1 async context - a refresh that a work has caused is no wait of it', async () => {
  await using w = new HttpWorld()
  const locker = w.locker({ timeout: 3000 })
  let made = 0
  const outcome = pDefer<unknown>()
  const handler = memoizeFetch(locker, {}, async () => {
    const headers = { 'cache-control': 'max-age=0, stale-while-revalidate=60' }
    if (++made === 2) locker.run('key', () => 'unused').then(outcome.resolve, outcome.resolve)
    return new Response('page', { headers })
  })
  const page = () => handler(new Request('http://localhost/'))
  await page()
  const running = locker.run('key', async () => {
    await page()
    await until(() => made === 2, { what: 'the refresh' })
    await new Promise((resolve) => setImmediate(resolve))
    return 'done'
  })
  assert.equal(await running, 'done')
  const got = await outcome.promise
  assert.ok(!(got instanceof DeadlockError), String(got))
  assert.equal(got, 'done')
})

for (const kind of ['memory', 'redis'] as const) {
  test(`U1 async context - nothing that lives on keeps the stores of a call alive, ${kind}`, async () => {
    await using world = await lockersIn(kind)
    await using child = await Child.fork<ContextHandlers>(
      new URL('../support/context-child.ts', import.meta.url),
    )
    assert.deepEqual(await child.call('leftover', world.t?.server.path), [])
  })
}
