// Jobs that are taken for good are ended when their answer was read, whatever happens until then.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { createGateway } from '../../src/gateway/index.ts'
import { MemoryQueueStore, RedisQueue } from '../../src/index.ts'
import { serve } from '../support/gateway.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

test('hand-over - a job is held for as long as a slow client reads it, and ends when it has', async () => {
  const clock = new ManualClock()
  const store = new MemoryQueueStore({ clock })
  const maxPayload = 64 * 1024 * 1024
  const gateway = createGateway({ clock, queueOptions: { store, maxPayload } })
  const server = await serve(gateway)
  const queue = new RedisQueue('jobs', { store, maxPayload })
  // More than the buffers of a connection take.
  const payload = 'x'.repeat(24 * 1024 * 1024)
  const job = await queue.enqueue('job', payload, { dedupe: false })
  const socket = connect(server.port, '127.0.0.1')
  socket.write('GET /q/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  let size = 0
  socket.on('data', (chunk) => {
    size += chunk.length
  })
  await once(socket, 'data')
  socket.pause()
  // Ten leases.
  for (let step = 0; step < 60; step++) {
    await clock.pass(5_000)
    const status = await job.status()
    assert.deepEqual([status?.state, status?.stalls], ['active', 0], `after ${5 * step} s`)
  }
  socket.resume()
  await once(socket, 'close')
  assert.ok(size > payload.length)
  await until(async () => (await job.status())?.state === 'completed', { what: 'the job to be completed' })
  await queue.close({ grace: 0 })
  await server.close()
})

test('hand-over - Redis is away when the answer was read: the job is ended when it is back, and not given twice', async () => {
  await using t = await setup({ port: 'free', proxy: true })
  const { proxy } = t
  const direct = new RedisQueue('jobs', { redis: t.server.options })
  await using gateway = createGateway({
    redis: { host: proxy.options.host, port: proxy.options.port, retryStrategy: () => 20 },
    queueOptions: { unavailableAfter: 100 },
  })
  for (const isRead of [true, false]) {
    const job = await direct.enqueue('job', 1, { dedupe: false })
    // A Fetch handler: the answer is sent when its body is read.
    const response = await gateway.fetch(new Request('http://localhost/q/jobs?wait=10'))
    assert.equal(response.status, 200)
    await proxy.refuse(true)
    proxy.cut()
    if (isRead) assert.equal(await response.text(), '1')
    else await response.body?.cancel()
    // What is asked for later fails, so the first try to end the job has failed too.
    const asked = await gateway.fetch(new Request(`http://localhost/j/jobs/${job.id}`))
    assert.equal(asked.status, 503)
    assert.equal((await job.status())?.state, 'active')
    await proxy.refuse(false)
    const state = isRead ? 'completed' : 'waiting'
    await until(async () => (await job.status())?.state === state, {
      what: `the job to be ${state}`,
      timeout: 15_000,
    })
    assert.equal((await job.status())?.stalls, 0)
  }
  await direct.close({ grace: 0 })
})
