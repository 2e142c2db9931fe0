// A gateway on a Redis that fails over, and on a cluster.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { RedisCluster } from '../support/cluster.ts'
import { type GatewayServer, serve } from '../support/gateway.ts'
import type { RedisServer } from '../support/redis-server.ts'
import { followsNewMaster, SentinelSet } from '../support/sentinel.ts'
import { until } from '../support/wait.ts'

const JOBS = 50

/** What a request may be answered with while there is no master. */
const AWAY = [503, 504]

/** Takes and finishes jobs until it is told to stop. */
async function work({ call }: GatewayServer, isOver: () => boolean, statuses: Set<number>): Promise<void> {
  while (!isOver()) {
    const taken = await call('GET', '/q/jobs?wait=1&lease=2')
    statuses.add(taken.status)
    if (taken.status !== 200) continue
    const headers = { 'x-lease': taken.headers.get('x-lease') ?? '' }
    // It may be repeated, because it names its attempt.
    for (let isEnded = false; !isEnded; ) {
      const { status } = await call('PUT', '/q/jobs', { headers, body: `[${taken.text}]` })
      statuses.add(status)
      isEnded = !AWAY.includes(status)
    }
  }
}

test('gateway sentinel - a failover under load: every job that was replicated ends once, and it serves again', async () => {
  await using set = await SentinelSet.start()
  const gateway = await serve(createGateway({ redis: { ...set.options, socketTimeout: 1_500 } }))
  try {
    const { call } = gateway
    const ids: string[] = []
    for (let n = 0; n < JOBS; n++) {
      const posted = await call('POST', '/q/jobs?ttl=600&attempts=5', { body: String(n) })
      assert.equal(posted.status, 201, posted.text)
      ids.push((posted.json as { id: string }).id)
    }
    const [line = ''] = new QueueKeys('soloflight', 'jobs').command('job')
    const isThere = async (server: RedisServer) => Number(await server.call('LLEN', line)) === JOBS
    await until(async () => (await Promise.all(set.servers.map(isThere))).every(Boolean), {
      what: 'the replication',
    })
    let isOver = false
    const statuses = new Set<number>()
    const workers = [1, 2, 3].map(() => work(gateway, () => isOver, statuses))
    const posts = (async () => {
      while (!isOver) statuses.add((await call('POST', '/q/others', { body: '1' })).status)
    })()
    const old = await set.master()
    await set.failover()
    // The old master serves its clients until it is told, and what it is told meanwhile is lost.
    await followsNewMaster(old)
    const stateOf = async (id: string) => {
      const { status, json } = await call('GET', `/j/jobs/${id}`)
      return status === 200 ? (json as { state: string; result?: unknown; job: unknown }) : undefined
    }
    const all = () => Promise.all(ids.map(stateOf))
    const ended = async () => {
      const jobs = await all()
      return jobs.every((job) => job?.state === 'completed') && jobs
    }
    const jobs = await until(ended, { what: 'all jobs to end', timeout: 40_000, every: 200 })
    isOver = true
    await Promise.all([...workers, posts])
    assert.deepEqual(
      jobs.map((job) => job?.result),
      ids.map((_, n) => [n]),
    )
    for (const status of statuses)
      assert.ok([200, 201, 204, 404, 409, ...AWAY].includes(status), String(status))
    assert.equal((await call('POST', '/q/others', { body: '1' })).status, 201)
  } finally {
    await gateway.close()
  }
})

test('gateway cluster - queues on different nodes are posted to, taken from and listed', async () => {
  await using cluster = await RedisCluster.start()
  const redis = await cluster.client()
  const [one, other] = await Promise.all([serve(createGateway({ redis })), serve(createGateway({ redis }))])
  try {
    const names = Array.from({ length: 8 }, (_, n) => `queue-${n}`)
    const owners = await Promise.all(
      names.map(async (name) =>
        cluster.ownerOf(await cluster.slotOf(new QueueKeys('soloflight', name).base)),
      ),
    )
    assert.ok(new Set(owners).size > 1, 'the queues are on several nodes')
    for (const name of names) {
      const posted = one.call('POST', `/q/${name}?wait=20`, { body: '{"n":1.0}' })
      const taken = await other.call('GET', `/q/${name}?wait=20&lease=30`)
      assert.deepEqual([taken.status, taken.text], [200, '{"n":1.0}'])
      const headers = { 'x-lease': taken.headers.get('x-lease') ?? '' }
      assert.equal((await one.call('PUT', `/q/${name}`, { headers, body: '2.0' })).status, 204)
      const { status, text } = await posted
      assert.deepEqual([status, text], [200, '2.0'])
    }
    const listed = async () => ((await other.call('GET', '/status/')).json as { queues: string[] }).queues
    await until(async () => (await listed()).length === names.length, { what: 'the register' })
    const metrics = await one.call('GET', '/metrics')
    for (const name of names) assert.ok(metrics.text.includes(`{queue="${name}",event="completed"} 1`), name)
  } finally {
    await Promise.all([one.close(), other.close()])
  }
})
