// Several queues share the slots of a worker: by turns or by priority, without starving one another, and without busy polling.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { HttpWorker } from '../../src/worker/index.ts'
import { type Ask, Turns } from '../../src/worker/turns.ts'
import { type GatewayServer, onBothWorlds } from '../support/gateway.ts'
import { HttpRelay } from '../support/http-relay.ts'
import { until } from '../support/wait.ts'

const WAIT = 20_000
const INTERVAL = 1_000

/** Queues whose jobs are taken by one worker, with time as a number. Each job ends at a word. */
class Scene {
  readonly turns: Turns
  readonly concurrency: number
  /** Jobs that wait, by queue. */
  readonly waiting: Map<string, number>
  readonly taken: string[] = []
  readonly asks: (Ask & { at: number })[] = []
  now = 0
  running = 0
  #open: (Ask & { at: number })[] = []

  constructor(order: 'turns' | 'priority', concurrency: number, waiting: Record<string, number>) {
    const queues = Object.keys(waiting)
    this.turns = new Turns({ queues, order, concurrency, wait: WAIT, interval: INTERVAL })
    this.concurrency = concurrency
    this.waiting = new Map(Object.entries(waiting))
  }

  /** Asks and answers until nothing happens any more at this moment. */
  settle(): void {
    for (let isNew = true; isNew; ) {
      isNew = this.#ask()
      const open = this.#open
      this.#open = []
      for (const ask of open) {
        const jobs = this.waiting.get(ask.queue) ?? 0
        if (jobs > 0) {
          this.waiting.set(ask.queue, jobs - 1)
          this.taken.push(ask.queue)
          this.running++
          this.turns.gotJob(ask)
          isNew = true
        } else if (this.now >= ask.at + ask.wait) {
          this.turns.gotNone(ask)
          isNew = true
        } else this.#open.push(ask)
      }
      assert.ok(this.running + this.#open.length <= this.concurrency, 'a request without a slot')
    }
  }

  #ask(): boolean {
    let isNew = false
    for (;;) {
      const ask = this.turns.next(this.concurrency - this.running - this.#open.length, this.now)
      if (!ask) return isNew
      isNew = true
      this.#open.push({ ...ask, at: this.now })
      this.asks.push({ ...ask, at: this.now })
      assert.ok(this.asks.length < 100_000, 'busy polling')
    }
  }

  /** Lets time pass, in steps of 10 ms. */
  pass(ms: number): void {
    for (const end = this.now + ms; this.now < end; this.now += 10) this.settle()
  }

  end(): void {
    assert.ok(this.running > 0, 'no job runs: a slot is kept from those that wait')
    this.running--
    this.settle()
  }
}

test('turns - by turns, one job of each queue after the other', () => {
  const scene = new Scene('turns', 1, { a: 4, b: 1, c: 3 })
  scene.settle()
  for (let n = 0; n < 8; n++) scene.end()
  assert.equal(scene.taken.join(''), 'abcacaca')
})

test('turns - by priority, a job only if those before it are empty', () => {
  const scene = new Scene('priority', 1, { high: 2, middle: 2, low: 2 })
  scene.settle()
  scene.end()
  scene.end()
  assert.deepEqual(scene.taken, ['high', 'high', 'middle'])
  scene.waiting.set('high', 1)
  for (let n = 0; n < 4; n++) scene.end()
  assert.deepEqual(scene.taken.slice(3), ['high', 'middle', 'low', 'low'])
})

test('turns - by priority, many slots go to the first queue while it has jobs', () => {
  const scene = new Scene('priority', 4, { high: 6, low: 6 })
  scene.settle()
  assert.deepEqual(scene.taken, ['high', 'high', 'high', 'high'])
  for (let n = 0; n < 4; n++) scene.end()
  assert.deepEqual(scene.taken.slice(4), ['high', 'high', 'low', 'low'])
})

for (const order of ['turns', 'priority'] as const) {
  test(`turns - ${order}: with nothing to do, a round over all queues takes the interval`, () => {
    for (const concurrency of [1, 3, 5]) {
      const scene = new Scene(order, concurrency, { a: 0, b: 0, c: 0 })
      scene.pass(30_000)
      const rate = scene.asks.length / 30
      assert.ok(rate <= 3.5, `${rate} requests a second with ${concurrency} slots`)
      for (const queue of ['a', 'b', 'c']) {
        const times = scene.asks.filter((ask) => ask.queue === queue).map(({ at }) => at)
        const gaps = times.slice(1).map((at, index) => at - (times[index] ?? 0))
        assert.ok(Math.max(...gaps) <= INTERVAL + 50, `${queue} waited ${Math.max(...gaps)} ms`)
      }
    }
  })

  test(`turns - ${order}: a job that comes while others are idle is taken within an interval`, () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.record({ after: fc.nat(3_000), queue: fc.nat(4) }), { minLength: 1, maxLength: 12 }),
        (concurrency, count, posts) => {
          const names = ['a', 'b', 'c', 'd', 'e'].slice(0, count)
          const scene = new Scene(order, concurrency, Object.fromEntries(names.map((name) => [name, 0])))
          for (const { after, queue } of posts) {
            scene.pass(after)
            const name = names[queue % count] as string
            scene.waiting.set(name, (scene.waiting.get(name) ?? 0) + 1)
            // A slot is free: every job ends before the next one comes.
            scene.pass(INTERVAL + 100)
            assert.equal(scene.waiting.get(name), 0, `the job of ${name} waits`)
            while (scene.running > 0) scene.end()
          }
        },
      ),
    )
  })
}

test('turns - by turns, with slots to spare, requests wait long', () => {
  const scene = new Scene('turns', 6, { a: 0, b: 0, c: 0 })
  scene.pass(3_000)
  assert.ok(scene.asks.slice(-3).every(({ wait }) => wait === WAIT))
  assert.ok(scene.asks.length <= 6, `${scene.asks.length} requests`)
})

test('turns - one queue is asked by one request that waits long', () => {
  const scene = new Scene('turns', 5, { a: 0 })
  scene.pass(3_000)
  assert.deepEqual(scene.asks, [{ queue: 'a', wait: WAIT, at: 0 }])
})

test('turns - an answer that comes before the end of the wait is not asked for again at once', () => {
  const turns = new Turns({ queues: ['a'], order: 'turns', concurrency: 3, wait: WAIT, interval: INTERVAL })
  const ask = turns.next(3, 0)
  assert.ok(ask)
  turns.gotNone(ask)
  assert.equal(turns.next(3, 1), undefined)
  assert.equal(turns.restsUntil(1), INTERVAL)
  assert.ok(turns.next(3, INTERVAL))
})

async function post({ call }: GatewayServer, queue: string, body: string): Promise<void> {
  assert.equal((await call('POST', `/q/${queue}`, { body })).status, 201)
}

for (const [order, expected] of [
  ['turns', ['a0', 'b0', 'a1', 'b1', 'a2', 'b2', 'a3', 'b3']],
  ['priority', ['a0', 'a1', 'a2', 'a3', 'b0', 'b1', 'b2', 'b3']],
] as const) {
  onBothWorlds(`http worker turns - jobs of two queues run by ${order}`, async (world) => {
    const gateway = await world.open()
    for (let n = 0; n < 4; n++) for (const queue of ['a', 'b']) await post(gateway, queue, `${n}`)
    const ran: string[] = []
    await using worker = new HttpWorker<number, void>({
      ...{ url: gateway.url, queues: ['a', 'b'], order },
      work: (n, { queue }) => void ran.push(`${queue}${n}`),
    })
    await worker.start()
    await until(() => ran.length === 8, { what: 'the jobs', timeout: 20_000 })
    assert.deepEqual(ran, expected)
  })
}

onBothWorlds('http worker turns - no job is taken for which no slot is free', async (world) => {
  const gateway = await world.open()
  const queues = ['a', 'b', 'c', 'd', 'e']
  for (let n = 0; n < 6; n++) for (const queue of queues) await post(gateway, queue, `${n}`)
  let [running, most] = [0, 0]
  let fill: () => void = () => {}
  const areFull = new Promise<void>((resolve) => {
    fill = resolve
  })
  await using worker = new HttpWorker({
    ...{ url: gateway.url, queues, concurrency: 3 },
    async work() {
      most = Math.max(most, ++running)
      if (running === 3) fill()
      await areFull
      const counts = await Promise.all(queues.map((queue) => gateway.call('GET', `/j/${queue}`)))
      const active = counts.reduce((sum, { json }) => sum + (json as { running: number }).running, 0)
      assert.ok(active <= 3, `${active} jobs are held`)
      running--
    },
  })
  await worker.start()
  await until(() => worker.stats().completed === 30, { what: 'the jobs', timeout: 30_000 })
  assert.equal(most, 3)
  assert.deepEqual([worker.stats().failed, worker.stats().returned], [0, 0])
})

onBothWorlds('http worker turns - a worker without jobs asks seldom, a stopped queue too', async (world) => {
  const gateway = await world.open()
  await using relay = await HttpRelay.start(gateway.url)
  await gateway.call('POST', '/control/b', { body: '{"status":"stop"}' })
  await post(gateway, 'b', '1')
  let idle = 0
  await using worker = new HttpWorker({
    ...{ url: relay.url, queues: ['a', 'b', 'c'], interval: 500, idle: () => idle++ },
    work: () => 1,
  })
  await worker.start()
  const startedAt = performance.now()
  await until(() => relay.count('GET') >= 12, { what: 'a dozen requests', timeout: 30_000 })
  // One of a sixth of a second after the other, and one of each queue at the start.
  const elapsed = performance.now() - startedAt
  assert.ok(elapsed >= (12 - 1 - 3) * 160, `12 requests in ${elapsed} ms`)
  assert.equal(idle, 1)
  await gateway.call('POST', '/control/b', { body: '{"status":"start"}' })
  await until(() => worker.stats().completed === 1, { what: 'the job of the queue that was stopped' })
})
