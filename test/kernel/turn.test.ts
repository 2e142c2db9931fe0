// Callbacks at the end of a turn of the event loop.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import process from 'node:process'
import { test } from 'node:test'
import { Locker } from '../../src/index.ts'
import { atEndOfTurn, endTurn } from '../../src/kernel/time.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

test('turn - callbacks run after all microtasks, in order, once', async () => {
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

test('turn - an error is an uncaught exception, and delays no other callback', async () => {
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

test('turn - the reads of one turn are one write to the socket', async () => {
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

test('turn - what the messages of several sockets ask for is asked together', async () => {
  const messages = 10
  const accepted = new Set<Socket>()
  let heard = 0
  const heardBySend: number[] = []
  const server = createServer((socket) => {
    accepted.add(socket)
    // Each message is read in a tick of its own.
    socket.once('data', () => {
      heard++
      if (heard === 1) atEndOfTurn(() => heardBySend.push(heard))
    })
  })
  server.listen(0)
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const sockets = Array.from({ length: messages }, () => connect(port))
  try {
    await until(() => accepted.size === messages, { what: 'the connections' })
    for (const socket of sockets) socket.write('x')
    // All messages lie unread in their sockets when the next turn begins.
    for (const sent = performance.now(); performance.now() - sent < 20; );
    await until(() => heard === messages, { what: 'the messages' })
    assert.deepEqual(heardBySend, [messages])
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
})
