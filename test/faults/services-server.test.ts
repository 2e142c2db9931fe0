import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SoloflightError } from '../../src/errors.ts'
import { Services } from '../../src/services/index.ts'
import { EPSILON } from '../support/lockers.ts'
import { assertMortal, loadsOf, ServicesScene } from '../support/services-scene.ts'
import { namesOf, ServicesWire, WIRED } from '../support/services-wire.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, timed, took, until } from '../support/wait.ts'

interface Outcome {
  name: string
  value: unknown
  code: string | undefined
  ran: string | undefined
}

/** Calls that are made at once, and that are under way at most. */
const AT_ONCE = 10
const MOST_UNDER_WAY = 200

/** Calls again and again, until it is stopped. */
class Load implements AsyncDisposable {
  readonly outcomes: Promise<Outcome>[] = []
  readonly #call: (name: string) => Promise<unknown>
  readonly #loading: Promise<void>
  #going = true
  #underWay = 0

  constructor(call: (name: string) => Promise<unknown>) {
    this.#call = call
    this.#loading = this.#load()
  }

  async #load(): Promise<void> {
    for (let n = 0; this.#going; n++) {
      // As many as a slow machine answers.
      if (this.#underWay < MOST_UNDER_WAY)
        for (const name of namesOf(AT_ONCE, `${n}/`)) this.outcomes.push(this.#one(name))
      await sleep(1)
    }
  }

  async #one(name: string): Promise<Outcome> {
    this.#underWay++
    try {
      return { name, value: await this.#call(name), code: undefined, ran: 'yes' }
    } catch (error) {
      const { code, ran } = error instanceof SoloflightError ? error : { code: String(error), ran: undefined }
      return { name, value: undefined, code, ran }
    } finally {
      this.#underWay--
    }
  }

  /** Resolves when so many more calls were made. */
  async more(count: number): Promise<void> {
    const from = this.outcomes.length
    await until(() => this.outcomes.length >= from + count, { what: 'the load' })
  }

  async stop(): Promise<Outcome[]> {
    this.#going = false
    await this.#loading
    return Promise.all(this.outcomes)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** V1, V2: each call ran at most once, exactly once if it has a result, and not if its error says so. */
function assertHonest(
  outcomes: readonly Outcome[],
  runs: readonly { name: string }[],
  codes: readonly string[],
): void {
  const counts = new Map<string, number>()
  for (const { name } of runs) counts.set(name, (counts.get(name) ?? 0) + 1)
  for (const { name, value, code, ran } of outcomes) {
    const count = counts.get(name) ?? 0
    const what = `${name}: ${code} ${ran}, ran ${count} times`
    assert.ok(count <= 1, what)
    if (code === undefined) assert.ok(count === 1 && value !== undefined, what)
    else assert.ok(codes.includes(code) && (ran === 'no' || ran === 'maybe'), what)
    if (ran === 'no') assert.equal(count, 0, what)
  }
}

const AWAY = ['E_UNAVAILABLE', 'E_NO_SERVICE', 'E_PROCESS_LOST']

describe('the server loses state', { concurrency: 2 }, () => {
  test('SCRIPT FLUSH - at any time, under load: no call is affected', async () => {
    await using s = await ServicesWire.start(2, { lease: 2000 })
    let going = true
    const flushing = (async () => {
      while (going) await s.t.server.call('SCRIPT', 'FLUSH')
    })()
    await using load = new Load((name) => s.remote.emit('echo', name))
    for (let part = 0; part < 3; part++) await load.more(250)
    going = false
    await flushing
    const outcomes = await load.stop()
    assert.deepEqual([...new Set(outcomes.map(({ code }) => code))], [undefined])
    assertHonest(outcomes, s.runs, [])
    await s.idle()
  })

  test('V2 V4 FLUSHALL - idle processes register again within a third of a lease', async () => {
    await using s = await ServicesWire.start(3, { lease: 1500 })
    for (let round = 0; round < 3; round++) {
      await s.t.server.call('FLUSHALL')
      const since = performance.now()
      const registered = async () => (await loadsOf(s.t.server, WIRED)).size === 3
      await until(registered, { what: 'all to be registered' })
      assert.ok(performance.now() - since < 500 + EPSILON, `after ${performance.now() - since} ms`)
    }
    assert.equal(await s.remote.emit('echo', 'a'), 'a')
    await s.idle()
  })

  test('V1 V2 V4 FLUSHALL - again and again under load: calls under way end right, and no call runs twice', async () => {
    await using s = await ServicesWire.start(2, { lease: 600 })
    const hold = s.holding()
    const held = namesOf(50, 'held ')
    // Held until the load is over.
    const patient = s.remote.with({ timeout: 60_000 })
    const results = Promise.all(held.map((name) => patient.emit('echo', name)))
    await until(() => s.runs.length === 50, { what: 'all to run' })
    await s.t.server.call('FLUSHALL')
    s.hold = undefined
    await using load = new Load((name) => s.remote.emit('echo', name))
    for (let round = 0; round < 6; round++) {
      await load.more(200)
      await s.t.server.call('FLUSHALL')
    }
    await load.more(200)
    hold.resolve()
    assert.deepEqual(await results, held)
    const outcomes = await load.stop()
    assert.deepEqual([...new Set(outcomes.map(({ code }) => code))], [undefined])
    assertHonest(outcomes, s.runs, [])
    s.assertOnce(held)
    await s.idle()
    await assertMortal(s.t.server)
  })

  test('V1 V2 V4 restart - without persistence, under load: calls under way end right, and no call runs twice', async () => {
    await using s = await ServicesWire.start(2, { lease: 1000, unavailableAfter: 5000 })
    for (let round = 0; round < 3; round++) {
      s.runs.length = 0
      const hold = s.holding()
      const held = namesOf(50, 'held ')
      const results = Promise.all(held.map((name) => s.remote.emit('echo', name)))
      await until(() => s.runs.length === 50, { what: 'all to run' })
      s.hold = undefined
      await using load = new Load((name) => s.remote.emit('echo', name))
      await load.more(500)
      await s.t.server.restart()
      hold.resolve()
      await load.more(500)
      assert.deepEqual(await results, held)
      assertHonest(await load.stop(), s.runs, AWAY)
      s.assertOnce(held)
      await s.subscribed()
      await s.idle()
    }
  })

  test('V1 V2 V4 restart - with persistence, under load: no call runs twice', async () => {
    await using s = await ServicesScene.start(2000, [{}, {}], {
      server: { persistence: true },
      unavailableAfter: 5000,
    })
    await using load = new Load((name) => s.work.emit('run', { name, ms: 1 }))
    await load.more(500)
    await s.t.server.restart()
    await load.more(500)
    const outcomes = await load.stop()
    assertHonest(outcomes, await s.runs(), AWAY)
    await s.idle(2)
    await assertMortal(s.t.server)
  })
})

describe('the server is away', { concurrency: 2 }, () => {
  test('V1 away at the start - a call fails within unavailableAfter and has not run; later ones at once', async () => {
    await using t = await setup({ proxy: true })
    await t.proxy.refuse(true)
    await using services = new Services({ redis: t.redis, unavailableAfter: 400 })
    const remote = services.require('any')
    const { error, ms } = await timed(remote.emit('run'))
    assert.equal(error instanceof SoloflightError && `${error.code} ${error.ran}`, 'E_UNAVAILABLE no')
    assert.ok(ms > 300 && ms < 400 + EPSILON, `it took ${ms} ms`)
    assert.ok((await took(() => rejectionOf(remote.emit('run')))) < 100, 'later calls fail at once')
    await assert.rejects(services.register('any'), { code: 'E_UNAVAILABLE' })
    await t.proxy.refuse(false)
    const service = await until(() => services.register('any'), { what: 'Redis', every: 50 })
    service.on('run', () => 'here')
    assert.equal(await remote.emit('run'), 'here')
  })

  test('V1 away when called - the error says whether the call was sent', async () => {
    await using s = await ServicesWire.start(1, { unavailableAfter: 400, lease: 10_000 })
    await s.t.server.freeze()
    const { error, ms } = await timed(s.remote.emit('echo', 'sent'))
    assert.equal(error instanceof SoloflightError && `${error.code} ${error.ran}`, 'E_UNAVAILABLE maybe')
    assert.ok(ms < 400 + EPSILON, `it took ${ms} ms`)
    const { error: second, ms: later } = await timed(s.remote.emit('echo', 'not sent'))
    assert.equal(second instanceof SoloflightError && `${second.code} ${second.ran}`, 'E_UNAVAILABLE no')
    assert.ok(later < 400 + EPSILON, `it took ${later} ms`)
    const pemit = await timed(s.remote.pemit(3, 'echo', 'not sent'))
    assert.equal((pemit.error as SoloflightError).code, 'E_UNAVAILABLE')
    assert.ok(pemit.ms < 400 + EPSILON, `it took ${pemit.ms} ms`)
    const broadcast = await timed(
      (async () => {
        for await (const _ of s.remote.broadcast('echo', 'not sent')) assert.fail('an answer')
      })(),
    )
    const { code, ran } = broadcast.error as SoloflightError
    assert.equal(`${code} ${ran}`, 'E_UNAVAILABLE no')
    s.t.server.thaw()
    await until(() => s.remote.emit('echo', 'after'), { what: 'Redis' })
    assert.equal(s.runsOf('not sent'), 0)
    assert.ok(s.runsOf('sent') <= 1)
    await s.subscribed()
    await s.idle()
  })

  for (const how of ['freezes', 'is killed'] as const) {
    test(`V1 V2 V4 away in the middle - Redis ${how} for longer than unavailableAfter and a lease: calls under way end right`, async () => {
      await using s = await ServicesWire.start(2, { unavailableAfter: 300, lease: 600 })
      const hold = s.holding()
      const names = namesOf(100)
      const results = Promise.all(names.map((name) => s.remote.emit('echo', name)))
      await until(() => s.runs.length === 100, { what: 'all to run' })
      if (how === 'freezes') await s.t.server.freeze()
      else await s.t.server.kill()
      await sleep(200)
      hold.resolve()
      await sleep(1500)
      if (how === 'freezes') s.t.server.thaw()
      else await s.t.server.restart()
      const ms = await took(async () => assert.deepEqual(await results, names))
      assert.ok(ms < 3000 + EPSILON, `it took ${ms} ms`)
      s.assertOnce(names)
      await s.subscribed()
      await s.idle()
    })
  }

  test('U2 V1 V2 killed and back - under load: processes live on, and serve again', async () => {
    await using s = await ServicesScene.start(600, [{}, {}], { unavailableAfter: 300 })
    await using load = new Load((name) => s.work.emit('run', { name, ms: 2 }))
    for (let round = 0; round < 2; round++) {
      await load.more(300)
      await s.t.server.kill()
      await sleep(800)
      await s.t.server.restart()
      await s.registered(2)
    }
    await load.more(300)
    assertHonest(await load.stop(), await s.runs(), AWAY)
    // The callers may have been told of the outage faster than their own connection is back.
    await until(() => s.work.emit('run', { name: 'back', ms: 1 }), { what: 'the connection of the caller' })
    let round = 0
    const bothServe = async () => {
      // A process that stands still for a lease serves again after that.
      const names = namesOf(20, `after ${round++} `)
      return new Set(await Promise.all(names.map((name) => s.work.emit('run', { name, ms: 50 })))).size === 2
    }
    await until(bothServe, { what: 'both to serve' })
    for (const { child } of s.serving) assert.equal((await child.call('stats')).subscribed, true)
    await s.idle(2)
    await assertMortal(s.t.server)
  })
})
