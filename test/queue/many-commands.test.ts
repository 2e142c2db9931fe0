// The names of commands are a client's to choose: what each costs in a process and in Redis is bounded.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ClosedError, Connection, MemoryQueueStore, OverloadedError, RedisQueue } from '../../src/index.ts'
import { newId } from '../../src/kernel/keys.ts'
import { RedisQueueStore } from '../../src/queue/store/redis/redis-store.ts'
import { type Delivery, MAX_KNOWN_COMMANDS } from '../../src/queue/store/store.ts'
import {
  MAX_IDLE_WORKERS,
  MAX_WAITED_COMMANDS,
  type RoomWorker,
  WorkerRoom,
} from '../../src/queue/taking/worker-room.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { onBothStores, onRedis, type QueueWorld, subscribed } from '../support/stores.ts'
import { rejectionOf, until } from '../support/wait.ts'

const WITHIN = 2_000
const SUBMISSION = {
  ...({ payload: '', options: '', awaited: false, conflict: 'reject', delay: 0, priority: 0 } as const),
  ...{ lifo: false, abortUnwanted: false, requiresWorker: false },
}
const FOREVER = { wait: Number.POSITIVE_INFINITY }

/** Known commands beyond those that are needed: about a sixteenth of all is not needed when each new one is paid for. */
const SOME = 200

const each = async (count: number, run: (n: number) => Promise<unknown>): Promise<void> => {
  for (let n = 0; n < count; n += 100)
    await Promise.all(Array.from({ length: Math.min(100, count - n) }, (_, index) => run(n + index)))
}

async function keysOf({ t }: QueueWorld, letter: string): Promise<number> {
  const keys = await t?.server.call('KEYS', `soloflight:1:{queue}${letter}*`)
  return (keys as unknown[]).length
}

test('L5 take - a command that is only asked for leaves nothing in Redis', async () => {
  await using w = await onRedis()
  const queue = w.open()
  await subscribed(queue)
  await each(300, (n) => queue.take(`command ${n}`))
  assert.deepEqual([await keysOf(w, 'r'), await keysOf(w, 'i'), await keysOf(w, 'q')], [0, 0, 0])
})

test('take - a command that is only asked for may be that of a job whose delay has ended', async () => {
  await using w = await onRedis()
  const [queue, other] = [w.open(), w.open()]
  await other.enqueue('work', 1, { delay: 50 })
  // The process that polls for what is due is that of the call.
  await other.close()
  await queue.take('another')
  await until(async () => (await queue.counts()).waiting === 1, { what: 'the job to be ready' })
  assert.equal((await queue.take('work'))?.payload, 1)
})

test('L5 take - of the workers without a taker those are kept that were used last', async () => {
  await using w = await onRedis()
  const queue = w.open()
  await subscribed(queue)
  await queue.take('first', { wait: 100 })
  await each(MAX_IDLE_WORKERS + 300, (n) => queue.take(`command ${n}`, { wait: 100 }))
  await until(async () => (await keysOf(w, 'r')) === MAX_IDLE_WORKERS, { what: 'the others to be removed' })
  assert.equal(await w.t.server.call('EXISTS', 'soloflight:1:{queue}r/first'), 0)
  await queue.enqueue('first', 1)
  assert.equal((await queue.take('first', { wait: 5_000 }))?.payload, 1)
  const taking = queue.take('first', { wait: 5_000 })
  await queue.enqueue('first', 2)
  assert.equal((await taking)?.payload, 2)
  await queue.close()
  assert.equal(await keysOf(w, 'r'), 0)
  assert.ok(
    (await known(w)).length <= MAX_KNOWN_COMMANDS,
    'those of the workers that were removed are forgotten',
  )
})

/** The commands that are known to the store. */
async function known({ place, t }: QueueWorld): Promise<string[]> {
  const names = t
    ? await t.server.call('HVALS', 'soloflight:1:{queue}q')
    : await place.store?.connect('queue').commands(0)
  return names as string[]
}

onBothStores('L5 commands - those that nobody needs are known up to a bound', async (w) => {
  const queue = w.open()
  await queue.ready()
  await queue.pause('paused')
  const needed = ['paused', 'worked', ...Array.from({ length: 20 }, (_, n) => `ready ${n}`)]
  queue.process('worked', () => {})
  await each(20, (n) => queue.enqueue(`ready ${n}`, n))
  await each(MAX_KNOWN_COMMANDS + 1_000, async (n) => {
    await queue.enqueue(`taken ${n}`, n)
    await (await queue.take(`taken ${n}`))?.complete(n)
  })
  const names = await known(w)
  assert.ok(names.length <= MAX_KNOWN_COMMANDS + SOME, `${names.length} commands`)
  assert.deepEqual(
    needed.filter((name) => !names.includes(name)),
    [],
  )
  assert.deepEqual([(await queue.counts()).waiting, await queue.drain()], [20, 20])
})

test('commands - a slot is used once by the jobs of one turn, however many commands they have', async () => {
  await using w = await onRedis()
  await using connection = new Connection(w.t.redis)
  const store = new RedisQueueStore(connection, 'soloflight', 'queue')
  await store.counts(WITHIN)
  await until(() => store.subscribed, { what: 'the subscription' })
  const delivered: string[] = []
  const listener = {
    onDelivery: ({ id }: Delivery) => delivered.push(id),
    ...{ onCancelled: () => {}, onDue: () => {}, onCapacityRequested: () => {} },
  }
  await store.setCapacity({ nonce: newId(), command: 'work' }, () => 1, listener, WITHIN)
  // The keys of 32 commands are cached: when the second job comes, those of its command are not any more.
  await each(10, (n) => store.hasWorker(`known ${n}`, WITHIN))
  const others = Array.from({ length: 22 }, (_, n) => `other ${n}`)
  await Promise.all(
    ['work', ...others, 'work'].map((command, n) => {
      const submission = { ...SUBMISSION, id: `job-${n}`, command, nonce: newId() }
      return new Promise<void>((onReply, onError) =>
        store.submit(submission, WITHIN, { onReply: () => onReply(), onError, onNotice: () => {} }),
      )
    }),
  )
  await until(() => delivered.length > 0, { what: 'a delivery' })
  assert.deepEqual([delivered, (await store.counts(WITHIN)).active], [['job-0'], 1])
  store.close()
})

test('L5 take - more commands than there may be workers are refused; what does not wait and who waits goes on', async () => {
  const queue = new RedisQueue('queue', { store: new MemoryQueueStore() })
  const waits = Array.from({ length: MAX_WAITED_COMMANDS }, (_, n) =>
    queue.take(`command ${n}`, FOREVER).catch((error: unknown) => error),
  )
  const other = await rejectionOf(queue.take('other', FOREVER))
  assert.ok(other instanceof OverloadedError, String(other))
  assert.equal(await queue.take('other'), undefined)
  await queue.enqueue('other', 1)
  assert.equal((await queue.take('other', FOREVER))?.payload, 1)
  const another = queue.take('command 0', FOREVER)
  for (const payload of [1, 2]) await queue.enqueue('command 0', payload)
  assert.ok(await waits[0])
  assert.equal((await another)?.payload, 2)
  // There is room for one more.
  const last = queue.take('other', FOREVER)
  await queue.enqueue('other', 2)
  assert.equal((await last)?.payload, 2)
  await queue.close()
  assert.ok((await Promise.all(waits.slice(1))).every((error) => error instanceof ClosedError))
})

test('room of workers - the one that was used longest ago is dropped, when there are too many or its time has passed', () => {
  const clock = new ManualClock()
  const room = new WorkerRoom(clock)
  const dropped: number[] = []
  const workers: RoomWorker[] = Array.from({ length: MAX_IDLE_WORKERS + 2 }, (_, n) => ({
    drop: () => dropped.push(n),
  }))
  const [first, second] = workers as [RoomWorker, RoomWorker]
  for (const worker of workers.slice(0, -2)) {
    room.use(worker)
    room.release(worker)
  }
  room.use(first)
  room.release(first)
  room.use(second)
  for (const worker of workers.slice(-2)) room.release(worker)
  // The second one is used.
  assert.deepEqual(dropped, [2])
  clock.advance(59_999)
  room.release(second)
  assert.deepEqual(dropped, [2, 3])
  clock.advance(1)
  assert.equal(dropped.length, MAX_IDLE_WORKERS + 1)
  assert.ok(!dropped.includes(1))
  clock.advance(60_000)
  assert.deepEqual([dropped.length, clock.pending], [MAX_IDLE_WORKERS + 2, 0])
})
