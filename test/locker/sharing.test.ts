import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Connection, type Done, Lease, Locker, NotLockedError } from '../../src/index.ts'
import { inBothStores, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, until } from '../support/wait.ts'

inBothStores('sharing - one caller is the processor, all others receive its result', async (w) => {
  const [one, other] = [w.create(), w.create()]
  const ticket = await one.request<string>('key')
  assert.equal(ticket.status, Locker.LOCKED)
  assert.ok(ticket instanceof Lease)
  assert.deepEqual([ticket.key, ticket.shared, ticket.signal.aborted], ['key', true, false])
  assert.ok(Number.isSafeInteger(ticket.fence) && ticket.fence > 0)
  const waits = [one.request<string>('key'), other.request<string>('key'), other.run('key', () => 'x')]
  await parked(one, 'key', 1)
  await ticket.publish('report')
  const [joined, elsewhere, ran] = await Promise.all(waits)
  assert.deepEqual(joined, { status: Locker.DONE, result: 'report' })
  assert.deepEqual(elsewhere, { status: 'done', result: 'report' })
  assert.equal(ran, 'report')
  assert.deepEqual(await w.create().request('key'), { status: 'done', result: 'report' })
})

inBothStores('Q2 sharing - fifty callers in five processes share one work', async (w) => {
  let works = 0
  const work = async () => {
    await new Promise((resume) => setImmediate(resume))
    return { works: ++works }
  }
  const lockers = Array.from({ length: 5 }, () => w.create())
  const runs = lockers.flatMap((locker) => Array.from({ length: 10 }, () => locker.run('key', work)))
  for (const result of await Promise.all(runs)) assert.deepEqual(result, { works: 1 })
  assert.equal(works, 1)
})

inBothStores('sharing - any value that the codec encodes is a result', async (w) => {
  const [one, other] = [w.create(), w.create({ cache: false })]
  const values = [
    undefined,
    null,
    false,
    0,
    -0,
    NaN,
    '',
    [],
    {},
    Buffer.from('x'),
    new Float64Array(2),
    { a: undefined },
  ]
  for (const [index, value] of values.entries()) {
    assert.deepStrictEqual(await one.run(`key${index}`, () => value), value)
    assert.deepStrictEqual(await other.run(`key${index}`, () => 'unused'), value)
  }
})

inBothStores('sharing - the processor receives the decoded result too, and shares no object', async (w) => {
  const made = { list: [1], bytes: Buffer.from('abc') }
  const locker = w.create({ cache: false })
  const [mine, joined] = [locker.run('key', () => made), locker.run('key', () => made)]
  const result = await mine
  assert.deepStrictEqual(result, made)
  assert.notEqual(result, made)
  assert.deepStrictEqual(await joined, made)
  made.list.push(2)
  made.bytes.fill(0)
  assert.deepStrictEqual(await locker.run('key', () => made), { list: [1], bytes: Buffer.from('abc') })
})

inBothStores('sharing - a result that is larger than any message reaches every waiter', async (w) => {
  const [one, other] = [w.create({ ttl: 0 }), w.create({ ttl: 0 })]
  const gate = pDefer()
  const large = Buffer.alloc(3_000_000, 'x')
  const first = one.run('key', async () => {
    await gate.promise
    return large
  })
  await until(async () => (await one.peek('key')).status === 'locked', { what: 'the claim' })
  const elsewhere = [other.run('key', () => large), w.create().run('key', () => large)]
  await parked(one, 'key', 2)
  gate.resolve()
  for (const result of await Promise.all([first, ...elsewhere])) assert.ok(large.equals(result))
  assert.equal(one.stats().works + other.stats().works, 1)
})

test('sharing - without options a locker works alone, in memory', async () => {
  await using one = new Locker()
  await using other = new Locker()
  assert.equal(await one.run('key', () => 1), 1)
  assert.equal(await other.run('key', () => 2), 2)
  assert.equal(one.stats().subscribed, true)
  assert.equal(one.stats().pendingCommands, 0)
})

test('L5 sharing - no message exceeds its limit: a larger result is announced and read', async () => {
  await using t = await setup()
  await using one = new Locker({ redis: t.redis })
  await using other = new Locker({ redis: t.redis })
  const listener = await t.client()
  const lengths: number[] = []
  listener.on('pmessageBuffer', (_pattern: string, _channel: Buffer, message: Buffer) =>
    lengths.push(message.length),
  )
  await listener.psubscribe('soloflight:1:inbox:*')
  for (const size of [10_000, 60_000, 70_000, 2_000_000]) {
    const key = `key${size}`
    const lease = await leaseOf(one, key)
    const waits = other.run<string>(key, () => 'x')
    await parked(one, key, 1)
    await lease.publish('v'.repeat(size))
    assert.equal((await waits).length, size)
  }
  await until(() => lengths.length >= 4, { what: 'the messages' })
  const [small, large, ...announced] = lengths
  assert.ok(small && small > 10_000 && small < 10_200)
  assert.ok(large && large > 60_000 && large < 60_200)
  for (const length of announced) assert.ok(length < 100, `a message of ${length} bytes`)
})

test('sharing - two lockers on one Connection share flights, and each has its own counters and leases', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await using one = new Locker({ redis: connection })
  await using other = new Locker({ redis: connection, cache: false })
  await one.run('warm', () => 1)
  await using monitor = await t.server.monitor()
  const gate = pDefer<string>()
  const first = one.run('key', () => gate.promise)
  await until(() => one.stats().running === 1, { what: 'the work' })
  const joined = other.run('key', () => 'x')
  assert.deepEqual([one.stats().flights, other.stats().flights, other.stats().joins], [1, 1, 1])
  gate.resolve('shared')
  assert.deepEqual(await Promise.all([first, joined]), ['shared', 'shared'])
  const claims = (await monitor.lines()).filter(
    ({ command, fromScript }) => command === 'evalsha' && !fromScript,
  )
  assert.equal(claims.length, 2, 'one claim and one publish')
  const lease = await leaseOf(one, 'leased')
  assert.ok((await rejectionOf(other.publish('leased', 1))) instanceof NotLockedError)
  await lease.release()
})

test('sharing - two connections to one Redis share results, but no flights', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await using one = new Locker({ redis: connection })
  await using other = new Locker({ redis: t.url })
  const gate = pDefer<string>()
  const first = one.run('key', () => gate.promise)
  await until(() => one.stats().running === 1, { what: 'the work' })
  const second = other.run('key', () => 'x')
  await parked(one, 'key', 1)
  assert.equal(one.stats().flights, 1)
  gate.resolve('shared')
  const results: (string | Done<string>)[] = await Promise.all([first, second])
  assert.deepEqual(results, ['shared', 'shared'])
})
