// Events of a queue: those of this process, and those of all processes for watchers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { FeedEvent, QueueEvents, RedisQueue } from '../../src/index.ts'
import { onBothStores, onRedis } from '../support/stores.ts'
import { until } from '../support/wait.ts'

const NAMES = ['submitted', 'active', 'completed', 'retrying', 'failed', 'stalled', 'lost'] as const

type Told = { [Name in keyof QueueEvents]: [Name, QueueEvents[Name][0]] }[keyof QueueEvents]

/** Records all events that a queue emits from now on. */
function listen(queue: RedisQueue): Told[] {
  const told: Told[] = []
  for (const name of NAMES) queue.on(name, (about: object) => told.push([name, about] as Told))
  return told
}

/** Checks the fields that differ from run to run, and removes them. */
function plain(told: readonly Told[]): unknown[] {
  return told.map(([name, about]) => {
    const fields: Record<string, unknown> = { ...about }
    for (const field of ['fence', 'ms']) {
      if (!(field in fields)) continue
      const value = fields[field] as number
      assert.ok(field === 'fence' ? Number.isSafeInteger(value) : value >= 0, `${name}.${field}: ${value}`)
      fields[field] = field
    }
    return [name, fields]
  })
}

onBothStores('events - each comes with its fields, in the process that it concerns', async (w) => {
  const [here, there] = [w.open({ backoff: 5 }), w.open()]
  const [toldHere, toldThere] = [listen(here), listen(there)]
  here.process('work', (payload, job) => {
    if (payload === 'bad' || job.attempt === 1)
      throw Object.assign(new Error('x'), { code: 'E_X', n: job.attempt })
    return 'done'
  })
  const job = await there.enqueue('work', 'good', { attempts: 2 })
  await job.result()
  const bad = await there.enqueue('work', 'bad')
  await bad.result().catch(() => {})
  assert.equal((await there.enqueue('work', 'good')).disposition, 'cached')
  await until(() => toldHere.some(([name]) => name === 'failed'), { what: 'the last event' })
  const common = { id: job.id, command: 'work' }
  const [first, second] = [1, 2].map((attempt) => ({ ...common, attempt, fence: 'fence' }))
  const failure = { name: 'Error', message: 'x', code: 'E_X', fields: { n: 1 } }
  const third = { ...first, id: bad.id }
  assert.deepEqual(plain(toldHere), [
    ['active', first],
    ['retrying', { ...first, ms: 'ms', delay: 5, failure }],
    ['active', second],
    ['completed', { ...second, ms: 'ms' }],
    ['active', third],
    ['failed', { ...third, ms: 'ms', failure }],
  ])
  assert.deepEqual(toldThere, [
    ['submitted', { ...common, disposition: 'created' }],
    ['submitted', { ...common, id: bad.id, disposition: 'created' }],
    ['submitted', { ...common, disposition: 'cached' }],
  ])
})

onBothStores(
  'events - one that is cancelled or closed away is lost, with the code of the reason',
  async (w) => {
    const [here, there] = [w.open(), w.open()]
    const told = listen(here)
    here.process(
      'work',
      (_, job) => new Promise((resolve) => job.signal.addEventListener('abort', () => resolve('late'))),
      { concurrency: 2 },
    )
    const [cancelled, closed] = await there.enqueueMany(
      [1, 2].map((payload) => ({ command: 'work', payload })),
    )
    await until(() => told.length === 2, { what: 'both to run' })
    await cancelled?.cancel()
    await until(() => told.length === 3, { what: 'the first to be lost' })
    await here.close({ grace: 0 })
    await until(() => told.length === 4, { what: 'the second to be lost' })
    const lost = (id: string | undefined, code: string) => [
      'lost',
      { id, command: 'work', attempt: 1, fence: 'fence', code },
    ]
    assert.deepEqual(plain(told).slice(2), [lost(cancelled?.id, 'E_ABORTED'), lost(closed?.id, 'E_CLOSED')])
  },
)

onBothStores('events - a hook that exposes less does so in events', async (w) => {
  const queue = w.open({ exposeError: ({ name }) => ({ name, message: 'hidden' }) })
  const told = listen(queue)
  queue.process('work', () => Promise.reject(new Error('secret')))
  await queue.submit('work').catch(() => {})
  await until(() => told.some(([name]) => name === 'failed'), { what: 'the failure' })
  assert.match(JSON.stringify(told), /hidden/)
  assert.doesNotMatch(JSON.stringify(told), /secret/)
})

onBothStores('events - whoever watches hears those of all processes, until it stops', async (w) => {
  const [watcher, here, there] = [w.open(), w.open(), w.open()]
  here.process('work', (n: number) => {
    if (n < 0) throw new Error('line\nfeed')
    return n
  })
  await there.submit('work', 0)
  const heard: FeedEvent[] = []
  const stop = await watcher.watch((event) => heard.push(event))
  // Events may be lost, above all before all processes know the watcher.
  let n = 1
  const all = () => new Set(heard.map(({ event }) => event)).size === 3
  await until(
    async () => {
      await (await there.enqueue('work', n++)).result()
      return all()
    },
    { what: 'all kinds of events' },
  )
  const job = await there.enqueue('work', -1)
  await job.result().catch(() => {})
  await until(() => heard.some(({ event }) => event === 'failed'), { what: 'the failure' })
  const events = heard.filter(({ id }) => id === job.id)
  assert.deepEqual(
    events.map(({ event }) => event),
    ['submitted', 'active', 'failed'],
  )
  for (const event of events) {
    assert.equal(event.command, 'work')
    assert.match(event.process, new RegExp(`:${process.pid}$`))
  }
  const [submitted, , failed] = events as [FeedEvent, FeedEvent, FeedEvent & { failure: unknown }]
  assert.equal('disposition' in submitted && submitted.disposition, 'created')
  assert.deepEqual(failed.failure, { name: 'Error', message: 'line\nfeed' })
  stop()
  const before = heard.length
  const again: FeedEvent[] = []
  const stopAgain = await watcher.watch((event) => again.push(event))
  await until(async () => (await there.submit('work', n++)) && again.length > 2, { what: 'another watcher' })
  assert.equal(heard.length, before, 'who has stopped hears no more')
  stopAgain()
  stopAgain()
})

test('events - while nobody watches, they cost no command', async () => {
  await using w = await onRedis()
  const [here, there] = [w.open(), w.open()]
  listen(here)
  here.process('work', (n: number) => n)
  const { server } = w.t
  const publishes = async (from: number) => {
    await server.resetStats()
    for (let n = from; n < from + 50; n++) await there.submit('work', n)
    return (await server.commandStats())['publish'] ?? 0
  }
  await there.submit('work', 0)
  await until(() => here.stats().subscribed && there.stats().subscribed, { what: 'the subscriptions' })
  const silent = await publishes(1)
  let heard = 0
  const stop = await there.watch(() => heard++)
  await until(async () => (await there.submit('work', Math.random())) && heard > 0, { what: 'an event' })
  const watched = await publishes(1000)
  assert.ok(watched >= silent + 50, `${watched} messages watched, ${silent} not`)
  stop()
  await until(async () => (await publishes(Math.ceil(Math.random() * 1e9))) === silent, { what: 'silence' })
  assert.ok(silent <= 102, `${silent} messages for 50 jobs: one to the worker, one to who waits`)
})
