import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type Job, type QueueOptions, RedisQueue, SoloflightError } from '../../src/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { RedisCluster } from '../support/cluster.ts'
import { EPSILON } from '../support/lockers.ts'
import { LOCALHOST } from '../support/ports.ts'
import { over, Runs, subscribed } from '../support/queue-wire.ts'
import { portOf, type RedisServer } from '../support/redis-server.ts'
import { until } from '../support/wait.ts'

const LEASE = 1000
const RETAIN = { completed: { count: 10, age: 60_000 } }

/** A queue with its own client. */
async function queueOn(cluster: RedisCluster, name: string, options: QueueOptions = {}): Promise<RedisQueue> {
  const redis = await cluster.client()
  return new RedisQueue(name, { redis, lease: LEASE, timeout: 15_000, retain: RETAIN, ...options })
}

const slotOf = (cluster: RedisCluster, name: string) => cluster.slotOf(new QueueKeys('soloflight', name).base)

/** The node that serves a queue, its slot, and another node. */
async function whereIs(
  cluster: RedisCluster,
  name: string,
): Promise<{ slot: number; from: RedisServer; to: RedisServer }> {
  const slot = await slotOf(cluster, name)
  const from = await cluster.ownerOf(slot)
  const to = cluster.nodes.find((node) => node !== from)
  assert.ok(to, 'no other node')
  return { slot, from, to }
}

/** The name of a queue that is on the node. */
async function nameOn(cluster: RedisCluster, node: RedisServer): Promise<string> {
  for (let index = 0; ; index += 1) {
    const name = `queue ${index} {é}`
    if ((await cluster.ownerOf(await slotOf(cluster, name))) === node) return name
  }
}

async function keysIn(node: RedisServer, slot: number): Promise<string[]> {
  return ((await node.call('CLUSTER', 'GETKEYSINSLOT', slot, 1000)) as unknown[]).map(String)
}

/** Migrates keys of a slot. */
async function move(from: RedisServer, to: RedisServer, keys: readonly string[]): Promise<void> {
  await from.call('MIGRATE', LOCALHOST, portOf(to), '', 0, 5000, 'KEYS', ...keys)
}

/** Migrates the remaining keys, and assigns the slot to the target node. */
async function finishMove(
  cluster: RedisCluster,
  where: Awaited<ReturnType<typeof whereIs>>,
  pause = 0,
): Promise<void> {
  const { slot, from, to } = where
  for (;;) {
    const [key] = await keysIn(from, slot)
    if (key === undefined) break
    await move(from, to, [key])
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause))
  }
  await cluster.endMigration(slot, from, to)
}

const codeOf = (error: unknown) => (error instanceof SoloflightError ? error.code : String(error))

describe('a queue on a cluster', () => {
  let cluster: RedisCluster
  before(async () => {
    cluster = await RedisCluster.start()
  })
  after(() => cluster[Symbol.asyncDispose]())

  test('Q2 cluster - a queue of any name is in one slot: submit, enqueue, enqueueMany, delay, priority, cancel, progress', async () => {
    const names = ['plain', '{tag}', '{}', '}{', 'a{b', '{{x}}', 'a b', 'é\n', '{a}{b}', '日本 {x}']
    for (const name of names) {
      await using a = await queueOn(cluster, name)
      await using b = await queueOn(cluster, name)
      const runs = new Runs()
      a.process('a b{c}', runs.handler(), { concurrency: 3 })
      b.process('shown', (payload, job) => {
        job.progress(payload)
        return new Promise((resolve) => job.signal.addEventListener('abort', resolve))
      })
      await subscribed(a, b)
      // One worker in the same process, and one in another.
      assert.equal(await a.submit('a b{c}', 'here'), 'here')
      assert.equal(await b.submit('a b{c}', 'there'), 'there')
      const twice = await Promise.all([a, b].map((queue) => queue.submit('a b{c}', { once: true })))
      assert.deepEqual(twice, [{ once: true }, { once: true }])
      const bulk = ['delayed', 'urgent', 'x', 'y'].map((payload) => ({
        command: 'a b{c}',
        payload,
        options: payload === 'delayed' ? { delay: 50 } : payload === 'urgent' ? { priority: 5 } : {},
      }))
      const jobs = await b.enqueueMany(bulk)
      assert.deepEqual(await Promise.all(jobs.map((job) => job.result())), ['delayed', 'urgent', 'x', 'y'])
      assert.equal(runs.all.length, 7, `${name}: ${runs.all.length} runs`)
      const shown: unknown[] = []
      const job = await a.enqueue('shown', 'half')
      const result = job.result({ onProgress: (value) => shown.push(value) })
      await until(async () => (await job.status())?.progress === 'half', { what: 'progress' })
      // The notice may arrive before the reply to the call.
      const cancelled = assert.rejects(result, { code: 'E_REMOTE' })
      assert.equal(await job.cancel(), true)
      await cancelled
      await over(a)
    }
  })

  test('cluster - priorities are respected, and a queue is paused for all processes', async () => {
    await using a = await queueOn(cluster, 'ordered')
    await using b = await queueOn(cluster, 'ordered')
    const runs = new Runs()
    // First, so that the worker offers its slot only once: a job that it returned would run before its turn.
    await subscribed(b)
    await a.pause()
    b.process('work', runs.handler())
    const jobs = await a.enqueueMany(
      [0, 3, 0, 9, 3].map((priority, index) => ({ command: 'work', payload: index, options: { priority } })),
    )
    await a.resume()
    await Promise.all(jobs.map((job) => job.result()))
    assert.deepEqual(runs.payloads, [3, 1, 4, 0, 2])
  })

  test('cluster - queues on all nodes, with one client for all', async () => {
    const client = await cluster.client()
    const names = await Promise.all(cluster.nodes.map((node) => nameOn(cluster, node)))
    const queues = names.map((redis) => new RedisQueue(redis, { redis: client, lease: LEASE }))
    const others = await Promise.all(names.map((name) => queueOn(cluster, name)))
    const runs = names.map(() => new Runs())
    for (const [index, queue] of queues.entries()) {
      queue.process('work', runs[index]?.handler() ?? (() => {}), { concurrency: 4 })
    }
    const payloads = Array.from({ length: 40 }, (_, index) => index)
    const results = await Promise.all(
      [...queues, ...others].map((queue) => Promise.all(payloads.map((each) => queue.submit('work', each)))),
    )
    for (const each of results) assert.deepEqual(each, payloads)
    for (const { all } of runs) assert.equal(all.length, payloads.length)
    for (const queue of [...queues, ...others]) await queue.close()
    client.disconnect()
  })

  test('Q1 Q2 cluster - a slot migrates key by key under load: no job is lost, every submitter settles', async () => {
    await using a = await queueOn(cluster, 'moving', { unavailableAfter: 60_000 })
    await using b = await queueOn(cluster, 'moving', { unavailableAfter: 60_000 })
    const runs = new Runs()
    for (const queue of [a, b]) queue.process('work', runs.handler(5), { concurrency: 3 })
    await subscribed(a, b)
    const where = await whereIs(cluster, 'moving')
    let going = true
    let next = 0
    const load = async (queue: RedisQueue) => {
      while (going) {
        const payload = next++
        const job = await queue.enqueue('work', payload, { dedupe: false, delay: payload % 3 ? 0 : 30 })
        assert.equal(job.disposition, 'created')
        assert.equal(await job.result(), payload)
        assert.equal(await queue.submit('work', `${payload}`), `${payload}`)
      }
    }
    const loads = Promise.all([a, b, a, b, a, b, a, b].map(load))
    await until(() => runs.all.length > 50, { what: 'the load' })
    await cluster.beginMigration(where.slot, where.from, where.to)
    await finishMove(cluster, where, 5)
    const before = runs.all.length
    await until(() => runs.all.length > before + 50, { what: 'the load to go on' })
    going = false
    await loads
    await over(a)
    for (let payload = 0; payload < next; payload += 1) {
      assert.ok(runs.of(payload) >= 1 && runs.of(`${payload}`) >= 1, `${payload} was lost`)
    }
    assert.equal(await cluster.ownerOf(where.slot), where.to)
  })

  test('Q1 L1 cluster - a migration that takes longer than unavailableAfter: typed errors in time, no job is lost', async () => {
    await using a = await queueOn(cluster, 'slow', { unavailableAfter: 400 })
    await using b = await queueOn(cluster, 'slow', { unavailableAfter: 400 })
    const runs = new Runs()
    b.process('work', runs.handler(), { concurrency: 2 })
    await subscribed(a, b)
    assert.equal(await a.submit('work', 'warm'), 'warm')
    await b.pause()
    const accepted = await a.enqueueMany(
      Array.from({ length: 30 }, (_, payload) => ({ command: 'work', payload })),
    )
    const results = Promise.all(accepted.map((job) => job.result()))
    await b.resume()
    const where = await whereIs(cluster, 'slow')
    await cluster.beginMigration(where.slot, where.from, where.to)
    const start = performance.now()
    const late = await a.submit('work', 'late').catch(codeOf)
    assert.ok(late === 'E_UNAVAILABLE' || late === 'late', String(late))
    assert.ok(performance.now() - start < 400 + EPSILON, `it took ${performance.now() - start} ms`)
    await new Promise((resolve) => setTimeout(resolve, 2 * LEASE))
    await finishMove(cluster, where)
    assert.deepEqual(
      await results,
      accepted.map((_, payload) => payload),
    )
    await over(a)
    assert.equal(await a.submit('work', 'late'), 'late')
  })

  for (const [way, isFirst] of [
    ['all jobs first', (index: number | undefined) => index !== undefined],
    ['every other job first', (index: number | undefined) => (index ?? 0) % 2 === 1],
    ['the lists first', (index: number | undefined) => index === undefined],
    ['the lists and every other job first', (index: number | undefined) => (index ?? 1) % 2 === 1],
  ] as const) {
    test(`Q1 cluster - jobs that wait while their slot migrates, ${way}: each runs once`, async () => {
      const name = `jobs move, ${way}`
      await using a = await queueOn(cluster, name, { unavailableAfter: 1_500 })
      await using b = await queueOn(cluster, name, { unavailableAfter: 1_500 })
      const runs = new Runs()
      const jobs = await everyKey(a, runs)
      const results = Promise.all(jobs.map((job) => job.result()))
      results.catch(() => {})
      const leaving = !way.startsWith('the lists')
      const where = await whereIs(cluster, name)
      const { slot, from, to } = where
      const names = new QueueKeys('soloflight', name)
      const indexes = new Map(jobs.map((job, index) => [names.job(job.id), index]))
      const first = (await keysIn(from, slot)).filter((key) => isFirst(indexes.get(key)))
      await cluster.beginMigration(slot, from, to)
      await move(from, to, first)
      const resumed = await a.resume('work').catch(codeOf)
      const [line = ''] = names.command('work')
      // On the source node a script that has emptied a list could not go on, so it does not start.
      assert.equal(resumed, leaving ? 'E_UNAVAILABLE' : undefined)
      if (leaving) assert.ok((await keysIn(from, slot)).includes(line), 'they do not stand in line')
      // On the target node it has run, and removed the jobs that it could not read from the list.
      if (way === 'the lists first') assert.ok(!(await keysIn(to, slot)).includes(line), 'it did not run')
      b.process('work', runs.handler(), { concurrency: 2 })
      await new Promise((resolve) => setTimeout(resolve, LEASE))
      await finishMove(cluster, where)
      await a.resume('work')
      const payloads = jobs.map((_, payload) => payload)
      assert.deepEqual(await results, payloads)
      for (const payload of payloads) assert.equal(runs.of(payload), 1, `${payload}: ${runs.of(payload)}`)
      const { waiting, delayed, active } = await a.counts()
      assert.deepEqual({ waiting, delayed, active }, { waiting: 0, delayed: 1, active: 0 })
    })
  }
})

/**
 * Jobs of a command that wait while it is paused, with an idle worker; and all other keys that a script for them names. If
 * one were missing, a script in a migrating slot would not start.
 */
async function everyKey(queue: RedisQueue, runs: Runs): Promise<Job[]> {
  queue.process('work', runs.handler(), { concurrency: 2 })
  queue.process('failed', () => Promise.reject(new Error('no paper')))
  await queue.submit('work', 'completed')
  await assert.rejects(queue.submit('failed'), { code: 'E_REMOTE' })
  await queue.enqueue('work', 'much later', { delay: 60_000 })
  await queue.pause('failed')
  await queue.pause('work')
  return queue.enqueueMany(
    Array.from({ length: 12 }, (_, payload) => ({
      command: 'work',
      payload,
      options: { priority: payload % 3 },
    })),
  )
}

test('Q1 cluster - a replica that lags is not read, whatever scaleReads of the client says', async () => {
  await using cluster = await RedisCluster.start({ masters: 1, replicas: 1 })
  const [master, replica] = cluster.nodes
  assert.ok(master && replica)
  const known = async () => JSON.stringify(await master.call('CLUSTER', 'SLOTS')).includes(`${replica.port}`)
  await until(known, { what: 'the replica to be announced', timeout: 10_000 })
  const redis = await cluster.client({ scaleReads: 'slave' })
  await using queue = new RedisQueue('behind', { redis, lease: LEASE })
  // A payload that is too long for a message is read by the worker.
  const payload = 'x'.repeat(100_000)
  queue.process('work', (text, job) => {
    job.log('a line')
    return String(text).length
  })
  await subscribed(queue)
  // The replica does not replicate any more, and still serves its data.
  await master.call('ACL', 'SETUSER', 'default', '-psync', '-sync')
  await master.call('CLIENT', 'KILL', 'TYPE', 'replica')
  const job = await queue.enqueue('work', payload)
  assert.equal(await job.result({ timeout: 5000 }), payload.length)
  assert.deepEqual(await job.logs(), ['a line'])
  assert.equal(
    await queue.enqueue('work', 'soon', { delay: 50 }).then((later) => later.result({ timeout: 5000 })),
    4,
  )
  await queue.pause('work')
  assert.deepEqual(await queue.paused(), ['work'])
})

describe('a queue on a cluster that loses a node', () => {
  test('Q1 L1 cluster - its replica takes over: replicated jobs run, and later ones', async () => {
    await using cluster = await RedisCluster.start({ masters: 3, replicas: 1 })
    const [lost] = cluster.nodes
    assert.ok(lost, 'no node')
    const name = await nameOn(cluster, lost)
    const options = { unavailableAfter: 12_000, timeout: 20_000 }
    await using a = await queueOn(cluster, name, options)
    await using b = await queueOn(cluster, name, options)
    const runs = new Runs()
    b.process('work', runs.handler(), { concurrency: 2 })
    await subscribed(a, b)
    await a.pause()
    const payloads = Array.from({ length: 20 }, (_, index) => index)
    const jobs = await a.enqueueMany(payloads.map((payload) => ({ command: 'work', payload })))
    await a.resume()
    const results = Promise.all(jobs.map((job) => job.result()))
    await a.enqueue('later', 'there')
    const slot = await slotOf(cluster, name)
    const keys = async (node: RedisServer) => Number(await node.call('CLUSTER', 'COUNTKEYSINSLOT', slot))
    // WAIT covers only the writes of its own connection.
    const isReplicated = async () => {
      const counts = await Promise.all(cluster.nodes.map(keys))
      return counts.filter((count) => count > 20).length === 2
    }
    await until(isReplicated, { what: 'the replication' })
    await lost.kill()
    const fresh = await a.submit('work', 'fresh').catch(codeOf)
    assert.equal(fresh, 'fresh')
    assert.deepEqual(await results, payloads)
    const later = new Runs()
    b.process('later', later.handler())
    await until(() => later.of('there') === 1, { what: 'the job that waited', timeout: 10_000 })
    await over(a)
  })
})
