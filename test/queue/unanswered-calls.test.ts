// Calls of `take` that got no reply: what they have taken goes back.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ClosedError, MemoryQueueStore, RedisQueue, UnavailableError } from '../../src/index.ts'
import type { AttemptRef, QueueStore } from '../../src/queue/store/store.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'

const LONG = 24 * 60 * 60_000
const SECOND = 1_000

/** A store whose replies to `take` are lost, and that answers searches while it is reached. */
class LossyStore extends MemoryQueueStore {
  isReached = false
  searches = 0

  override connect(queue: string): QueueStore {
    const store = super.connect(queue)
    const { take, findTaken } = store
    return Object.assign(store, {
      take: async (...args: Parameters<QueueStore['take']>) => {
        await take.apply(store, args)
        throw new UnavailableError('No answer')
      },
      findTaken: async (...args: Parameters<QueueStore['findTaken']>) => {
        this.searches++
        if (!this.isReached) throw new UnavailableError('No answer')
        return findTaken.apply(store, args)
      },
    })
  }
}

function world() {
  const clock = new ManualClock()
  const store = new LossyStore({ clock })
  return { clock, store, queue: new RedisQueue('queue', { store }) }
}

test('take - of which the reply was lost gives its job back as soon as the store answers', async () => {
  const { clock, store, queue } = world()
  const { id } = await queue.enqueue('work', 1)
  await assert.rejects(queue.take('work', { lease: LONG }), UnavailableError)
  assert.equal((await queue.status(id))?.state, 'active')
  store.isReached = true
  await clock.pass(SECOND)
  const { state, stalls, attempts } = { attempts: 0, ...(await queue.status(id)) }
  assert.deepEqual([state, stalls, attempts], ['waiting', 0, 0])
  await clock.pass(10 * SECOND)
  assert.equal(store.searches, 2)
  const closing = queue.close()
  await clock.pass(SECOND)
  await closing
})

/** A store whose replies to `take` have no payload, as of one that is long, and that is away when it is asked for the first. */
class LongPayloadStore extends MemoryQueueStore {
  isReached = false
  ended: (() => Promise<unknown>) | undefined

  override connect(queue: string): QueueStore {
    const store = super.connect(queue)
    const { take, snapshot } = store
    return Object.assign(store, {
      take: async (...args: Parameters<QueueStore['take']>) => {
        const reply = await take.apply(store, args)
        return typeof reply === 'object' ? { ...reply, payload: undefined } : reply
      },
      readPayload: async ({ id, fence }: AttemptRef, within: number) => {
        if (!this.isReached) throw new UnavailableError('No connection', { sent: false })
        await this.ended?.()
        const job = await snapshot.call(store, id, within)
        return job?.state === 'active' && job.fence === fence ? job.payload : undefined
      },
    })
  }
}

test('take - whose payload could not be read gives its job back', async () => {
  const clock = new ManualClock()
  const store = new LongPayloadStore({ clock })
  const queue = new RedisQueue('queue', { store })
  const { id } = await queue.enqueue('work', 1)
  await assert.rejects(queue.take('work', { lease: LONG }), UnavailableError)
  store.isReached = true
  await clock.pass(SECOND)
  assert.equal((await queue.status(id))?.state, 'waiting')
  assert.equal((await queue.take('work'))?.payload, 1)
  await queue.close()
})

test('take - of a job that is removed before its payload was read takes the next one', async () => {
  const store = new LongPayloadStore()
  const [queue, other] = [new RedisQueue('queue', { store }), new RedisQueue('queue', { store })]
  const { id } = await queue.enqueue('work', 1)
  await queue.enqueue('work', 2)
  store.isReached = true
  store.ended = async () => {
    store.ended = undefined
    await other.remove(id)
  }
  assert.equal((await queue.take('work'))?.payload, 2)
  await Promise.all([queue.close(), other.close()])
})

test('take - of which the reply was lost is searched for after an outage in which nobody took', async () => {
  const { clock, store, queue } = world()
  const { id } = await queue.enqueue('work', 1)
  await assert.rejects(queue.take('work', { lease: LONG }), UnavailableError)
  await clock.pass(10 * 60 * SECOND)
  store.isReached = true
  await clock.pass(SECOND)
  assert.equal((await queue.status(id))?.state, 'waiting')
  const closing = queue.close()
  await clock.pass(SECOND)
  await closing
})

test('take - of which the reply was lost gives its job back when the queue is closed', async () => {
  const { clock, store, queue } = world()
  const other = new RedisQueue('queue', { store })
  const { id } = await queue.enqueue('work', 1)
  await assert.rejects(queue.take('work', { lease: LONG }), UnavailableError)
  await settled()
  store.isReached = true
  const closing = queue.close()
  await clock.pass(0)
  await closing
  assert.equal((await other.status(id))?.state, 'waiting')
  await other.close()
})

test('take - that is closed while it asks gives its job back though the reply is lost', async () => {
  const { clock, store, queue } = world()
  const other = new RedisQueue('queue', { store })
  const { id } = await queue.enqueue('work', 1)
  store.isReached = true
  const rejected = assert.rejects(queue.take('work', { lease: LONG }), ClosedError)
  const closing = queue.close()
  await rejected
  await clock.pass(0)
  await closing
  assert.equal((await other.status(id))?.state, 'waiting')
  await other.close()
})
