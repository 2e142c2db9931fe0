// The scheduler that works and handlers share: how many start in a turn of the event loop, and which slots count.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Locker, RedisQueue, type RedisSource } from '../../src/index.ts'
import { atEndOfTurn, type Clock, systemClock } from '../../src/kernel/time.ts'
import { type Slot, WorkScheduler } from '../../src/kernel/work-scheduler.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** A clock whose time passes on demand. */
class HandClock implements Clock {
  #now = 0
  readonly after = systemClock.after
  now(): number {
    return this.#now
  }
  pass(ms: number): void {
    this.#now += ms
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Runs a test in memory and on Redis. */
function onBoth(title: string, body: (place: { redis?: RedisSource }) => Promise<void>): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`work scheduler - ${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using t = kind === 'redis' ? await setup() : undefined
      await body(t ? { redis: t.redis } : {})
    })
  }
}

test('work scheduler - works that do not compute all start in one turn', async () => {
  const scheduler = new WorkScheduler(Number.POSITIVE_INFINITY, new HandClock())
  let started = 0
  for (let n = 0; n < 1000; n++) scheduler.schedule(() => started++)
  assert.equal(started, 1, 'the first one at once')
  await turn()
  assert.equal(started, 1000)
})

test('work scheduler - the budget of a turn limits the works of all schedulers of a process', async () => {
  const clock = new HandClock()
  const schedulers = [1, 2].map(() => new WorkScheduler(Number.POSITIVE_INFINITY, clock))
  const started: number[] = []
  for (let n = 0; n < 12; n++) {
    schedulers[n % 2]?.schedule(() => {
      started.push(n)
      clock.pass(2)
    })
  }
  const perTurn: number[] = []
  while (started.length < 12) {
    const before = started.length
    await turn()
    perTurn.push(started.length - before)
  }
  assert.deepEqual(
    started,
    [...started].sort((a, b) => a - b),
    'first come, first served',
  )
  // 2 ms each, 5 ms per turn. The first check is after two turns.
  assert.deepEqual(perTurn, [5, 3, 3])
})

/** Starts works that compute for `ms` each and continue for some ticks. Returns the events in order. */
async function publishing(
  names: string[],
  batchable: boolean,
  computes: (name: string) => number,
): Promise<string[]> {
  const clock = new HandClock()
  const scheduler = new WorkScheduler(Number.POSITIVE_INFINITY, clock, { batchable })
  const order: string[] = []
  const work = async (name: string) => {
    order.push(`${name} computes`)
    clock.pass(computes(name))
    for (let hop = 0; hop < 20; hop++) await null
    atEndOfTurn(() => order.push(`${name} is published`))
  }
  for (const name of names) scheduler.schedule(() => void work(name))
  await turn()
  return order
}

test('work scheduler - the result of a work is processed before the next work starts', async () => {
  for (const [batchable, ms] of [
    [false, 0],
    [true, 1],
  ] as const) {
    assert.deepEqual(
      await publishing(['a', 'b', 'c'], batchable, () => ms),
      ['a', 'b', 'c'].flatMap((name) => [`${name} computes`, `${name} is published`]),
    )
  }
})

test('work scheduler - works that compute nothing start together, more and more, until one computes', async () => {
  const order = await publishing([...'abcdefgh'], true, (name) => (name === 'd' ? 1 : 0))
  const groups = order
    .join()
    .split(/(?<=published),(?=\w computes)/)
    .map((group) => group.match(/\w(?= computes)/g)?.join(''))
  assert.deepEqual(groups, ['a', 'bc', 'd', 'e', 'fg', 'h'])
})

test('work scheduler - a slot counts while its work runs, once', () => {
  const scheduler = new WorkScheduler(1, new HandClock())
  const slots: Slot[] = []
  const take = () => scheduler.schedule((slot) => slots.push(slot))
  const counts = () => [slots.length, scheduler.running, scheduler.waiting]
  take()
  take()
  assert.deepEqual(counts(), [1, 1, 1])
  const [first] = slots
  const [resume, resumeToo] = [first?.lend(), first?.lend()]
  return turn().then(async () => {
    assert.deepEqual(counts(), [2, 1, 0], 'lent: the second one runs')
    resume?.()
    assert.equal(scheduler.running, 1, 'it waits for another still')
    resumeToo?.()
    assert.equal(scheduler.running, 2, 'it runs on')
    take()
    slots[1]?.release()
    slots[1]?.release()
    await turn()
    assert.deepEqual(counts(), [2, 1, 1], 'one too many has ended')
    const late = first?.lend()
    await turn()
    first?.release()
    late?.()
    assert.deepEqual(counts(), [3, 1, 0], 'released while it was lent')
    slots[2]?.release()
    assert.equal(scheduler.running, 0)
  })
})

onBoth('a work that reads a stream lends its slot to the producer', async (place) => {
  await using locker = new Locker({ ...place, concurrency: 1, timeout: 5000 })
  const numbers = async function* () {
    for (let n = 0; n < 5; n++) {
      yield n
      await turn()
    }
  }
  const sum = async (key: string) => {
    let total = 0
    for await (const n of locker.stream<number>(key, numbers)) total += n
    return total
  }
  const results = await Promise.all([
    locker.run('a', () => sum('stream')),
    locker.run('b', () => sum('stream')),
    locker.run('c', () => sum('other')),
  ])
  assert.deepEqual(results, [10, 10, 10])
  const idle = () => locker.stats().running + locker.stats().queued + locker.stats().held === 0
  await until(idle, { what: 'the slots to be given back' })
})

onBoth('between two chunks a work that reads a stream keeps its slot', async (place) => {
  await using locker = new Locker({ ...place, concurrency: 1, timeout: 5000 })
  const [atChunk, goOn, last] = [pDefer(), pDefer(), pDefer()]
  const numbers = async function* () {
    yield 1
    await last.promise
    yield 2
  }
  const reading = locker.run('reads', async () => {
    const stream = locker.stream('stream', numbers)
    await stream.next()
    atChunk.resolve()
    await goOn.promise
    last.resolve()
    return (await stream.next()).value
  })
  await atChunk.promise
  const queued = locker.run('queued', () => 'done')
  await until(() => locker.stats().queued === 1, { what: 'the other work to wait' })
  // The producer and the reader: both run, and neither lends its slot.
  assert.equal(locker.stats().running, 2)
  goOn.resolve()
  assert.equal(await reading, 2)
  assert.equal(await queued, 'done')
})

onBoth('a stream that waits for the work that reads it is a deadlock', async (place) => {
  await using locker = new Locker({ ...place, timeout: 5000 })
  const code = (error: { code: string }) => error.code
  const reads = async (work: () => AsyncIterable<unknown>) => {
    try {
      for await (const _ of locker.stream('stream', work));
      return 'read'
    } catch (error) {
      return code(error as { code: string })
    }
  }
  const told: unknown[] = []
  const outcome = await locker.run('outer', () =>
    reads(async function* () {
      told.push(await locker.run('outer', () => 'unused').catch(code))
      yield 1
    }),
  )
  // Whichever of the two detects the deadlock first gets the error. The other goes on.
  assert.ok([told[0], outcome].includes('E_DEADLOCK'), `${told} ${outcome}`)
})

onBoth('a producer may wait for a work that has all the chunks that it wants', async (place) => {
  await using locker = new Locker({ ...place, timeout: 5000 })
  const work = async function* () {
    yield 'first'
    yield await locker.run('outer', () => 'unused')
  }
  const outer = async () => {
    for await (const chunk of locker.stream('stream', work)) return `with ${chunk}`
    return 'nothing'
  }
  assert.equal(await locker.run('outer', outer), 'with first')
  const chunks: unknown[] = []
  for await (const chunk of locker.stream('stream', work)) chunks.push(chunk)
  assert.deepEqual(chunks, ['first', 'with first'])
})

onBoth('a producer that waits for its own next chunk is a deadlock', async (place) => {
  await using locker = new Locker({ ...place, timeout: 5000 })
  const own = async function* (): AsyncGenerator<unknown> {
    yield 'first'
    const chunks: unknown[] = []
    try {
      for await (const chunk of locker.stream('stream', own)) chunks.push(chunk)
    } catch (error) {
      chunks.push((error as { code: string }).code)
    }
    yield chunks
  }
  const chunks: unknown[] = []
  for await (const chunk of locker.stream('stream', own)) chunks.push(chunk)
  assert.deepEqual(chunks, ['first', ['first', 'E_DEADLOCK']])
})

onBoth('a work that waits for a job lends its slot', async (place) => {
  await using locker = new Locker({ ...place, concurrency: 1, timeout: 5000 })
  await using queue = new RedisQueue('queue', { ...place, timeout: 5000 })
  queue.process('work', () => locker.run('inner', () => 'done'))
  assert.equal(await locker.run('outer', () => queue.submit('work')), 'done')
  const job = await queue.enqueue('work', 'again')
  assert.equal(await locker.run('later', () => job.result()), 'done')
})
