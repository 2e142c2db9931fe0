import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { ProcessLostError, SoloflightError } from '../../src/errors.ts'
import { encodeWith, jsonCodec } from '../../src/kernel/codec/codec.ts'
import { newId } from '../../src/kernel/keys.ts'
import { Services } from '../../src/services/index.ts'
import { callMessage, queryMessage } from '../../src/services/messages.ts'
import { ServiceKeys } from '../../src/services/store/redis/service-calls.ts'
import { RedisCluster } from '../support/cluster.ts'
import { temporaryFolder } from '../support/lifeline.ts'
import { EPSILON } from '../support/lockers.ts'
import { Child } from '../support/process.ts'
import type { ServicesHandlers } from '../support/services-child.ts'
import { SERVICE, type WorkApi } from '../support/services-protocol.ts'
import { idle } from '../support/services-scene.ts'
import { namesOf } from '../support/services-wire.ts'
import { timed, until } from '../support/wait.ts'

const FILE = new URL('../support/services-child.ts', import.meta.url)
const LEASE = 1000
const [KEY = ''] = new ServiceKeys('soloflight', SERVICE).all

describe('services on a cluster', () => {
  let cluster: RedisCluster
  before(async () => {
    cluster = await RedisCluster.start()
  })
  after(() => cluster[Symbol.asyncDispose]())

  async function children(count: number): Promise<Child<ServicesHandlers>[]> {
    const log = `${await temporaryFolder()}/runs`
    return Promise.all(
      Array.from({ length: count }, async () => {
        const child = await Child.fork<ServicesHandlers>(FILE)
        const options = { redis: cluster.nodes[0]?.options ?? { path: '' }, cluster: cluster.startupNodes }
        await child.call('open', { ...options, lease: LEASE, log })
        return child
      }),
    )
  }

  async function caller(): Promise<Services> {
    const services = new Services({ redis: await cluster.client(), lease: LEASE, unavailableAfter: 5000 })
    await services.require<WorkApi>(SERVICE).ready()
    await until(() => services.stats().subscribed, { what: 'the subscription' })
    return services
  }

  test('V3 V4 cluster - calls, and a process that is killed: told within the lease, the others serve', async () => {
    const [first, second] = await children(2)
    assert.ok(first && second)
    await using services = await caller()
    const work = services.require<WorkApi>(SERVICE, { timeout: 8000 })
    try {
      const pids = await Promise.all(namesOf(100).map((name) => work.emit('run', { name, ms: 10 })))
      assert.equal(new Set(pids).size, 2)
      const node = await cluster.ownerOf(await cluster.slotOf(KEY))
      await idle(node, 2)
      const call = timed(work.emit('run', { name: 'held' }))
      const killed = await Promise.race(
        [first, second].map(async (child) => {
          await child.next('begun', (name) => name === 'held', 5000)
          return child
        }),
      )
      const rest = killed === first ? second : first
      rest.next('begun', () => false, 1).catch(() => {})
      const since = performance.now()
      await killed.kill()
      // Whether it listens is not known: it is asked, and lost after a second.
      const others = namesOf(20, 'k').map((name) => work.pemit(4, 'run', { name, ms: 0 }))
      const { error } = await call
      assert.ok(error instanceof ProcessLostError && error.ran === 'maybe', String(error))
      assert.ok(performance.now() - since < LEASE + 1000 + EPSILON, `after ${performance.now() - since} ms`)
      assert.deepEqual([...new Set(await Promise.all(others))], [rest.pid])
      await idle(node, 1)
    } finally {
      await Promise.all([first, second].map((child) => child.kill()))
    }
  })

  test('V1 V2 cluster - a slot that moves under load: no call runs twice', async () => {
    await using server = new Services({ redis: await cluster.client(), lease: LEASE, unavailableAfter: 8000 })
    const runs = new Map<string, number>()
    const service = await server.register<WorkApi>('moved')
    service.on('run', ({ name }) => {
      runs.set(name, (runs.get(name) ?? 0) + 1)
      return 1
    })
    await using services = new Services({
      redis: await cluster.client(),
      lease: LEASE,
      unavailableAfter: 8000,
    })
    const work = services.require<WorkApi>('moved', { timeout: 9000, wait: 5000 })
    await work.ready()
    await until(() => services.stats().subscribed, { what: 'the subscription' })
    const [key = ''] = new ServiceKeys('soloflight', 'moved').all
    const slot = await cluster.slotOf(key)
    const from = await cluster.ownerOf(slot)
    const to = cluster.nodes.find((node) => node !== from)
    assert.ok(to)
    let going = true
    const names: string[] = []
    const results: Promise<unknown>[] = []
    const loading = (async () => {
      for (let n = 0; going; n++) {
        names.push(`m${n}`)
        results.push(work.emit('run', { name: `m${n}` }).catch((error: unknown) => error))
        await new Promise((resolve) => setTimeout(resolve, 2))
      }
    })()
    await until(() => names.length > 100, { what: 'the load' })
    await cluster.migrateSlot(slot, to)
    const count = names.length
    await until(() => names.length > count + 100, { what: 'the load to go on' })
    going = false
    await loading
    const outcomes = await Promise.all(results)
    for (const [index, outcome] of outcomes.entries()) {
      const name = names[index] ?? ''
      const ran = runs.get(name) ?? 0
      assert.ok(ran <= 1, `${name} ran ${ran} times`)
      if (outcome === 1) assert.equal(ran, 1)
      else assert.fail(`${name}: ${outcome}, ran ${ran} times`)
    }
    await idle(to, 1, 'moved')
  })

  test('V1 V2 cluster - a call that arrives after its process has said that it did not is not run', async () => {
    await using server = new Services({ redis: await cluster.client(), lease: 60_000 })
    const runs: string[] = []
    const service = await server.register<WorkApi>('reordered')
    service.on('run', ({ name }) => runs.push(name))
    await using client = new Services({ redis: await cluster.client() })
    const remote = client.require<WorkApi>('reordered')
    await remote.emit('run', { name: 'warm' })
    // The bus of a cluster may reorder messages of different nodes.
    const redis = await cluster.client()
    const publish = (kind: string, fields: readonly string[], body: Buffer) =>
      redis.publish(
        `soloflight:1:inbox:${server.id.slice(0, 22)}`,
        Buffer.concat([
          Buffer.from(`1${server.id.slice(22)}${[kind, ...fields].join(' ')}\n`),
          body,
        ]) as unknown as string,
      )
    const id = newId()
    const send = async (turn: number) => {
      const attempt = { id, from: client.id, left: 5000, attempt: 1, turn }
      const args = encodeWith(jsonCodec, [{ name: `turn ${turn}` }])
      const content = { mode: 'reply', service: 'reordered', event: 'run', trace: undefined, args } as const
      const { kind, fields, body } = callMessage(attempt, content)
      await publish(kind, ['7', ...fields], body)
    }
    const query = queryMessage(client.id, 0, [{ id, turn: 1 }])
    await publish(query.kind, query.fields, query.body)
    await send(1)
    await send(2)
    await until(() => runs.includes('turn 2'), { what: 'the next dispatch to run' })
    assert.deepEqual(runs, ['warm', 'turn 2'])
  })
})

test('V1 cluster - its node is lost and a replica takes over: calls under way end, and the service goes on', {
  timeout: 60_000,
}, async () => {
  await using cluster = await RedisCluster.start({ masters: 3, replicas: 1 })
  await using server = new Services({ redis: await cluster.client(), lease: 2000, unavailableAfter: 12_000 })
  const service = await server.register<WorkApi>(SERVICE)
  let release = (): void => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const runs: string[] = []
  service.on('run', async ({ name, ms }) => {
    runs.push(name)
    if (ms === undefined) await held
    return 1
  })
  await using services = new Services({
    redis: await cluster.client(),
    lease: 2000,
    unavailableAfter: 12_000,
  })
  const work = services.require<WorkApi>(SERVICE, { timeout: 20_000, wait: 15_000 })
  await work.ready()
  await until(() => services.stats().subscribed && server.stats().subscribed, { what: 'the subscriptions' })
  const calls = namesOf(20).map((name) => work.emit('run', { name }))
  await until(() => runs.length === 20, { what: 'all to run' })
  const node = await cluster.ownerOf(await cluster.slotOf(KEY))
  await node.kill()
  release()
  const outcomes = await Promise.all(calls.map((call) => call.catch((error: SoloflightError) => error)))
  for (const outcome of outcomes)
    assert.ok(
      outcome === 1 || (outcome instanceof SoloflightError && outcome.ran === 'maybe'),
      String(outcome),
    )
  const fresh = () => work.emit('run', { name: 'fresh', ms: 0 })
  assert.equal(await until(fresh, { what: 'the service', timeout: 20_000 }), 1)
  assert.equal(new Set(runs.slice(0, 20)).size, 20)
})
