// Takers whose wait passes while the store does not answer.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryQueueStore, RedisQueue, UnavailableError } from '../../src/index.ts'
import { Deadlines } from '../../src/kernel/time.ts'
import type { QueueContext } from '../../src/queue/options.ts'
import type { QueueStore } from '../../src/queue/store/store.ts'
import { Taker } from '../../src/queue/taking/taker.ts'
import { TakingWorker } from '../../src/queue/taking/taking-worker.ts'
import { UnansweredCalls } from '../../src/queue/taking/unanswered-calls.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { rejectionOf } from '../support/wait.ts'

const WAIT = 100
/** How long the store may take to answer, ms. */
const WITHIN = 500

const LONG = 24 * 60 * 60_000

/** A store that does not answer while it is frozen what a worker of takers asks. An acceptance takes effect though. */
class FrozenStore extends MemoryQueueStore {
  isFrozen = false

  override connect(queue: string): QueueStore {
    const store = super.connect(queue)
    const { clock } = this
    const { setCapacity, renew, finish, removeWorker } = store
    const noAnswer = () =>
      new Promise<never>((_, reject) => clock.after(WITHIN, () => reject(new UnavailableError('No answer'))))
    return Object.assign(store, {
      setCapacity: (...args: Parameters<typeof setCapacity>) =>
        this.isFrozen ? noAnswer() : setCapacity.apply(store, args),
      renew: async (...args: Parameters<typeof renew>) => {
        const renewal = await renew.apply(store, args)
        return this.isFrozen ? noAnswer() : renewal
      },
      finish: (...args: Parameters<typeof finish>) =>
        this.isFrozen ? noAnswer() : finish.apply(store, args),
      removeWorker: (...args: Parameters<typeof removeWorker>) =>
        this.isFrozen ? noAnswer() : removeWorker.apply(store, args),
    })
  }
}

async function world() {
  const clock = new ManualClock()
  const store = new FrozenStore({ clock })
  const queue = new RedisQueue('queue', { store, unavailableAfter: WITHIN })
  const ending = rejectionOf(queue.take('work', { wait: WAIT, lease: LONG }))
  // It has a slot by then.
  await clock.pass(WAIT / 2)
  const end = () => Promise.race([ending, settled().then(() => 'pending')])
  const close = async () => {
    const closing = queue.close()
    await clock.pass(10 * WITHIN)
    await closing
  }
  return { clock, store, queue, end, close }
}

test('take - is not told that there is no job while its slot may be left in the store', async () => {
  const { clock, store, end, close } = await world()
  store.isFrozen = true
  await clock.pass(WAIT)
  assert.equal(await end(), 'pending')
  await clock.pass(WITHIN)
  assert.ok((await end()) instanceof UnavailableError)
  await close()
})

test('take - ends in time though its delivery cannot be given back, and the job goes back later', async () => {
  const { clock, store, queue, end, close } = await world()
  store.isFrozen = true
  const { id } = await queue.enqueue('work', 1)
  await clock.pass(WAIT)
  assert.equal(await end(), 'pending')
  // The acceptance, then the return.
  await clock.pass(2 * WITHIN)
  assert.ok((await end()) instanceof UnavailableError)
  assert.equal((await queue.status(id))?.state, 'active')
  await clock.pass(10 * WITHIN)
  store.isFrozen = false
  await clock.pass(4 * WITHIN)
  const { state, stalls } = (await queue.status(id)) ?? {}
  assert.deepEqual([state, stalls], ['waiting', 0])
  await close()
})

test('take - a taker whose wait has passed is no slot of its worker in a census', async () => {
  const clock = new ManualClock()
  const store = new FrozenStore({ clock })
  const context = {
    ...{ clock, store: store.connect('queue'), within: WITHIN, queue: 'queue' },
    options: { lease: LONG, prefix: 'soloflight' },
  } as unknown as QueueContext
  const deps = {
    ...{ clock, within: WITHIN, deadlines: new Deadlines(clock) },
    onLeaving: (taker: Taker) => worker.onTakerLeaving(taker),
    onOverdue: (taker: Taker) => worker.onTakerOverdue(taker),
    onLeft: (taker: Taker) => worker.onTakerLeft(taker),
  }
  const newTaker = (wait: number) =>
    new Taker({ command: 'work', lease: LONG, wait, signal: undefined }, deps)
  const takers = [WAIT, 10 * WITHIN].map(newTaker)
  const [first, second] = takers as [Taker, Taker]
  const unanswered = new UnansweredCalls(context)
  const worker: TakingWorker = new TakingWorker(first, context, unanswered, {
    dueIn: () => {},
    processDue: async () => {},
    announcementsFail: () => {},
    hand: () => false,
    onIdle: () => {},
    onDropped: () => {},
  })
  const endings = takers.map((taker) => rejectionOf(taker.promise))
  worker.wait(second)
  await clock.pass(WAIT / 2)
  const slots = () => [...worker.census()].map((item) => item.kind === 'worker' && item.concurrency)
  assert.deepEqual([worker.waiting, slots()], [2, [2]])
  store.isFrozen = true
  await clock.pass(WAIT)
  assert.deepEqual(
    takers.map(({ state }) => state),
    ['leaving', 'waiting'],
  )
  assert.deepEqual([worker.waiting, slots()], [1, [1]])
  const closing = worker.close()
  await clock.pass(10 * WITHIN)
  await closing
  await Promise.all(endings)
})
