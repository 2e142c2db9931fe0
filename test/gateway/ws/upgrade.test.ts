// Requests with a header Upgrade: which become WebSockets, and what becomes of the others. Over raw sockets.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { createGateway, type Gateway } from '../../../src/gateway/index.ts'
import { toNodeListener } from '../../../src/gateway/node.ts'
import { toUpgradeListener } from '../../../src/gateway/ws/index.ts'
import { until } from '../../support/wait.ts'

interface Scene extends AsyncDisposable {
  server: Server
  /** A client that never closes its half by itself. */
  connect(): { socket: Socket; read(): string }
}

async function sceneOf({ ignoresOthers = true } = {}): Promise<Scene> {
  const gateway: Gateway = createGateway({ redis: null })
  const upgrade = toUpgradeListener(gateway)
  const { IncomingMessage } = upgrade
  const server = createServer(ignoresOthers ? { IncomingMessage } : {}, toNodeListener(gateway))
  server.on('upgrade', upgrade)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const clients: Socket[] = []
  return {
    server,
    connect() {
      const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }).on('error', () => {})
      clients.push(socket)
      let text = ''
      socket.setEncoding('utf8').on('data', (data: string) => {
        text += data
      })
      return { socket, read: () => text }
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroy()
      await gateway.close({ grace: 0 })
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function head(line: string, protocol: string, ...more: string[]): string {
  const headers = ['Host: localhost', 'Connection: Upgrade, HTTP2-Settings', `Upgrade: ${protocol}`, ...more]
  return `${line} HTTP/1.1\r\n${headers.join('\r\n')}\r\n\r\n`
}

async function openConnections(server: Server): Promise<number> {
  return new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  )
}

test('upgrade - another protocol is ignored: the request is answered, with its body, and those behind it', async () => {
  await using scene = await sceneOf()
  const { socket, read } = scene.connect()
  const answers = () =>
    read()
      .match(/HTTP\/1\.1 \d+/g)
      ?.map((line) => line.slice(9)) ?? []
  for (const protocol of ['h2c', 'TLS/1.2', 'h2c, websocket', '']) {
    const before = answers().length
    socket.write(head('GET /healthz', protocol))
    await until(() => answers().length === before + 1, { what: `the answer to ${protocol}` })
  }
  assert.deepEqual(new Set(answers()), new Set(['200']))
  const before = answers().length
  socket.write(head('POST /q/foo', 'h2c', 'Content-Length: 9'))
  socket.write('{"a":')
  await once(scene.server, 'request')
  socket.write('"b"}')
  await until(() => answers().length === before + 1, { what: 'the answer to a post' })
  socket.write(`${head('POST /q/foo', 'websocket', 'Transfer-Encoding: chunked')}2\r\n{}\r\n0\r\n\r\n`)
  await until(() => answers().length === before + 2, { what: 'the answer to a post of WebSocket' })
  socket.write('GET /qb/foo HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await until(() => answers().length === before + 3, { what: 'the job' })
  assert.deepEqual(answers().slice(before), ['201', '201', '200'])
  assert.match(read(), /\{"a":"b"\}/)
})

test('upgrade - a request to become a WebSocket becomes one', async () => {
  await using scene = await sceneOf()
  const { socket, read } = scene.connect()
  const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
  socket.write(head('GET /ws', 'WebSocket', key, 'Sec-WebSocket-Version: 13'))
  await until(() => read().startsWith('HTTP/1.1 101 '), { what: 'the upgrade' })
})

test('upgrade - a connection that is refused is closed, though its client does not close it', async () => {
  await using scene = await sceneOf()
  const reads = Array.from({ length: 20 }, () => {
    const { socket, read } = scene.connect()
    socket.write(head('GET /x', 'websocket'))
    return read
  })
  await until(() => reads.every((read) => read().startsWith('HTTP/1.1 404 ')), { what: 'the refusals' })
  await until(async () => (await openConnections(scene.server)) === 0, { what: 'the end' })
})

test('upgrade - without the option of the server, another protocol is refused, and it is said why', async () => {
  await using scene = await sceneOf({ ignoresOthers: false })
  const { socket, read } = scene.connect()
  socket.write(`${head('POST /q/foo', 'h2c', 'Content-Length: 2')}{}`)
  await until(() => read().includes('"unknown protocol"'), { what: 'the refusal' })
  assert.match(read(), /^HTTP\/1\.1 501 [\s\S]*\r\nconnection: close\r\n/)
  await until(async () => (await openConnections(scene.server)) === 0, { what: 'the end' })
})
