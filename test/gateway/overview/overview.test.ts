// The overview: who is waiting on what. One is read for all who ask and watch, and nothing while nobody does.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { createGateway } from '../../../src/gateway/index.ts'
import type { CommandView, Overview } from '../../../src/gateway/overview/overview.ts'
import { Snapshots } from '../../../src/gateway/overview/snapshots.ts'
import { MemoryQueueStore, MemoryServices, RedisQueue, Services } from '../../../src/index.ts'
import { EventClient } from '../../support/event-client.ts'
import { onBothWorlds, serve } from '../../support/gateway.ts'
import { ManualClock, settled } from '../../support/manual-clock.ts'
import { setup } from '../../support/setup.ts'
import { until } from '../../support/wait.ts'
import { answerWhen, overviewOf, overviewWhen, queueOf } from './support.ts'

onBothWorlds('overview - queues, by command, and why their first job waits', async (w) => {
  const server = await w.open()
  const queue = w.queue('mail')
  const running = pDefer()
  const done = pDefer()
  queue.process('send', async () => {
    running.resolve()
    await done.promise
  })
  await queue.enqueue('send', 1)
  await running.promise
  await queue.enqueue('send', 2)
  await queue.enqueue('render', 'x')
  await queue.enqueue('send', 3, { delay: 100_000 })
  const overview = await overviewWhen(
    server,
    ({ queues, workers }) => queues.length > 0 && workers.length > 0,
  )
  assert.equal(overview.store.kind, w.kind)
  assert.equal(overview.store.reachable, true)
  assert.equal(overview.complete, true)
  assert.equal(overview.queueCount, 1)
  const mail = queueOf(overview, 'mail')
  const { waiting, delayed, running: active, failed, paused, totals } = mail
  assert.deepEqual(
    { waiting, delayed, active, failed, paused },
    { waiting: 2, delayed: 1, active: 1, failed: 0, paused: false },
  )
  assert.deepEqual(totals, { submitted: 4, completed: 0, failed: 0 })
  assert.equal(mail.why, 'The only slot of its worker is taken.')
  const common = { failed: 0, paused: false }
  assert.deepEqual(
    mail.commands.toSorted((one, other) => (one.command < other.command ? -1 : 1)),
    [
      { ...common, command: 'render', waiting: 1, delayed: 0, running: 0, capacity: 0 },
      { ...common, command: 'send', waiting: 1, delayed: 1, running: 1, capacity: 1 },
    ],
  )
  const [worker] = overview.workers
  assert.deepEqual(
    { ...worker, id: '', host: '', since: 0 },
    {
      ...{ id: '', host: '', pid: process.pid, since: 0 },
      ...{ queue: 'mail', command: 'send', busy: 1, concurrency: 1 },
    },
  )
  done.resolve()
  const after = await overviewWhen(server, (next) => queueOf(next, 'mail').totals.completed === 2)
  assert.equal(queueOf(after, 'mail').why, 'No worker is connected for command `render`.')
  await queue.pause()
  const stopped = await overviewWhen(server, (next) => queueOf(next, 'mail').paused)
  assert.equal(queueOf(stopped, 'mail').why, 'The queue is paused.')
})

onBothWorlds('overview - jobs are counted by their own command, or not at all', async (w) => {
  const server = await w.open()
  const queue = w.queue('crowd')
  const post = (count: number, command: string) =>
    queue.enqueueMany(Array.from({ length: count }, () => ({ command, options: LATER })))
  const delayedOf = ({ commands }: { commands: readonly CommandView[] }) =>
    commands.map(({ command, waiting, delayed }) => [command, waiting, delayed]).sort()
  await queue.enqueue('send', 1)
  await post(998, 'send')
  // No worker of `print` is known, and none of its jobs is ready.
  await post(2, 'print')
  const whole = await overviewWhen(server, (next) => queueOf(next, 'crowd').delayed === 1_000)
  assert.equal(queueOf(whole, 'crowd').commandsComplete, true)
  assert.deepEqual(delayedOf(queueOf(whole, 'crowd')), [
    ['print', 0, 2],
    ['send', 1, 998],
  ])
  await post(1, 'render')
  const cut = await overviewWhen(server, (next) => queueOf(next, 'crowd').delayed === 1_001)
  assert.equal(queueOf(cut, 'crowd').commandsComplete, false)
  assert.deepEqual(delayedOf(queueOf(cut, 'crowd')), [['send', 1, null]])
})

/** Two equal jobs are two. */
const LATER = { delay: 3_600_000, dedupe: false } as const

interface JobAnswer {
  state: string
  why: string
  due?: number
  runner?: { pid: number; worker?: string; left?: number }
}

onBothWorlds('overview - a job says why it waits, and who has it', async (w) => {
  const server = await w.open()
  const post = async (query = '') => {
    const { json } = await server.call('POST', `/q/paint${query}`, { body: '1' })
    return (json as { id: string }).id
  }
  const id = await post()
  const path = `/j/paint/${id}`
  const job = async (has: (json: JobAnswer) => boolean) => answerWhen<JobAnswer>(server, path, has)
  assert.equal((await job(() => true)).why, 'No worker is connected for command `job`.')
  const headers = { 'x-presque-workerid': 'brush-1' }
  const taken = await server.call('GET', '/q/paint?lease=30', { headers })
  const held = await job(({ runner }) => runner !== undefined)
  assert.deepEqual([held.state, held.runner?.worker, held.runner?.pid], ['active', 'brush-1', process.pid])
  assert.match(
    held.why,
    /^It has been with the worker `brush-1` for [\d.]+ s; the lease ends in (30|2\d) s\.$/,
  )
  await overviewWhen(server, ({ workers }) =>
    workers.some(({ id: its, busy }) => its === 'brush-1' && busy === 1),
  )
  const lease = { 'x-lease': taken.headers.get('x-lease') ?? '' }
  await server.call('PUT', '/q/paint', { body: '2', headers: { ...headers, ...lease } })
  assert.equal((await job(({ state }) => state === 'completed')).why, 'It is done.')
  await overviewWhen(server, ({ workers }) =>
    workers.some(({ id: its, busy }) => its === 'brush-1' && busy === 0),
  )
  const later = await post('?delay=100')
  const delayed = await answerWhen<JobAnswer>(server, `/j/paint/${later}`, () => true)
  assert.match(delayed.why, /^Delayed until (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC\.$/)
  assert.ok(Math.abs((delayed.due ?? 0) - Date.now() / 1000 - 100) < 30)
})

onBothWorlds('overview - keys that clients hold, and who waits for them', async (w) => {
  const server = await w.open()
  const other = await w.open()
  const claim = await server.call('POST', '/locks/report/claim?lease=30')
  const lease = { 'x-lease': claim.headers.get('x-lease') ?? '' }
  const waiting = other.call('GET', '/locks/report/wait?wait=20')
  await server.call('PATCH', '/locks/report', { body: '{"progress":{"done":3}}', headers: lease })
  for (const gateway of [server, other]) {
    const { keys } = await overviewWhen(gateway, (next) => (next.keys[0]?.waiters ?? 0) > 0)
    const [key, ...others] = keys
    assert.deepEqual(others, [])
    assert.equal(key?.key, 'report')
    assert.equal(key?.holder?.pid, process.pid)
    assert.equal(key?.lease, 30)
    assert.ok((key?.left ?? 0) > 10 && (key?.left ?? 99) <= 30)
    assert.deepEqual(key?.progress, { done: 3 })
    assert.equal(String(key?.fence), String((claim.json as { fence: number }).fence))
    assert.match(
      key?.why ?? '',
      /^Key `report` is held by a client of the gateway of pid \d+ on host \S+ for /,
    )
    assert.deepEqual(
      key?.waiting.map(({ pid, waiters }) => [pid, waiters]),
      [[process.pid, 1]],
    )
    const { keys: listed } = await answerWhen<{ keys: unknown[] }>(gateway, '/locks/', () => true)
    assert.equal(listed.length, 1)
    const one = await answerWhen<Record<string, unknown>>(
      gateway,
      '/locks/report',
      (json) => json['waiters'] === 1,
    )
    assert.equal(one['status'], 'locked')
    assert.match(String(one['why']), /^Key `report` is held by a client/)
  }
  // At the other gateway.
  await other.call('PUT', '/locks/report', { body: '1', headers: lease })
  assert.equal((await waiting).text, '{"status":"done","result":1}')
  const done = (await server.call('GET', '/locks/report')).json as Record<string, unknown>
  assert.deepEqual([done['status'], done['why']], ['done', undefined])
})

test('overview - lists are bounded, and say so', async () => {
  const store = new MemoryQueueStore()
  const server = await serve(createGateway({ queueOptions: { store } }))
  for (let index = 0; index < 203; index++) {
    const queue = new RedisQueue(`queue-${index}`, { store })
    await queue.enqueue('work', index)
    await queue.close()
  }
  const { queues, queueCount, complete } = await overviewOf(server)
  assert.deepEqual([queues.length, queueCount, complete], [200, 203, false])
  assert.equal(queues[0]?.name, 'queue-202', 'the last used first')
  await server.close()
})

test('overview - it goes on while Redis is away, with the lists that were read last', async () => {
  await using t = await setup({ persistence: true })
  const server = await serve(createGateway({ redis: t.redis }))
  await server.call('POST', '/q/kept', { body: '1' })
  const before = await overviewWhen(server, ({ queues }) => queues.length === 1)
  assert.equal(before.store.reachable, true)
  const events = await EventClient.open(`${server.url}/overview/events`)
  const next = async (has: (overview: Overview) => boolean) => {
    for (;;) {
      const overview = JSON.parse((await events.next()).data) as Overview
      if (has(overview)) return overview
    }
  }
  await next(({ queues }) => queues.length === 1)
  await t.server.kill()
  const away = await next(({ store }) => !store.reachable)
  assert.equal(away.queues[0]?.name, 'kept')
  assert.ok(away.store.since > before.at)
  const again = await next(({ at }) => at > away.at)
  assert.equal(again.store.since, away.store.since)
  await t.server.restart()
  const back = await next(({ store }) => store.reachable)
  assert.ok(back.store.since > away.store.since)
  events.close()
  await server.close()
})

test('overview - nothing is sent to Redis while nobody watches, and one overview serves all who do', async () => {
  await using t = await setup()
  const server = await serve(createGateway({ redis: t.redis }))
  await server.call('POST', '/q/seen', { body: '1' })
  await overviewOf(server)
  const scripts = async () => {
    await t.server.resetStats()
    const watchers = await Promise.all(
      Array.from({ length: 8 }, () => EventClient.open(`${server.url}/overview/events`)),
    )
    const [first, ...others] = watchers
    for (let index = 0; index < 3; index++) await first?.next()
    await until(() => others.every(({ events }) => events.length >= 2), { what: 'events of all' })
    const { evalsha = 0 } = await t.server.commandStats()
    const most = Math.max(...watchers.map(({ events }) => events.length))
    for (const watcher of watchers) watcher.close()
    return { evalsha, most }
  }
  const { evalsha, most } = await scripts()
  // Two scripts an overview: the register, and the only queue. One more overview may have begun, and one was read at once.
  assert.ok(evalsha <= 2 * (most + 2), `${evalsha} scripts for ${most} overviews`)
  await until(
    async () => {
      await t.server.resetStats()
      await new Promise((resolve) => setTimeout(resolve, 1_200))
      const { evalsha: later = 0, publish = 0 } = await t.server.commandStats()
      return later === 0 && publish === 0
    },
    { what: 'silence', timeout: 10_000 },
  )
  await server.close()
})

test('overview - snapshots: one in a second while somebody watches, and none after', async () => {
  const clock = new ManualClock()
  let reads = 0
  const snapshots = new Snapshots(async () => ({ at: ++reads }) as Overview, clock)
  await settled()
  assert.equal(reads, 0)
  const seen: string[][] = [[], []]
  const stops = seen.map((frames) => snapshots.watch(({ bytes }) => frames.push(bytes.toString())))
  await settled()
  assert.equal(reads, 1)
  for (let second = 0; second < 3; second++) {
    clock.advance(1_000)
    await settled()
  }
  assert.equal(reads, 4)
  assert.deepEqual(
    seen[0]?.slice(-3),
    [2, 3, 4].map((at) => `data: {"at":${at}}\n\n`),
  )
  assert.deepEqual(seen[1]?.slice(-3), seen[0]?.slice(-3))
  for (const stop of stops) stop()
  clock.advance(10_000)
  await settled()
  assert.equal(reads, 4)
  assert.equal(await snapshots.current(), '{"at":5}')
})

test('overview - snapshots: a watcher that comes while one is read is sent it once; one that leaves then ends it', async () => {
  const clock = new ManualClock()
  let finish = (_: Overview) => {}
  let reads = 0
  const read = () => {
    reads++
    return new Promise<Overview>((resolve) => {
      finish = resolve
    })
  }
  const snapshots = new Snapshots(read, clock)
  const seen: string[] = []
  const watch = (name: string) =>
    snapshots.watch(({ bytes }) => seen.push(`${name} ${bytes.toString().trim()}`))
  const stopFirst = watch('first')
  const stopSecond = watch('second')
  stopFirst()
  finish({ at: 1 } as Overview)
  await settled()
  assert.deepEqual([seen, reads], [['second data: {"at":1}'], 1])
  clock.advance(1_000)
  stopSecond()
  finish({ at: 2 } as Overview)
  await settled()
  clock.advance(10_000)
  await settled()
  assert.deepEqual([seen.length, reads], [1, 2], 'nobody watches')
  const stopThird = watch('third')
  finish({ at: 3 } as Overview)
  await settled()
  assert.deepEqual([seen.at(-1), reads], ['third data: {"at":3}', 3])
  stopThird()
})

test('overview - services that the gateway was given are told of, wherever they are', async () => {
  const services = new Services({ store: new MemoryServices() })
  const sums = await services.register('sums', { capacity: 3, version: '2' })
  sums.on('add', (one: number, other: number) => one + other)
  const server = await serve(createGateway({ services }))
  try {
    const { services: told } = (await server.call('GET', '/overview')).json as Overview
    assert.deepEqual(
      told.map(({ name, processes }) => [
        name,
        processes.map(({ capacity, version, pid }) => [capacity, version, pid]),
      ]),
      [['sums', [[3, '2', process.pid]]]],
    )
    assert.doesNotMatch(JSON.stringify(told), new RegExp(services.id), 'calls could be made by it')
  } finally {
    await server.close()
    await services.close()
  }
})
