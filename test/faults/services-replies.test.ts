import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ProcessLostError } from '../../src/errors.ts'
import { Services } from '../../src/services/index.ts'
import { servicesScripts } from '../../src/services/store/redis/scripts/index.ts'
import { onCommands } from '../support/locker-scene.ts'
import type { TcpProxy } from '../support/proxy.ts'
import { assertMortal, idle, loadsOf } from '../support/services-scene.ts'
import { namesOf, ServicesWire, type Wired } from '../support/services-wire.ts'
import { rejectionOf, soon, until } from '../support/wait.ts'

/** Number of bytes of the reply that arrive before the connection ends. */
const OFFSETS = [0, 1, 3, 30, 52]

type Name = keyof typeof servicesScripts

/** Cuts the next reply to this script after `offset` bytes. The returned function awaits that. */
function lose(proxy: TcpProxy, name: Name, bytes = 0): () => Promise<boolean> {
  const fault = proxy.swallowReplyAfter(new RegExp(`^EVALSHA ${servicesScripts[name].sha1} `), bytes)
  return () => until(() => fault.hits === 1, { what: `the reply to ${name} to be lost` })
}

/** A long lease: nothing is renewed during a test. */
async function start(servers: number): Promise<ServicesWire> {
  const s = await ServicesWire.start(servers, { lease: 60_000 })
  // A call that is sent again to a server that was started meanwhile fails, and its age is known in seconds.
  const isOld = async () =>
    /uptime_in_seconds:([2-9]|\d\d)/.test(String(await s.t.server.call('INFO', 'server')))
  await until(isOld, { what: 'the server to be two seconds old', every: 50 })
  return s
}

describe('a reply is lost with the connection', { concurrency: 4 }, () => {
  test('S6 V2 dispatch - the call runs once, and its result arrives', async () => {
    await using s = await start(2)
    for (const bytes of OFFSETS) {
      const isLost = lose(s.caller.proxy, 'dispatch', bytes)
      assert.equal(await s.remote.emit('echo', `${bytes}`), `${bytes}`)
      await isLost()
      assert.equal(s.runsOf(`${bytes}`), 1)
      await s.idle()
    }
  })

  test('S6 V2 dispatch - of several batches at once: each call runs once', async () => {
    await using s = await start(2)
    for (const bytes of OFFSETS) {
      const isLost = lose(s.caller.proxy, 'dispatch', bytes)
      const names = namesOf(60, `${bytes}/`)
      assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
      await isLost()
      s.assertOnce(names)
      await s.idle()
    }
  })

  test('S6 V2 dispatch - the call ends before the retry', async () => {
    await using s = await start(2)
    await s.caller.proxy.refuse(false)
    const isLost = lose(s.caller.proxy, 'dispatch')
    const result = s.remote.emit('echo', 'a')
    await isLost()
    await s.caller.proxy.refuse(true)
    await until(() => s.runsOf('a') === 1, { what: 'the run' })
    await s.idleServers()
    await s.caller.mend()
    assert.equal(await result, 'a')
    assert.equal(s.runsOf('a'), 1)
    await s.idle()
  })

  test('S6 V2 dispatchAll - each process runs the broadcast once', async () => {
    await using s = await start(2)
    for (const bytes of OFFSETS) {
      const isLost = lose(s.caller.proxy, 'dispatchAll', bytes)
      const ids = []
      for await (const { id, ...answer } of s.remote.broadcast('echo', `${bytes}`)) {
        assert.deepEqual(answer, { result: `${bytes}` })
        ids.push(id)
      }
      await isLost()
      assert.deepEqual(ids.sort(), s.servers.map(({ services }) => services.id).sort())
      assert.equal(s.runsOf(`${bytes}`), 2)
      await s.idle()
    }
  })

  test('S6 V4 report - the reply arrives, and the load is exact', async () => {
    await using s = await start(1)
    for (const bytes of [0, 1, 3]) {
      const isLost = lose(s.at(0).proxy, 'report', bytes)
      const names = namesOf(60, `${bytes}/`)
      assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
      await isLost()
      s.assertOnce(names)
      await s.idle()
    }
  })

  test('S6 register, unregister, mark - have the effect of one', async () => {
    await using s = await start(1)
    const { proxy } = s.at(0)
    const other = new Services({ redis: proxy.options, lease: 60_000 })
    try {
      const ups: string[] = []
      s.caller.services.on('up', ({ service }) => ups.push(service))
      s.caller.services.on('down', ({ service }) => ups.push(`-${service}`))
      const isRegistered = lose(proxy, 'register', 1)
      const service = await other.register<{ run(): number }>('other')
      await isRegistered()
      service.on('run', () => 1)
      assert.equal((await loadsOf(s.t.server, 'other')).size, 1)
      const remote = s.caller.services.require<{ run(): number }>('other')
      assert.equal(await remote.emit('run'), 1)
      const isMarked = lose(proxy, 'mark', 1)
      await s.t.server.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
      await isMarked()
      await s.subscribed()
      await until(() => other.stats().subscribed, { what: 'the subscription' })
      await idle(s.t.server, 1, 'other')
      assert.equal(await s.remote.emit('echo', 'after'), 'after')
      await idle(s.t.server, 1, 'other')
      const isUnregistered = lose(proxy, 'unregister', 1)
      await other.unregister('other')
      await isUnregistered()
      assert.equal((await loadsOf(s.t.server, 'other')).size, 0)
      assert.equal(ups.filter((name) => name === '-other').length, 1)
      await assertMortal(s.t.server)
    } finally {
      await other.close({ grace: 0 })
    }
  })

  for (const who of ['caller', 'server'] as const) {
    test(`S6 V2 V4 the connection of a ${who} for commands ends at any byte: each call runs once`, async () => {
      await using s = await start(1)
      const wired: Wired = who === 'caller' ? s.caller : s.at(0)
      for (const direction of ['up', 'down'] as const) {
        for (const bytes of [1, 20, 100, 400, 900, 2000, 5000]) {
          const fault = wired.proxy.cutAfter(bytes, direction, { only: onCommands })
          const names = namesOf(30, `${direction} ${bytes}/`)
          assert.deepEqual(await Promise.all(names.map((name) => s.remote.emit('echo', name))), names)
          fault.clear()
          s.assertOnce(names)
        }
      }
      await s.idle()
    })

    test(`V2 V4 both connections of a ${who} end again and again: each call runs once`, async () => {
      await using s = await start(2)
      const wired: Wired = who === 'caller' ? s.caller : s.at(0)
      const all: string[] = []
      for (let round = 0; round < 60; round++) {
        const names = namesOf(20, `${round}/`)
        all.push(...names)
        const results = Promise.all(names.map((name) => s.remote.emit('echo', name)))
        // At a different moment each time.
        for (let turn = 0; turn < round % 12; turn++) await new Promise((resolve) => setImmediate(resolve))
        wired.proxy.cut()
        assert.deepEqual(await results, names)
      }
      s.assertOnce(all)
      await s.subscribed()
      await s.idle()
    })
  }
})

describe('a message overtakes the reply that it needs', () => {
  test('V1 lost again - a process that has lost a call says so before its caller is told who was given it: the call ends', async () => {
    await using s = await start(1)
    const { caller } = s
    const { services } = s.at(0)
    let runs = 0
    const serve = async () => {
      const service = await services.register('lossy')
      service.on('run', () => {
        runs++
        return new Promise(() => {})
      })
    }
    await serve()
    const remote = caller.services.require('lossy', { timeout: Number.POSITIVE_INFINITY, wait: 60_000 })
    const call = remote.pemit(2, 'run')
    const ended = rejectionOf(call)
    await until(() => runs === 1, { what: 'the first try to run' })
    // It gives the call up. The second try waits for a process, and finds the same one: that has not forgotten that it gave up.
    await services.unregister('lossy', { grace: 0 })
    caller.proxy.delay(300, { direction: 'down', only: onCommands })
    await serve()
    const error = await soon(ended, 10_000)
    assert.ok(error instanceof ProcessLostError, String(error))
    assert.deepEqual([error.ran, runs], ['maybe', 1])
  })
})
