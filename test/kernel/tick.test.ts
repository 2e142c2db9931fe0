// Callbacks at the end of a tick.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import process from 'node:process'
import { test } from 'node:test'
import { Locker } from '../../src/index.ts'
import { atEndOfTurn, endTurn } from '../../src/kernel/time.ts'
import { setup } from '../support/setup.ts'

test('tick - callbacks run after all microtasks, in order, once', async () => {
  const order: string[] = []
  atEndOfTurn(() => {
    order.push('first')
    atEndOfTurn(() => order.push('of the first'))
  })
  atEndOfTurn(() => order.push('second'))
  for (let hop = 0; hop < 10; hop++) await null
  assert.equal(order.length, 0)
  await new Promise((turn) => setImmediate(turn))
  assert.deepEqual(order, ['first', 'second', 'of the first'])
  atEndOfTurn(() => order.push('at once'))
  endTurn()
  assert.equal(order.at(-1), 'at once')
  await new Promise((turn) => setImmediate(turn))
  assert.equal(order.length, 4)
})

test('tick - an error is an uncaught exception, and delays no other callback', async () => {
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  const uncaught = once(process, 'uncaughtException')
  let sent = false
  try {
    atEndOfTurn(() => {
      throw new Error('broken')
    })
    atEndOfTurn(() => {
      sent = true
    })
    endTurn()
    assert.equal(sent, true)
    const [error] = (await uncaught) as [Error]
    assert.equal(error.message, 'broken')
  } finally {
    for (const listener of listeners) process.on('uncaughtException', listener)
  }
})

/** A server that forwards to Redis, and counts the commands in each chunk of data from the client. */
async function counting(path: string, reads: number[]): Promise<Server> {
  const server = createServer((client: Socket) => {
    const redis = connect(path)
    client.on('data', (data) => {
      const count = data.toString('latin1').split('\r\nhget\r\n').length - 1
      if (count > 0) reads.push(count)
      redis.write(data)
    })
    redis.on('data', (data) => client.write(data))
    for (const [one, other] of [
      [client, redis],
      [redis, client],
    ] as const) {
      one.on('error', () => other.destroy())
      one.on('close', () => other.destroy())
    }
  })
  server.listen(0)
  await once(server, 'listening')
  return server
}

test('tick - the reads of one tick are one write to the socket', async () => {
  await using t = await setup()
  const reads: number[] = []
  const server = await counting(t.server.path, reads)
  const { port } = server.address() as { port: number }
  try {
    await using locker = new Locker({ redis: { port }, cache: false })
    await locker.ready()
    const keys = Array.from({ length: 20 }, (_, at) => `key${at}`)
    await Promise.all(keys.map((key) => locker.run(key, () => key)))
    reads.length = 0
    assert.deepEqual(await Promise.all(keys.map((key) => locker.run(key, () => 'unused'))), keys)
    assert.deepEqual(reads, [20])
  } finally {
    server.close()
  }
})
