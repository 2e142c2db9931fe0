// Services objects whose connection fails, or is closed by others.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pDefer from 'p-defer'
import { ClosedError, ProcessLostError, UnavailableError } from '../../src/errors.ts'
import { Connection } from '../../src/kernel/index.ts'
import { Services } from '../../src/services/index.ts'
import { onCommands } from '../support/locker-scene.ts'
import { TcpProxy } from '../support/proxy.ts'
import { all } from '../support/services.ts'
import { ServicesWire } from '../support/services-wire.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, timed, until } from '../support/wait.ts'

test('connection - V1 it is closed under a call that was sent: the handler may have run', async () => {
  await using t = await setup()
  await using proxy = await TcpProxy.start(t.server.options)
  const connection = new Connection(proxy.options)
  await using server = new Services({ redis: t.redis })
  await using caller = new Services({ redis: connection })
  const service = await server.register('work')
  service.on('name', () => 'work')
  let runs = 0
  service.on('do', () => {
    runs++
    return new Promise(() => {})
  })
  const remote = caller.require('work')
  // The server has the scripts from then on.
  assert.equal(await remote.emit('name'), 'work')
  proxy.delay(2_000, { direction: 'down', only: onCommands })
  const call = timed(remote.emit('do'))
  await until(() => runs === 1, { what: 'the run' })
  await proxy.refuse(true)
  proxy.cut(onCommands)
  await until(() => !connection.connected, { what: 'the loss to be detected' })
  await connection.close()
  const { error } = await call
  assert.ok(error instanceof ClosedError && error.ran === 'maybe', `${error}`)
  await server.close({ grace: 0 })
})

test('connection - V1 Redis does not answer: what a broadcast says of it, and `ready`', async () => {
  await using t = await setup()
  await using proxy = await TcpProxy.start(t.server.options)
  await proxy.refuse(true)
  await using caller = new Services({ redis: proxy.options, unavailableAfter: 200 })
  const remote = caller.require('work', { timeout: 1_000 })
  const [failed, notReady] = await Promise.all([
    rejectionOf(all(remote.broadcast('do'))),
    rejectionOf(remote.ready()),
  ])
  assert.ok(failed instanceof UnavailableError && failed.ran === 'no', `${failed}`)
  assert.equal(failed.key, 'do')
  assert.ok(notReady instanceof UnavailableError, `${notReady}`)
})

test('connection - a reply is sent when Redis answers again, also after the last service', async () => {
  await using t = await setup()
  await using proxy = await TcpProxy.start(t.server.options)
  await using server = new Services({ redis: proxy.options, unavailableAfter: 300, lease: 1_500 })
  await using caller = new Services({ redis: t.redis, lease: 60_000 })
  const service = await server.register('work')
  const gate = pDefer<string>()
  let runs = 0
  service.on('do', () => {
    runs++
    return gate.promise
  })
  const call = timed(caller.require('work').emit('do'))
  await until(() => runs === 1, { what: 'the run' })
  await proxy.refuse(true)
  proxy.cut()
  const unregistered = server.unregister('work')
  gate.resolve('done')
  await unregistered
  await proxy.refuse(false)
  const { value, ms } = await call
  assert.equal(value, 'done')
  assert.ok(ms < 5_000, `${ms}`)
})

test('connection - handlers are waited for from the end of the registration', async () => {
  await using t = await setup()
  await using server = new Services({ redis: t.redis })
  await using caller = new Services({ redis: t.redis })
  await caller.ping(caller.id)
  await t.server.call('CLIENT', 'PAUSE', '1300')
  const service = await server.register('work')
  const call = caller.require('work').emit('do')
  await sleep(200)
  service.on('do', () => 'done')
  assert.equal(await call, 'done')
})

test('connection - V3 a process that was struck off and does not answer is lost with its lease', async () => {
  await using wire = await ServicesWire.start(1, { lease: 1_500 })
  wire.holding()
  const call = timed(wire.remote.emit('echo', 'held'))
  await until(() => wire.runsOf('held') === 1, { what: 'the run' })
  wire.at(0).holeCommands()
  await wire.at(0).loseSubscription()
  // Nobody listens: it is struck off.
  const next = wire.caller.services.require('wired').emit('echo')
  await assert.rejects(next, { code: 'E_NO_SERVICE' })
  const { error, ms } = await call
  assert.ok(error instanceof ProcessLostError && error.ran === 'maybe', `${error}`)
  // Its lease, and a look at it.
  assert.ok(ms < 2_300, `${ms}`)
})

test('connection - a message to an object that is closed, while others share its connection, is not received', async () => {
  await using t = await setup()
  await using connection = new Connection(t.redis)
  await using open = new Services({ redis: connection })
  await using sender = new Services({ redis: t.redis, unavailableAfter: 300 })
  const shared = new Services({ redis: connection })
  const heard: unknown[] = []
  shared.on('message', (from, message) => heard.push([from, message]))
  assert.equal(await sender.send(shared.id, 'hello'), true, 'at once: the sender has just been created')
  assert.deepEqual(heard, [[sender.id, 'hello']])
  await shared.close()
  const { value, ms } = await timed(sender.send(shared.id, 'nobody'))
  assert.equal(value, false)
  assert.ok(ms < 1_500, `${ms}`)
  assert.equal(await sender.send(open.id, 'others'), true)
})
