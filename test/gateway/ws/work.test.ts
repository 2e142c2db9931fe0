// Workers on a WebSocket: jobs are taken, or pushed as places are free; the leases are those of the routes; events of queues.

import assert from 'node:assert/strict'
import { createGateway } from '../../../src/gateway/index.ts'
import { onBothWorlds, serve } from '../../support/gateway.ts'
import { type Push, SocketClient } from '../../support/socket-client.ts'
import { until } from '../../support/wait.ts'

interface Job {
  id: string
  attempt: number
  lease: string
  job: unknown
}

const jobOf = (push: Push) => push['job'] as Job

onBothWorlds('ws work - a job is taken, renewed, shown, logged and finished', async (w) => {
  const server = await w.open()
  const queue = w.queue('foo')
  await using client = await SocketClient.open(server)
  assert.equal(await client.call('take', { queue: 'foo' }), null)
  const waiting = client.call('take', { queue: 'foo', wait: '30s', lease: 20 })
  const progress: unknown[] = []
  const result = queue.submit('job', { n: 1.5 }, { onProgress: (value) => progress.push(value) })
  const { lease, id, attempt, job } = (await waiting) as Job
  assert.deepEqual([attempt, job], [1, { n: 1.5 }])
  assert.deepEqual(await client.call('renew', { queue: 'foo', lease }), { left: 20, cancelled: false })
  assert.deepEqual(await client.call('renew', { queue: 'foo', lease, for: '45s' }), {
    left: 45,
    cancelled: false,
  })
  await client.call('progress', { queue: 'foo', lease, progress: { half: true } })
  await until(() => progress.length === 1, { what: 'the progress' })
  await client.call('log', { queue: 'foo', lease, log: ['one', 'two'] })
  assert.deepEqual(await queue.logs(id), ['one', 'two'])
  assert.equal(await client.call('finish', { queue: 'foo', lease, result: { done: [1] } }), null)
  assert.deepEqual(await result, { done: [1] })
  assert.deepEqual(await client.call('renew', { queue: 'foo', lease }), { left: 0, cancelled: true })
  await assert.rejects(client.call('again', { queue: 'foo', lease: 'x.30' }), /400 invalid lease/)
})

onBothWorlds(
  'ws work - a lease of a socket is finished by a route of another gateway, and the reverse',
  async (w) => {
    const [one, two] = await Promise.all([w.open(), w.open()])
    await using client = await SocketClient.open(one)
    for (const n of [1, 2]) await two.call('POST', '/q/foo', { body: `${n}` })
    const taken = (await client.call('take', { queue: 'foo' })) as Job
    assert.equal(
      (await two.call('PUT', '/q/foo', { headers: { 'x-lease': taken.lease }, body: '"by a route"' })).status,
      204,
    )
    const response = await two.call('GET', '/q/foo?lease=30')
    const lease = response.headers.get('x-lease')
    await client.call('fail', { queue: 'foo', lease, reason: { message: 'no', name: 'SadError' } })
    const { json } = await one.call('GET', `/j/foo/${response.headers.get('x-job-id')}`)
    assert.deepEqual((json as { failure: unknown }).failure, { name: 'SadError', message: 'no' })
  },
)

onBothWorlds('ws work - jobs are pushed while places are free, and not one more', async (w) => {
  const server = await w.open()
  const queue = w.queue('foo')
  await using client = await SocketClient.open(server)
  const { id: sub, reply } = client.send('work', { queue: 'foo', concurrency: 2 })
  assert.equal(await reply, null)
  const results = Array.from({ length: 6 }, (_, n) => queue.submit('job', n, { attempts: 2 }))
  await until(() => client.pushes.length === 2, { what: 'two jobs' })
  assert.equal((await queue.counts()).active, 2)
  assert.ok(client.pushes.every((push) => push.sub === sub))
  const [first, second] = client.pushes.splice(0).map(jobOf) as [Job, Job]
  await client.call('finish', { queue: 'foo', lease: first.lease, result: first.job })
  await client.call('again', { queue: 'foo', lease: second.lease })
  await until(() => client.pushes.length === 2, { what: 'two more jobs' })
  assert.equal((await queue.counts()).active, 2)
  const [third] = client.pushes.splice(0, 1).map(jobOf) as [Job]
  await client.call('fail', { queue: 'foo', lease: third.lease, reason: 'again' })
  for (let n = 0; n < 5; n++) {
    const { job, lease } = jobOf(await client.take((push) => push['job']))
    await client.call('finish', { queue: 'foo', lease, result: job })
  }
  assert.deepEqual(await Promise.all(results), [0, 1, 2, 3, 4, 5])
  assert.equal(await client.call('end', { sub }), true)
  assert.equal(await client.call('end', { sub }), false)
  await queue.enqueue('job', 'late')
  assert.equal(((await client.call('take', { queue: 'foo', wait: 10 })) as Job).job, 'late')
  assert.equal(client.pushes.length, 0)
})

onBothWorlds('ws work - a socket that ends gives back what it was not sent, and nothing else', async (w) => {
  const server = await w.open()
  const queue = w.queue('foo')
  const client = await SocketClient.open(server)
  await client.call('work', { queue: 'foo', concurrency: 3, lease: 20 })
  await queue.enqueue('job', 'held')
  const held = jobOf(await client.take((push) => push['job']))
  client.socket.terminate()
  await client.ended()
  await queue.enqueue('job', 'new')
  await using other = await SocketClient.open(server)
  const taken = (await other.call('take', { queue: 'foo', wait: 10 })) as Job
  assert.equal(taken.job, 'new', 'a taker that is gone takes nothing')
  assert.equal((await queue.counts()).active, 2)
  await other.call('finish', { queue: 'foo', lease: held.lease, result: 1 })
  assert.equal((await queue.counts()).active, 1, 'the lease is that of the job, not that of the socket')
})

onBothWorlds('ws work - a cancelled job frees its place, and tells its worker', async (w) => {
  const server = await w.open()
  const queue = w.queue('foo')
  await using client = await SocketClient.open(server)
  await client.call('work', { queue: 'foo' })
  const one = await queue.enqueue('job', 1)
  await queue.enqueue('job', 2)
  const { lease } = jobOf(await client.take((push) => push['job']))
  await one.cancel()
  assert.deepEqual(await client.call('renew', { queue: 'foo', lease }), { left: 0, cancelled: true })
  assert.equal(jobOf(await client.take((push) => push['job'])).job, 2)
})

onBothWorlds('ws events - the feed of a queue, or of one job, until it is ended', async (w) => {
  const server = await w.open()
  const queue = w.queue('foo')
  await using client = await SocketClient.open(server)
  const all = client.send('watch', { queue: 'foo' })
  await all.reply
  const { id } = await queue.enqueue('job', 1)
  const one = client.send('watch', { queue: 'foo', job: id })
  await one.reply
  await queue.enqueue('job', 2)
  const { lease } = (await client.call('take', { queue: 'foo' })) as Job
  await client.call('log', { queue: 'foo', lease, log: 'a line' })
  await client.call('finish', { queue: 'foo', lease })
  const ofOne = await client.take(
    ({ sub, event }) => sub === one.id && (event as { event: string }).event === 'completed',
  )
  assert.equal((ofOne['event'] as { id: string }).id, id)
  assert.ok(client.pushes.every((push) => push.sub !== one.id || (push['event'] as { id: string }).id === id))
  await client.take(({ sub, event }) => sub === all.id && (event as { event: string }).event === 'completed')
  // Lines of logs are told to those that watch the job.
  const logged = client.pushes.filter(({ event }) => (event as { event?: string })?.event === 'log')
  assert.deepEqual(
    logged.map(({ sub, event }) => [sub, (event as { lines: string[] }).lines]),
    [[one.id, ['a line']]],
  )
  await client.call('end', { sub: all.id })
  const before = client.pushes.filter(({ sub }) => sub === all.id).length
  await queue.enqueue('job', 3)
  await client.call('take', { queue: 'foo' })
  assert.equal(client.pushes.filter(({ sub }) => sub === all.id).length, before)
})

onBothWorlds('ws - a gateway that closes says 1001, after what it was told has been done', async (w) => {
  const server = await serve(createGateway(w.t ? { redis: w.t.redis } : {}))
  const client = await SocketClient.open(server)
  await client.call('work', { queue: 'foo' })
  const waiting = client.call('take', { queue: 'foo', wait: 60 })
  waiting.catch(() => {})
  await server.close()
  assert.deepEqual(await client.ended(), { code: 1001, reason: 'gateway is closing' })
  await assert.rejects(waiting, /closed/)
})
