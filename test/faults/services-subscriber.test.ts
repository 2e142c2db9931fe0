import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SoloflightError } from '../../src/errors.ts'
import { onCommands, onSubscription } from '../support/locker-scene.ts'
import { EPSILON } from '../support/lockers.ts'
import { assertMortal, loadsOf } from '../support/services-scene.ts'
import { namesOf, ServicesWire, WIRED } from '../support/services-wire.ts'
import { took, until } from '../support/wait.ts'

/** Within this time a lost subscription is detected and restored, ms. */
const DETECTED = 2500

/** So many calls, all of which run now. */
async function running(
  s: ServicesWire,
  count: number,
): Promise<{ names: string[]; results: Promise<string[]> }> {
  const names = namesOf(count)
  const before = s.runs.length
  const results = Promise.all(names.map((name) => s.remote.emit('echo', name)))
  results.catch(() => {})
  await until(() => s.runs.length === before + count, { what: 'all to run' })
  return { names, results }
}

describe('subscriptions are lost', { concurrency: 2 }, () => {
  test('V2 V4 CLIENT KILL - of all subscribers while 200 replies are under way: each call ends right, and ran once', async () => {
    await using s = await ServicesWire.start(2)
    for (let round = 0; round < 3; round++) {
      s.runs.length = 0
      const hold = s.holding()
      const { names, results } = await running(s, 200)
      const killed = s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      hold.resolve()
      const ms = await took(async () => assert.deepEqual(await results, names))
      assert.ok(ms < 1000 + EPSILON, `it took ${ms} ms`)
      await killed
      s.assertOnce(names)
      await s.subscribed()
      await s.idle()
    }
    await assertMortal(s.t.server)
  })

  test('V1 V2 V4 CLIENT KILL - again and again under load: each call ends right, and ran once', async () => {
    await using s = await ServicesWire.start(2)
    let killing = true
    const killer = (async () => {
      for (; killing; await sleep(50)) {
        const before = s.runs.length
        await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
        // On a busy machine no call would ever get through otherwise.
        await until(() => !killing || s.runs.length > before, { what: 'a call to run', timeout: 30_000 })
      }
    })()
    const all: string[] = []
    try {
      for (let round = 0; round < 40; round++) {
        const names = namesOf(40, `${round}/`)
        all.push(...names)
        assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
      }
    } finally {
      killing = false
      await killer
    }
    s.assertOnce(all)
    await s.subscribed()
    await s.idle()
  })

  test('V1 struck off - behind a renewal whose reply is under way: the process registers again when it is subscribed', async () => {
    await using s = await ServicesWire.start(1, { lease: 60_000 })
    const server = s.at(0)
    const count = async () => (await loadsOf(s.t.server, WIRED)).size
    const commands = new Set(server.proxy.connections.filter(onCommands))
    server.proxy.delay(1500, { direction: 'down', only: (connection) => commands.has(connection) })
    await s.t.server.call('CONFIG', 'RESETSTAT')
    server.proxy.cut(onSubscription)
    await until(() => !server.services.stats().subscribed, { what: 'the loss' })
    await server.subscribed()
    const isRenewed = async () =>
      /cmdstat_evalsha:calls=/.test(String(await s.t.server.call('INFO', 'commandstats')))
    await until(isRenewed, { what: 'the renewal' })
    await server.loseSubscription()
    await assert.rejects(s.caller.services.require(WIRED).emit('echo', 'nobody'), { code: 'E_NO_SERVICE' })
    assert.equal(await count(), 0)
    server.proxy.delay(0)
    await server.mend()
    await until(async () => (await count()) === 1, { what: 'the registration' })
    assert.equal(await s.remote.emit('echo', 'again'), 'again')
  })

  test('V2 V4 black hole - of one of two: calls that are delivered into it run elsewhere or again, exactly once', async () => {
    await using s = await ServicesWire.start(2, { lease: 10_000 })
    s.at(0).holeSubscription()
    const names = namesOf(200)
    const ms = await took(async () => {
      assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
    })
    assert.ok(ms > 300, 'none was delivered into it')
    assert.ok(ms < DETECTED + EPSILON, `it took ${ms} ms`)
    s.assertOnce(names)
    await s.subscribed()
    await s.idle()
  })

  test('V2 V4 black hole - of the only process: all calls run there afterwards, exactly once', async () => {
    await using s = await ServicesWire.start(1, { lease: 10_000 })
    s.at(0).holeSubscription()
    const names = namesOf(50)
    const ms = await took(async () => {
      const chunks: number[] = []
      const stream = (async () => {
        for await (const chunk of s.remote.stream('count', 'stream', 200)) chunks.push(chunk)
      })()
      assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
      await stream
      assert.deepEqual(
        chunks,
        Array.from({ length: 200 }, (_, index) => index),
      )
    })
    assert.ok(ms < DETECTED + EPSILON, `it took ${ms} ms`)
    s.assertOnce([...names, 'stream'])
    await s.subscribed()
    await s.idle()
  })

  test('V1 black hole - a broadcast that is delivered into it says that it did not run there', async () => {
    await using s = await ServicesWire.start(2)
    s.at(0).holeSubscription()
    const answers = new Map<string, { result?: unknown; error?: unknown }>()
    const ms = await took(async () => {
      for await (const { id, ...answer } of s.remote.broadcast('echo', 'b')) answers.set(id, answer)
    })
    assert.ok(ms < DETECTED + EPSILON, `it took ${ms} ms`)
    assert.deepEqual(answers.get(s.at(1).services.id), { result: 'b' })
    const error = answers.get(s.at(0).services.id)?.error
    assert.equal(error instanceof SoloflightError && `${error.code} ${error.ran}`, 'E_PROCESS_LOST no')
    assert.equal(s.runsOf('b'), 1)
    await s.subscribed()
    await s.idle()
  })

  for (const what of ['black hole', 'gap'] as const) {
    test(`V4 ${what} - of the caller: it asks for the replies that it has missed`, async () => {
      await using s = await ServicesWire.start(2)
      const hold = s.holding()
      const { names, results } = await running(s, 200)
      const chunks: number[] = []
      const stream = (async () => {
        for await (const chunk of s.remote.stream('count', 'stream', 300)) chunks.push(chunk)
      })()
      if (what === 'gap') await s.caller.loseSubscription()
      else s.caller.holeSubscription()
      hold.resolve()
      await until(() => s.servers.every(({ services }) => services.stats().serving <= 1), {
        what: 'all to end',
      })
      await s.caller.mend()
      const ms = await took(async () => assert.deepEqual(await results, names))
      assert.ok(ms < DETECTED + EPSILON, `it took ${ms} ms`)
      await stream
      assert.deepEqual(
        chunks,
        Array.from({ length: 300 }, (_, index) => index),
      )
      s.assertOnce([...names, 'stream'])
      await s.subscribed()
      await s.idle()
    })
  }

  test('V4 gap - of the caller, and Redis does not answer its question: it asks again', async () => {
    await using s = await ServicesWire.start(1, { unavailableAfter: 300 })
    const hold = s.holding()
    const { names, results } = await running(s, 20)
    await s.caller.loseSubscription()
    hold.resolve()
    await s.idleServers()
    s.caller.holeCommands()
    await s.caller.mend()
    const ms = await took(async () => assert.deepEqual(await results, names))
    assert.ok(ms < 5000 + EPSILON, `it took ${ms} ms`)
    s.assertOnce(names)
    await s.idle()
  })

  test('V2 V4 gap - of a process, and Redis does not take what it says afterwards: it says it again', async () => {
    await using s = await ServicesWire.start(1, { unavailableAfter: 300, lease: 6000 })
    s.at(0).holeSubscription()
    const names = namesOf(20)
    const results = Promise.all(names.map((name) => s.remote.emit('echo', name)))
    results.catch(() => {})
    const dealt = async () => [...(await loadsOf(s.t.server, WIRED)).values()][0] === names.length
    await until(dealt, { what: 'the calls to be dealt' })
    // The subscription is restored at once, and the connection for commands is silent.
    s.at(0).holeCommands()
    const ms = await took(async () => assert.deepEqual(await results, names))
    assert.ok(ms < 6000 + EPSILON, `it took ${ms} ms`)
    s.assertOnce(names)
    await s.idle()
  })
})
