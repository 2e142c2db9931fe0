// The server before a gateway: how it ends, and what does not end it.

import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { get, type RequestListener, type Server } from 'node:http'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { GatewayServer } from '../../src/cli/gateway-server.ts'
import { LOCALHOST } from '../support/ports.ts'
import { took, until } from '../support/wait.ts'

const MIB = 1024 * 1024
/** More than the buffers of the system hold. */
const LARGE = Buffer.alloc(64 * MIB, 'x')
const EPSILON = 1500

/** A server before a gateway that closes at once. */
function serverOf(listener: RequestListener, errors: Error[] = []): Promise<GatewayServer> {
  const gateway = { close: async () => {} }
  return GatewayServer.start(
    gateway,
    { request: listener, upgrade: undefined },
    { host: LOCALHOST, port: 0 },
    (error) => errors.push(error),
  )
}

/** A client that has asked, and reads nothing by itself. */
async function asking({ url }: GatewayServer): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), LOCALHOST).pause()
  await once(socket, 'connect')
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await once(socket, 'readable')
  return socket
}

test('cli server - an answer that a client goes on reading is not cut', async () => {
  const server = await serverOf((_, response) => void response.end(LARGE))
  const socket = await asking(server)
  const closed = server.close({ drain: 0, grace: 60_000 })
  let read = 0
  let text = ''
  // The client takes longer than a server lets a connection be idle.
  for (let turn = 0; turn < 12; turn++) {
    await sleep(250)
    const bytes: Buffer = socket.read() ?? Buffer.alloc(0)
    text ||= bytes.toString('latin1', 0, 400)
    read += bytes.length
  }
  assert.ok(read < LARGE.length, 'all was read at once')
  socket.on('data', (bytes) => {
    read += bytes.length
  })
  await Promise.all([once(socket, 'close'), closed])
  assert.equal(read, text.indexOf('\r\n\r\n') + 4 + LARGE.length)
})

test('cli server - an answer that nobody reads is cut before the end of the grace', async () => {
  const server = await serverOf((_, response) => void response.end(LARGE))
  const socket = await asking(server)
  socket.on('error', () => {})
  const ms = await took(() => server.close({ drain: 0, grace: 60_000 }))
  assert.ok(ms < 4000 + EPSILON, `it took ${ms} ms`)
  socket.destroy()
})

test('cli server - an answer that is read too slowly is cut at the end of the grace', async () => {
  const server = await serverOf((_, response) => {
    response.on('error', () => {})
    const drip = () => !response.destroyed && response.write('x', () => setTimeout(drip, 20))
    drip()
  })
  const socket = await asking(server)
  socket.on('error', () => {}).resume()
  const ms = await took(() => server.close({ drain: 0, grace: 3000 }))
  assert.ok(ms > 2900 && ms < 3000 + EPSILON, `it took ${ms} ms`)
})

test('cli server - a connection that is kept alive ends with the answer that was under way', async () => {
  let finish = () => {}
  const server = await serverOf((_, response) => {
    response.write('begun, ')
    finish = () => response.end('ended')
  })
  const answer = get(server.url, { agent: false, headers: { connection: 'keep-alive' } })
  const [response] = await once(answer, 'response')
  const closed = server.close({ drain: 0, grace: 60_000 })
  finish()
  assert.equal((await response.setEncoding('utf8').toArray()).join(''), 'begun, ended')
  const ms = await took(() => closed)
  assert.ok(ms < EPSILON, `it took ${ms} ms`)
})

test('cli server - a connection that cannot be accepted is reported, and the server goes on', async () => {
  const errors: Error[] = []
  const server = await serverOf((_, response) => void response.end('here'), errors)
  const servers: Server[] = []
  const onRequest = (message: unknown) => void servers.push((message as { server: Server }).server)
  subscribe('http.server.request.start', onRequest)
  assert.equal(await (await fetch(server.url)).text(), 'here')
  unsubscribe('http.server.request.start', onRequest)
  // As node:net reports that accept(2) has failed.
  const refused = Object.assign(new Error('accept ENFILE'), { code: 'ENFILE' })
  for (let time = 0; time < 3; time++) servers[0]?.emit('error', refused)
  assert.deepEqual(
    errors.map(({ message }) => message),
    ['A connection cannot be accepted: ENFILE'],
  )
  assert.equal(await (await fetch(server.url)).text(), 'here')
  await server.close({ drain: 0, grace: 0 })
})

test('cli server - half a request does not keep it from ending', async () => {
  const server = await serverOf(() => {})
  // It reads: the server may refuse what is no request before it is closed.
  const socket = connect(Number(new URL(server.url).port), LOCALHOST)
    .on('error', () => {})
    .resume()
  let written = 0
  const dripping = setInterval(() => socket.write('x', () => written++), 50)
  await until(() => written > 0, { what: 'half a request' })
  const ms = await took(() => server.close({ drain: 0, grace: 200 }))
  clearInterval(dripping)
  assert.ok(ms < 2000 + EPSILON, `it took ${ms} ms`)
})
