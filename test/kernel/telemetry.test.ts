import assert from 'node:assert/strict'
import diagnostics from 'node:diagnostics_channel'
import { test } from 'node:test'
import pDefer from 'p-defer'
import {
  channelName,
  Lease,
  Locker,
  MemoryStore,
  type TelemetryEvent,
  type TelemetryEvents,
} from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const EVENTS: readonly TelemetryEvent[] = [
  'hit',
  'join',
  'grant',
  'park',
  'work',
  'settle',
  'lost',
  'wait',
  'unshared',
  'hook',
  'connection',
]

/** Records all events until it is disposed. */
class Recording implements Disposable {
  readonly events: [TelemetryEvent, object][] = []
  readonly #listeners = EVENTS.map((event) => {
    const listener = (data: unknown) => this.events.push([event, data as object])
    diagnostics.subscribe(channelName(event), listener)
    return () => diagnostics.unsubscribe(channelName(event), listener)
  })

  of<E extends TelemetryEvent>(event: E): TelemetryEvents[E][] {
    return this.events.filter(([name]) => name === event).map(([, data]) => data as TelemetryEvents[E])
  }

  names(): string[] {
    return this.events.map(([name]) => name)
  }

  [Symbol.dispose](): void {
    for (const unsubscribe of this.#listeners) unsubscribe()
  }
}

test('telemetry - channels are named soloflight:<event>', () => {
  assert.deepEqual(
    EVENTS.map(channelName),
    EVENTS.map((event) => `soloflight:${event}`),
  )
})

test('telemetry - a run emits grant, work, settle and wait; a hit emits hit', async () => {
  await using locker = new Locker()
  using told = new Recording()
  await locker.run('key', () => 1)
  assert.deepEqual(told.names(), ['grant', 'work', 'settle', 'wait'])
  const fence = told.of('grant')[0]?.fence ?? 0
  assert.deepEqual(told.of('grant'), [{ key: 'key', fence, takeover: false }])
  assert.deepEqual(told.of('settle'), [{ key: 'key', fence, failed: false }])
  const [work] = told.of('work')
  assert.ok(
    work && work.ms >= 0 && work.fence === fence && !work.failed && work.key === 'key',
    'work && work.ms >= 0 && work.fence === fence && !work.failed …',
  )
  const [wait] = told.of('wait')
  assert.ok(
    wait && wait.ms >= 0 && wait.outcome === 'result' && wait.key === 'key',
    'wait && wait.ms >= 0 && wait.outcome === "result" && wait.ke …',
  )
  await locker.run('key', () => 2)
  await locker.run('key', () => 2, {})
  await locker.request('key')
  assert.deepEqual(told.of('hit'), Array(3).fill({ key: 'key', local: true }))
})

test('telemetry - joins, failures, timeouts and aborts emit events', async () => {
  await using locker = new Locker({ cache: false })
  using told = new Recording()
  const gate = pDefer<never>()
  const runs = [
    locker.run('key', () => gate.promise),
    locker.run('key', () => 1),
    locker.run('key', () => 1, { timeout: 20 }),
    locker.run('key', () => 1, { signal: AbortSignal.timeout(20) }),
  ]
  const settled = Promise.allSettled(runs)
  await Promise.allSettled(runs.slice(2))
  gate.reject(new Error('x'))
  await settled
  assert.equal(told.of('join').length, 3)
  assert.equal(told.of('work')[0]?.failed, true)
  assert.equal(told.of('settle')[0]?.failed, true)
  const outcomes = told.of('wait').map(({ outcome }) => outcome)
  assert.deepEqual(outcomes.sort(), ['E_ABORTED', 'E_REMOTE', 'E_REMOTE', 'E_TIMEOUT'])
})

test('telemetry - request emits events when it waited for a lease, and when the lease is lost', async () => {
  const store = new MemoryStore()
  await using locker = new Locker({ store, lease: 150 })
  using told = new Recording()
  const lease = await locker.request('key')
  assert.ok(lease instanceof Lease, 'lease instanceof Lease')
  assert.equal(told.of('wait')[0]?.outcome, 'lease')
  store.apply(recordKey('soloflight', 'key'), (record) => {
    record.lease = undefined
  })
  await until(() => told.of('lost').length, { what: 'the loss' })
  assert.deepEqual(told.of('lost'), [{ key: 'key', fence: lease.fence }])
})

for (const world of ['memory', 'redis']) {
  test(`telemetry - the trace context of the processor reaches parked waiters, on ${world}`, async () => {
    await using t = await setup()
    const store = new MemoryStore()
    const where = world === 'redis' ? { redis: t.redis } : { store }
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    await using one = new Locker({ ...where, trace: () => traceparent })
    await using other = new Locker({ ...where, trace: () => undefined })
    await using plain = new Locker(where)
    using told = new Recording()
    const gate = pDefer<string>()
    const first = one.run('key', () => gate.promise)
    await until(() => one.stats().running === 1, { what: 'the work' })
    const second = other.run('key', () => 'x')
    await until(() => told.of('park').length >= 1, { what: 'the park' })
    const fence = told.of('grant')[0]?.fence ?? 0
    assert.deepEqual(told.of('park')[0], { key: 'key', fence, trace: traceparent })
    gate.resolve('done')
    await Promise.all([first, second])
    const lease = await plain.request('untraced')
    assert.ok(lease instanceof Lease, 'lease instanceof Lease')
    const parks = told.of('park').length
    const waiting = other.run('untraced', () => 'x')
    await until(() => told.of('park').length > parks, { what: 'the park' })
    assert.deepEqual(told.of('park').at(-1), { key: 'untraced', fence: lease.fence, trace: undefined })
    await lease.publish('done')
    await waiting
  })
}

test('telemetry - hits of the store, takeovers and both connections to Redis emit events', async () => {
  await using t = await setup()
  using told = new Recording()
  await using one = new Locker({ redis: t.redis, cache: false, lease: 300 })
  await one.run('key', () => 1)
  await until(() => one.stats().subscribed, { what: 'the subscription' })
  await one.run('key', () => 1)
  assert.deepEqual(told.of('hit'), [{ key: 'key', local: false }])
  const up = () =>
    told
      .of('connection')
      .filter((event) => event.up)
      .map(({ link }) => link)
  assert.deepEqual(up().sort(), ['commands', 'subscription'])
  await t.server.kill()
  await until(() => told.of('connection').filter((event) => !event.up).length >= 2, {
    what: 'the loss of both',
  })
})

test('telemetry - an unshared work emits an event', async () => {
  await using t = await setup()
  await t.server.kill()
  await using locker = new Locker({ redis: t.redis, unavailableAfter: 100, onUnavailable: 'local' })
  using told = new Recording()
  await locker.run('key', () => 1)
  assert.deepEqual(told.of('unshared'), [{ key: 'key' }])
})

test('telemetry - nothing is emitted without subscribers, and a late subscriber misses only earlier events', async () => {
  await using locker = new Locker()
  await locker.run('before', () => 1)
  using told = new Recording()
  await locker.run('after', () => 1)
  assert.ok(
    told.events.every(([, data]) => (data as { key: string }).key === 'after'),
    'told.events.every(([, data]) => (data as { key: string }).ke …',
  )
})

test('U3 telemetry - a listener that makes others leave while a waiter is served harms nothing', async () => {
  await using t = await setup()
  await using one = new Locker({ redis: t.redis, cache: false })
  await using other = new Locker({ redis: t.redis, cache: false })
  await Promise.all([one.ready(), other.ready()])
  const gate = pDefer<string>()
  const first = one.run('k', () => gate.promise)
  await until(async () => (await one.peek('k')).status === 'locked', { what: 'the lease' })
  const served = other.run('k', () => 'x')
  await parked(one)
  const abort = new AbortController()
  // Joined later: the outcome is not known to be valid for it.
  const left = other.run('k', () => 'y', { signal: abort.signal }).catch((error: Error) => error.name)
  const leave = () => abort.abort()
  gate.resolve('value')
  assert.equal(await first, 'value')
  diagnostics.subscribe(channelName('wait'), leave)
  assert.equal(await served, 'value')
  assert.match(await left, /value|AbortedError/)
  diagnostics.unsubscribe(channelName('wait'), leave)
  assert.equal(await other.run('k2', () => 'later'), 'later')
})
