import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  ClosedError,
  CodecError,
  LeaseLostError,
  type Locker,
  RemoteError,
  TokenLease,
  UnavailableError,
} from '../../src/index.ts'
import { LockerProcesses, told } from '../support/locker-process.ts'
import { scene } from '../support/locker-scene.ts'
import { EPSILON, inBothStores, leaseOf, parked } from '../support/lockers.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** A lease that its locker does not renew. */
async function tokenOf(locker: Locker, key = 'key', lease = 5000): Promise<TokenLease> {
  const reply = await locker.request(key, { renew: false, lease })
  assert.ok(reply instanceof TokenLease, `${key} was not granted`)
  return reply
}

inBothStores('tokens - a lease that one locker was granted is published by another', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await tokenOf(one)
  assert.match(lease.token, /^[\w-]+$/)
  const held = other.held(lease.token)
  assert.deepEqual([held.key, held.fence, held.lease, held.token], ['key', lease.fence, 5000, lease.token])
  const waits = [one.run('key', () => 'mine'), other.wait('key'), one.request('key', { renew: false })]
  // The run and the request share a flight.
  await parked(one, 'key', 2)
  await held.publish({ of: 'another' })
  assert.deepEqual(await Promise.all(waits), [
    { of: 'another' },
    { of: 'another' },
    { status: 'done', result: { of: 'another' } },
  ])
  assert.equal((await one.peek('key')).status, 'done')
})

inBothStores('tokens - a waiter in the process that granted the lease is told as well', async (w) => {
  const locker = await w.open({ timeout: 2000 })
  const lease = await tokenOf(locker, 'key', 60_000)
  const wait = locker.run('key', () => 'mine')
  await parked(locker, 'key', 1)
  await locker.held(lease.token).publish('told', { ttl: 0 })
  assert.equal(await wait, 'told')
})

inBothStores('tokens - a published result is kept for its ttl, or that of the locker', async (w) => {
  const [one, other] = [await w.open(), await w.open({ ttl: 100_000 })]
  await other.held((await tokenOf(one, 'a')).token).publish('a')
  await other.held((await tokenOf(one, 'b')).token).publish('b', { ttl: 5000 })
  const left = async (key: string) => (await one.peek(key)).value?.ttlLeft ?? 0
  assert.ok((await left('a')) > 90_000 && (await left('a')) <= 100_000)
  assert.ok((await left('b')) > 3000 && (await left('b')) <= 5000)
})

inBothStores('tokens - a failure reaches the waiters, a release lets the next one in', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const first = await tokenOf(one)
  const wait = one.wait('key')
  await parked(one, 'key', 1)
  const isMine = (error: unknown) => error instanceof RemoteError && error.remote.code === 'E_MINE'
  // The notice may arrive before the reply.
  const failed = assert.rejects(wait, isMine)
  await other.held(first.token).fail(Object.assign(new Error('broken'), { code: 'E_MINE' }))
  await failed
  const second = await tokenOf(one)
  const next = other.run('key', () => 'of the next')
  await parked(one, 'key', 1)
  await other.held(second.token).release()
  assert.equal(await next, 'of the next')
  await assert.rejects(second.release(), LeaseLostError)
})

inBothStores(
  'tokens - nobody renews for the holder: the lease runs out, and a waiter takes over',
  async (w) => {
    const [one, other] = [await w.open(), await w.open()]
    const from = performance.now()
    const lease = await tokenOf(one, 'key', 300)
    assert.equal(await other.run('key', () => 'of the next'), 'of the next')
    const ms = performance.now() - from
    assert.ok(ms >= 295 && ms < 300 + EPSILON, `taken over after ${ms} ms`)
    assert.equal(await lease.renew(), false)
    assert.equal(await lease.progress('late'), false)
    await assert.rejects(lease.publish('late'), LeaseLostError)
    await assert.rejects(lease.fail(new Error('late')), LeaseLostError)
    await assert.rejects(lease.release(), LeaseLostError)
    assert.equal(await one.wait('key'), 'of the next')
    assert.equal(one.stats().lost, 0)
  },
)

inBothStores('tokens - the holder renews, for the time that it names', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await tokenOf(one, 'key', 400)
  const held = other.held(lease.token)
  const left = async () => (await one.peek('key')).lock?.leaseLeft ?? 0
  assert.equal(await held.renew(60_000), true)
  assert.ok((await left()) > 50_000)
  assert.equal(await held.renew(), true)
  assert.ok((await left()) <= 400)
  await assert.rejects(held.renew(99), TypeError)
  await held.publish('done')
  assert.equal(await held.renew(), false)
})

inBothStores('tokens - each is granted the lease that it asked for', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const first = await leaseOf(other)
  const asked = [tokenOf(one, 'k', 40_000), tokenOf(one, 'k', 70_000), tokenOf(one, 'k', 40_000)]
  await parked(other, 'k', 2)
  await first.release()
  const granted: number[] = []
  const finish = async (request: Promise<TokenLease>) => {
    const { lease, token } = await request
    const left = (await one.peek('k')).lock?.leaseLeft ?? 0
    assert.ok(left > lease - 10_000 && left <= lease, `${left} of ${lease}`)
    granted.push(lease)
    await other.held(token).release()
  }
  await Promise.all(asked.map(finish))
  assert.deepEqual(granted.sort(), [40_000, 40_000, 70_000])
})

inBothStores('tokens - progress reaches the waiters', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await tokenOf(one)
  const shown: unknown[] = []
  const wait = one.run('key', () => 'mine', { onProgress: (value) => shown.push(value) })
  await parked(one, 'key', 1)
  assert.equal(await other.held(lease.token).progress({ done: 0.5 }), true)
  await until(() => shown.length === 1, { what: 'the progress' })
  assert.deepEqual(shown, [{ done: 0.5 }])
  await lease.publish('done')
  assert.equal(await wait, 'done')
})

inBothStores('tokens - a result is accepted once, and a repetition of it does no harm', async (w) => {
  const one = await w.open()
  const lease = await tokenOf(one)
  await lease.publish('once')
  await lease.publish('once')
  await assert.rejects(lease.publish('twice'), LeaseLostError)
  await assert.rejects(lease.fail(new Error('twice')), LeaseLostError)
  assert.equal(await one.wait('key'), 'once')
})

inBothStores('tokens - a result that cannot be encoded leaves the lease as it was', async (w) => {
  const lease = await tokenOf(await w.open())
  await assert.rejects(
    lease.publish(() => {}),
    CodecError,
  )
  await assert.rejects(
    lease.progress(() => {}),
    CodecError,
  )
  assert.equal(await lease.renew(), true)
  await lease.publish('data')
})

inBothStores('tokens - a lease that is renewed has one too', async (w) => {
  const [one, other] = [await w.open({ lease: 300 }), await w.open()]
  const lease = await leaseOf(one, 'key')
  await other.held(lease.token).publish('by its token')
  assert.equal(await one.wait('key'), 'by its token')
  await until(() => lease.signal.aborted, { what: 'its locker to learn of it' })
  await assert.rejects(lease.publish('late'), LeaseLostError)
})

inBothStores('tokens - the end of the locker that granted it does not end a lease', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const lease = await tokenOf(one)
  await one.close({ grace: 0 })
  assert.equal((await other.peek('key')).status, 'locked')
  await assert.rejects(lease.publish('closed'), ClosedError)
  assert.throws(() => one.held(lease.token), ClosedError)
  await other.held(lease.token).publish('open')
  assert.equal(await other.wait('key'), 'open')
})

inBothStores('tokens - keys of any kind', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const keys = ['ключ', 'a\nb', 'x'.repeat(10_000), '"', '\ud800', '{a}', ' ', '__proto__', '\0', '\u2028']
  for (const key of keys) {
    const { token } = await tokenOf(one, key)
    await other.held(token).publish('of this key')
    assert.equal(await one.wait(key), 'of this key')
    assert.equal(other.held(token).key, key)
  }
})

inBothStores('tokens - forged ones hold nothing', async (w) => {
  const [one, other] = [await w.open(), await w.open()]
  const { token, fence } = await tokenOf(one)
  await tokenOf(one, 'other')
  const text = Buffer.from(token, 'base64url').toString()
  const forged = [
    text.replace(String(fence), String(fence + 1)),
    text.replace('"key"', '"other"'),
    text.replace('"key"', '"unknown"'),
    text.replace('.1.', '.2.'),
    text.slice(22, 44) + text.slice(0, 22) + text.slice(44),
    `${'A'.repeat(44)}${text.slice(44)}`,
  ].map((forgery) => Buffer.from(forgery).toString('base64url'))
  for (const forgery of forged) {
    const held = other.held(forgery)
    assert.equal(await held.renew(60_000), false, Buffer.from(forgery, 'base64url').toString())
    assert.equal(await held.progress('forged'), false)
    await assert.rejects(held.publish('forged'), LeaseLostError)
    await assert.rejects(held.fail(new Error('forged')), LeaseLostError)
    await assert.rejects(held.release(), LeaseLostError)
  }
  assert.equal((await one.peek('key')).lock?.fence, fence)
  await other.held(token).publish('genuine')
  assert.equal(await one.wait('key'), 'genuine')
})

inBothStores('tokens - what is none is refused, and not shown', async (w) => {
  const locker = w.create()
  const encode = (text: string) => Buffer.from(text).toString('base64url')
  const address = 'A'.repeat(44)
  const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`
  const wrong: unknown[] = [
    '',
    'secret',
    'x'.repeat(1 << 22),
    encode(`${address}.1.1.1.`),
    encode(`${address}.1.1.1.""`),
    encode(`${address}.1.1.1."\\"`),
    encode(`${address}.1.1.1."a""`),
    encode(`${address}.1.1.1.${deep}`),
    encode(`${address}.-1.1.1."key"`),
    encode(`${address}.1.9999999999999999.1."key"`),
    encode(`${address}.1.1e3.1."key"`),
    encode(`${address}.1.1.1."${'x'.repeat((1 << 20) + 1)}"`),
    undefined,
    null,
    7,
    {},
    [encode(`${address}.1.1.1."key"`)],
  ]
  for (const token of wrong) {
    assert.throws(
      () => locker.held(token as string),
      (error) => error instanceof TypeError && !error.message.includes('secret'),
      String(token).slice(0, 100),
    )
  }
})

inBothStores('tokens - `renew` is false or absent, and of a request alone', async (w) => {
  const locker = w.create()
  await assert.rejects(locker.request('key', { renew: true } as never), TypeError)
  await assert.rejects(
    locker.run('key', () => 1, { renew: false } as never),
    TypeError,
  )
})

test('tokens - while Redis is unavailable, none is granted for this process alone', async () => {
  await using s = await scene({ unavailableAfter: 300, onUnavailable: 'local' })
  await s.t.proxy.refuse(true)
  s.t.proxy.cut()
  await assert.rejects(s.locker.request('key', { renew: false }), UnavailableError)
  const lease = await leaseOf(s.locker, 'key')
  assert.deepEqual([lease.shared, lease.token], [false, ''])
})

test('tokens - a lease outlives the process that granted it, and is finished by another', async () => {
  await using t = await setup()
  const options = { redis: t.server.options }
  await using processes = await LockerProcesses.start(options, options, options)
  const [granter, finisher, waiter] = [processes.at(0), processes.at(1), processes.at(2)]
  const token = await granter.call('requestToken', 'key', 60_000)
  const wait = waiter.call('run', 'key')
  await until(async () => (await waiter.call('stats')).parks === 1, { what: 'it to be parked' })
  await granter.kill()
  await finisher.call('publishByToken', token, 'finished elsewhere')
  assert.equal(await wait, 'finished elsewhere')
})

test('tokens - a holder that is gone is replaced although the process that granted lives', async () => {
  await using t = await setup()
  const options = { redis: t.server.options }
  await using processes = await LockerProcesses.start(options, options)
  const [granter, waiter] = [processes.at(0), processes.at(1)]
  const token = await granter.call('requestToken', 'key', 400)
  const wait = waiter.call('run', 'key', { ms: 0 })
  const { fence } = await told(waiter, 'grant', 'key')
  assert.equal(String(await wait).split('/')[1], String(fence))
  await assert.rejects(granter.call('publishByToken', token, 'late'), /lost/)
})
