// Takers whose wait passes while the store does not answer.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryQueueStore, RedisQueue, UnavailableError } from '../../src/index.ts'
import type { QueueStore } from '../../src/queue/store/store.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { rejectionOf } from '../support/wait.ts'

const WAIT = 100
/** How long the store may take to answer, ms. */
const WITHIN = 500

/** A store that does not answer while it is frozen what a worker of takers asks. */
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
      renew: (...args: Parameters<typeof renew>) => (this.isFrozen ? noAnswer() : renew.apply(store, args)),
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
  const ending = rejectionOf(queue.take('work', { wait: WAIT }))
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

test('take - ends in time though its delivery cannot be accepted nor given back', async () => {
  const { clock, store, queue, end, close } = await world()
  store.isFrozen = true
  await queue.enqueue('work', 1)
  await clock.pass(WAIT)
  assert.equal(await end(), 'pending')
  // The acceptance, then the return.
  await clock.pass(2 * WITHIN)
  assert.ok((await end()) instanceof UnavailableError)
  await close()
})
