import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { afterEach, describe, mock, test } from 'node:test'
import timers from 'node:timers'
import { Locker, MemoryQueueStore, MemoryStore, RedisQueue } from '../../src/index.ts'
import { setup } from '../support/setup.ts'

// Taken before they are replaced.
const { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate } = timers
const real = { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate }
const { now } = performance
const microtask = queueMicrotask

/** The ways in which test libraries install fake timers; `stop` installs them, `go` removes them. */
const FAKES: Record<string, { stop(): void; go(): void }> = {
  'node:test': {
    stop: () => mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'setImmediate', 'Date'] }),
    go: () => mock.timers.reset(),
  },
  // As Sinon, Vitest and Jest do, with everything that they can replace.
  'replaced globals': {
    stop() {
      const fakes = {
        ...{ setTimeout: () => 1, clearTimeout() {}, setInterval: () => 1, clearInterval() {} },
        ...{ setImmediate: () => 1, clearImmediate() {}, queueMicrotask() {} },
      }
      Object.assign(globalThis, fakes)
      Object.assign(timers, fakes)
      syncBuiltinESMExports()
      performance.now = () => 0
    },
    go() {
      Object.assign(globalThis, real, { queueMicrotask: microtask })
      Object.assign(timers, real)
      syncBuiltinESMExports()
      performance.now = now
    },
  },
}

/** Rejects if the promise takes so long that it must wait for a timer that never fires. */
function inTime<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('It waits for a timer that does not fire')), 10_000)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Whether everything works that waits, expires, repeats or is deferred. */
async function useAll(locker: Locker, queue: RedisQueue, round: string): Promise<void> {
  assert.equal(await locker.run(`hit ${round}`, () => 1), 1)
  assert.equal(await locker.run(`hit ${round}`, () => 2), 1)
  await assert.rejects(
    locker.run(`late ${round}`, ({ signal }) => new Promise((end) => signal.addEventListener('abort', end)), {
      timeout: 50,
      abortUnwanted: true,
    }),
    { code: 'E_TIMEOUT' },
  )
  const words: string[] = []
  for await (const word of locker.stream(`stream ${round}`, async function* () {
    yield* ['one', 'two']
  }))
    words.push(word)
  assert.deepEqual(words, ['one', 'two'])
  await locker.run(`brief ${round}`, () => 'old', { ttl: 30 })
  for (;;) {
    if ((await locker.run(`brief ${round}`, () => 'new', { ttl: 30 })) === 'new') break
    await new Promise((resume) => setTimeout(resume, 5))
  }
  assert.equal(await queue.submit('double', [2, round], { delay: 20 }), 4)
  await assert.rejects(queue.submit('nobody', round, { timeout: 50 }), { code: 'E_TIMEOUT' })
}

describe('fake timers', () => {
  afterEach(() => {
    for (const { go } of Object.values(FAKES)) go()
  })

  for (const [name, { stop, go }] of Object.entries(FAKES)) {
    for (const place of ['memory', 'redis'] as const) {
      test(`fake timers - ${name}: a locker, its streams and a queue outlive a test with them, on ${place}`, async () => {
        await using t = place === 'redis' ? await setup() : undefined
        const redis = t?.redis ?? null
        await using locker = new Locker({ redis })
        await using queue = new RedisQueue('queue', { redis, ttl: 1000 })
        queue.process('double', ([number]: [number]) => 2 * number, { concurrency: 10 })
        await inTime(useAll(locker, queue, 'before'))
        stop()
        await inTime(useAll(locker, queue, 'during'))
        go()
        await inTime(useAll(locker, queue, 'after'))
      })
    }
  }

  test('fake timers - the sources take none of the process’s timers but in one place', () => {
    const root = new URL('../../src/', import.meta.url).pathname
    for (const file of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
      // Pages run in browsers, with timers of their own.
      if (!file.endsWith('.ts') || file.endsWith('kernel/time.ts') || file.startsWith('dashboard/')) continue
      const text = readFileSync(join(root, file), 'utf8')
      assert.doesNotMatch(
        text,
        /process\.nextTick|AbortSignal\.timeout|timers\/promises|from 'node:timers'/,
        file,
      )
    }
  })

  test('fake timers - with a clock of its own, a test drives the time of a locker and of a queue', async () => {
    let now = 0
    const due = new Set<{ at: number; run: () => void }>()
    const clock = {
      now: () => now,
      after(ms: number, run: () => void) {
        const timer = { at: now + ms, run }
        due.add(timer)
        return { cancel: () => void due.delete(timer) }
      },
    }
    const advance = (ms: number) => {
      now += ms
      for (const timer of due) if (timer.at <= now && due.delete(timer)) timer.run()
    }
    await using locker = new Locker({ clock, ttl: 60_000 })
    let works = 0
    const work = () => ++works
    assert.equal(await locker.run('key', work), 1)
    advance(59_000)
    assert.equal(await locker.run('key', work), 1)
    advance(1_001)
    assert.equal(await locker.run('key', work), 2)
    await using queue = new RedisQueue('queue', { clock })
    const waiting = assert.rejects(queue.submit('nobody', 1, { timeout: 3_600_000 }), { code: 'E_TIMEOUT' })
    await new Promise((turn) => setImmediate(turn))
    advance(3_600_000)
    await waiting
    for (const options of [
      { store: new MemoryStore(), clock },
      { store: new MemoryQueueStore(), clock },
    ] as const) {
      assert.throws(() => ('claim' in options ? undefined : new Locker(options as never)), TypeError)
    }
  })
})
