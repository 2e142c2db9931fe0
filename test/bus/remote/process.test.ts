// The bus of a gateway process that is killed, and comes back.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WebSocket } from 'ws'
import { Bus } from '../../../src/index.ts'
import { Cli } from '../../support/cli.ts'
import { freePort } from '../../support/ports.ts'
import { setup } from '../../support/setup.ts'
import { until } from '../../support/wait.ts'

test('remote - a gateway process is killed, and another one takes its place: no message of a reliable queue is lost', async () => {
  await using t = await setup()
  const port = await freePort()
  const args = ['--redis', t.url, '--port', `${port}`, '--token', 'work,submit,read=secret']
  let gateway = await Cli.serve(args)
  const options = {
    token: 'secret',
    unavailableAfter: 20_000,
    WebSocket,
  }
  await using remote = Bus.remote(`ws://127.0.0.1:${port}/ws`, options)
  const log: string[] = []
  remote.on('online', () => log.push('online'))
  remote.on('offline', () => log.push('offline'))
  const queue = remote.queue<number>('q')
  const topic = remote.pubsub<number>('t', { keep: 100 })
  const received = new Set<number>()
  const heard: unknown[] = []
  queue.on('message', (value, id) => {
    received.add(value)
    queue.ack(id).catch(() => {})
  })
  topic.on('message', (value) => heard.push(value))
  topic.on('gap', () => heard.push('gap'))
  await topic.subscribe()
  await queue.attach({ ttl: 60_000 })
  await queue.consume({ reliable: true, lease: 1_000 })
  await using bus = new Bus({ redis: t.redis })
  const there = bus.queue<number>('q')
  await there.attach()
  const topicThere = bus.pubsub<number>('t', { keep: 100 })
  for (let n = 1; n <= 20; n++) {
    if (n === 7) {
      await gateway.kill()
      await until(() => log.includes('offline'), { what: 'the client to notice' })
    }
    await there.push(n)
    await topicThere.publish(n)
    if (n === 14) gateway = await Cli.serve(args)
  }
  await until(() => received.size === 20, { what: 'all messages of the queue', timeout: 30_000 })
  await until(() => heard.length === 20, { what: 'all messages of the topic' })
  assert.deepEqual(
    heard,
    Array.from({ length: 20 }, (_, index) => index + 1),
  )
  assert.deepEqual(log, ['online', 'offline', 'online'])
  await remote.disconnect()
  gateway.signal('SIGTERM')
  assert.equal(await gateway.exits(), 0)
})

test('remote - a gateway process that stands still: calls reject in time, the client leaves, and comes back', async () => {
  const gateway = await Cli.serve()
  const url = `${gateway.url.replace('http', 'ws')}/ws`
  const options = { unavailableAfter: 500, WebSocket }
  await using remote = Bus.remote(url, options)
  const log: string[] = []
  remote.on('online', () => log.push('online'))
  remote.on('offline', () => log.push('offline'))
  const topic = remote.pubsub<number>('t')
  const received: number[] = []
  topic.on('message', (message) => received.push(message))
  await topic.subscribe()
  gateway.signal('SIGSTOP')
  const error = await topic.publish(1).catch((error: unknown) => error)
  assert.deepEqual(
    [(error as { code: string }).code, (error as { sent: boolean }).sent],
    ['E_UNAVAILABLE', true],
  )
  await until(() => log.includes('offline'), { what: 'the client to leave', timeout: 30_000 })
  gateway.signal('SIGCONT')
  await until(() => log.length === 3, { what: 'the client to come back', timeout: 30_000 })
  await topic.publish(2)
  await until(() => received.includes(2), { what: 'the message' })
  await remote.disconnect()
  await gateway.kill()
})
