// The overview of real processes: one that holds, those that wait, one that is killed, one that is frozen.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGateway } from '../../../src/gateway/index.ts'
import { serve } from '../../support/gateway.ts'
import { LockerProcesses, told } from '../../support/locker-process.ts'
import { QueueProcesses, told as toldByQueue } from '../../support/queue-process.ts'
import { setup } from '../../support/setup.ts'
import { answerWhen, overviewWhen, queueOf } from './support.ts'

test('overview - a processor and waiters in two processes; it is killed, and a waiter replaces it', async () => {
  await using t = await setup()
  const server = await serve(createGateway({ redis: t.redis }))
  const options = { redis: t.redis, lease: 4_000 }
  await using processes = await LockerProcesses.start(options, options, options)
  const [holder, ...waiters] = processes.all
  assert.ok(holder)
  // What a killed process was asked is not answered.
  holder.call('run', 'report').catch(() => {})
  await told(holder, 'grant', 'report')
  const results = waiters.flatMap((child) => [child.call('run', 'report'), child.call('run', 'report')])
  const { keys } = await overviewWhen(server, (next) => (next.keys[0]?.waiting.length ?? 0) === 3)
  const [key] = keys
  assert.equal(keys.length, 1)
  assert.equal(key?.holder?.pid, holder.pid)
  assert.equal(key?.lease, 4)
  assert.equal(key?.waiters, 5, 'the caller whose work runs waits for it as well')
  const by = new Map(key?.waiting.map(({ pid, waiters: count }) => [pid, count]))
  assert.deepEqual(
    [holder, ...waiters].map(({ pid }) => by.get(pid)),
    [1, 2, 2],
  )
  assert.match(key?.why ?? '', new RegExp(`^Key \`report\` is held by pid ${holder.pid} on host \\S+ for `))
  await holder.kill()
  // Until its lease ends, only the store names it.
  const gone = await overviewWhen(server, (next) => /which does not answer/.test(next.keys[0]?.why ?? ''))
  assert.equal(gone.keys[0]?.holder?.pid, holder.pid)
  assert.equal(gone.keys[0]?.waiters, 4)
  const pids = waiters.map(({ pid }) => pid)
  const next = await overviewWhen(server, (one) => pids.includes(one.keys[0]?.holder?.pid ?? 0))
  assert.ok((next.keys[0]?.fence ?? 0) > (key?.fence ?? 0))
  for (const child of waiters) await child.call('finish', 'report', { value: 'done' })
  assert.deepEqual(await Promise.all(results), ['done', 'done', 'done', 'done'])
  await overviewWhen(server, (last) => last.keys.length === 0)
  await server.close()
})

test('overview - a worker that is frozen does not answer, and nobody says that there is none', async () => {
  await using t = await setup()
  const server = await serve(createGateway({ redis: t.redis }))
  await using processes = await QueueProcesses.start({ redis: t.redis, concurrency: 1, lease: 20_000 })
  const worker = processes.at(0)
  const { id } = (await server.call('POST', '/q/q?command=work', { body: '{"name":"one"}' })).json as {
    id: string
  }
  await toldByQueue(worker, 'begun', 'one')
  await server.call('POST', '/q/q?command=work', { body: '{"name":"two"}' })
  const before = await overviewWhen(server, (next) => next.workers[0]?.busy === 1)
  assert.equal(before.complete, true)
  assert.equal(queueOf(before, 'q').why, 'The only slot of its worker is taken.')
  const running = await answerWhen<{ why: string; runner?: { pid: number } }>(
    server,
    `/j/q/${id}`,
    ({ runner }) => runner !== undefined,
  )
  assert.equal(running.runner?.pid, worker.pid)
  await worker.freeze()
  const frozen = await overviewWhen(server, ({ complete }) => !complete)
  assert.deepEqual(frozen.workers, [])
  assert.equal(
    queueOf(frozen, 'q').why,
    'No worker is known for command `work`: not every process has answered.',
  )
  const silent = await answerWhen<{ why: string; runner?: object }>(
    server,
    `/j/q/${id}`,
    ({ runner }) => runner === undefined,
  )
  assert.equal(silent.why, 'It runs in a process that has not answered.')
  worker.thaw()
  await overviewWhen(server, ({ complete, workers }) => complete && workers.length === 1)
  await server.close()
})
