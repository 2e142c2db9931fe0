// The overview: who is waiting on what.

import assert from 'node:assert/strict'
import pDefer from 'p-defer'
import type { Overview, QueueView } from '../../../src/gateway/overview/overview.ts'
import { Locker } from '../../../src/index.ts'
import { type GatewayServer, onBothWorlds } from '../../support/gateway.ts'
import { until } from '../../support/wait.ts'

async function overviewOf(server: GatewayServer): Promise<Overview> {
  const { status, json, text } = await server.call('GET', '/overview')
  assert.equal(status, 200, text)
  return json as Overview
}

/** The overview, when it has what is asked for. */
async function overviewWhen(server: GatewayServer, has: (overview: Overview) => boolean): Promise<Overview> {
  let overview: Overview | undefined
  const found = async () => {
    overview = await overviewOf(server)
    return has(overview)
  }
  await until(found, { what: 'the overview' }).catch((error) => {
    assert.fail(`${error}: ${JSON.stringify(overview, undefined, 1)}`)
  })
  return overview as Overview
}

function queueOf({ queues }: Overview, name: string): QueueView {
  return queues.find((queue) => queue.name === name) ?? assert.fail(`no queue ${name}`)
}

onBothWorlds('overview - queues, by command, and why their first job waits', async (w) => {
  const server = await w.open()
  const queue = w.queue('mail')
  const running = pDefer()
  const done = pDefer()
  queue.process('send', async () => {
    running.resolve()
    await done.promise
  })
  await queue.enqueue('send', 1)
  await running.promise
  await queue.enqueue('send', 2)
  await queue.enqueue('render', 'x')
  await queue.enqueue('send', 3, { delay: 100_000 })
  const overview = await overviewWhen(
    server,
    ({ queues, workers }) => queues.length > 0 && workers.length > 0,
  )
  assert.equal(overview.store.kind, w.kind)
  assert.equal(overview.store.reachable, true)
  assert.equal(overview.complete, true)
  assert.equal(overview.queueCount, 1)
  const mail = queueOf(overview, 'mail')
  const { waiting, delayed, running: active, failed, paused, totals } = mail
  assert.deepEqual(
    { waiting, delayed, active, failed, paused },
    { waiting: 2, delayed: 1, active: 1, failed: 0, paused: false },
  )
  assert.deepEqual(totals, { submitted: 4, completed: 0, failed: 0 })
  assert.equal(mail.why, 'The only place of its worker is taken.')
  const common = { failed: 0, paused: false }
  assert.deepEqual(
    mail.commands.toSorted((one, other) => (one.command < other.command ? -1 : 1)),
    [
      { ...common, command: 'render', waiting: 1, delayed: 0, running: 0, capacity: 0 },
      { ...common, command: 'send', waiting: 1, delayed: 1, running: 1, capacity: 1 },
    ],
  )
  const [worker] = overview.workers
  assert.deepEqual(
    { ...worker, id: '', host: '', since: 0 },
    { id: '', host: '', pid: process.pid, queue: 'mail', command: 'send', busy: 1, concurrency: 1, since: 0 },
  )
  done.resolve()
  const after = await overviewWhen(server, (next) => queueOf(next, 'mail').totals.completed === 2)
  assert.equal(queueOf(after, 'mail').why, 'No worker is connected for command `render`.')
  await queue.pause()
  const stopped = await overviewWhen(server, (next) => queueOf(next, 'mail').paused)
  assert.equal(queueOf(stopped, 'mail').why, 'The queue is paused.')
})

onBothWorlds('overview - keys that are held and awaited', async (w) => {
  const server = await w.open()
  const claim = await server.call('POST', '/locks/report/claim?lease=30')
  assert.equal(claim.status, 200)
  const waiting = server.call('GET', '/locks/report/wait?wait=20')
  const { keys } = await overviewWhen(server, (next) => (next.keys[0]?.waiters ?? 0) > 0)
  assert.equal(keys.length, 1)
  assert.equal(keys[0]?.key, 'report')
  assert.match(keys[0]?.why ?? '', /^Key `report` is held by /)
  await server.call('PUT', '/locks/report', {
    body: '1',
    headers: { 'x-lease': claim.headers.get('x-lease') ?? '' },
  })
  assert.equal((await waiting).text, '{"status":"done","result":1}')
  void Locker
})
