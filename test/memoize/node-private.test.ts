// memoizeHandler on node:http: responses and requests that belong to one client.

import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, test } from 'node:test'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { HttpWorld, onBoth, type Received, type Served } from '../support/http-scene.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000
const FRESH = { 'cache-control': 'max-age=60' }

describe('memoize node, private responses', () => {
  onBoth(
    'memoize node - responses to cookies, with Set-Cookie, private or no-store never reach another client',
    async (world) => {
      const handler = (request: IncomingMessage, response: ServerResponse): void => {
        const { pathname, searchParams } = new URL(request.url ?? '', 'http://x')
        const who = request.headers.cookie ?? request.headers['x-who'] ?? searchParams.get('who')
        if (pathname === '/set') response.setHeader('set-cookie', [`a=${who}`, `b=${who}`])
        if (pathname === '/private') response.setHeader('cache-control', 'private, max-age=60')
        if (pathname === '/no-store') response.setHeader('cache-control', 'no-store')
        setImmediate(() => response.end(`for ${who}`))
      }
      const open = (): Promise<Served> => world.serve(memoizeHandler(world.locker(), { ttl: HOUR }, handler))
      const servers = await Promise.all([open(), open()])
      const clients = Array.from({ length: 40 }, (_, i) => `client-${i}`)
      for (const [path, field] of [
        ['/page', 'cookie'],
        ['/set', 'x-who'],
        ['/private', 'x-who'],
        ['/no-store', 'x-who'],
        ['/page', 'authorization'],
      ] as const) {
        const asked = clients.map(async (who, i) => {
          const server = servers[i % 2] ?? assert.fail('there are two')
          const headers = {
            host: 'one.example',
            [field]: who,
            ...(field === 'authorization' && { 'x-who': who }),
          }
          const { text, headers: got } = await server.ask(path, { headers })
          assert.equal(text, `for ${who}`, `${path} by ${field}`)
          if (path === '/set') assert.deepEqual(got['set-cookie'], [`a=${who}`, `b=${who}`])
        })
        await Promise.all(asked)
      }
    },
  )

  test('memoize node - a response to a request with credentials is shared if it says so', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      runs++
      const control = request.url === '/public' ? 'public, max-age=60' : 'max-age=60'
      response.writeHead(200, { 'cache-control': control }).end(`${request.headers.authorization} ${runs}`)
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    const texts = async (path: string) => [
      (await server.ask(path, { headers: { authorization: 'a' } })).text,
      (await server.ask(path, { headers: { authorization: 'b' } })).text,
      (await server.ask(path)).text,
    ]
    assert.deepEqual(await texts('/public'), ['a 1', 'a 1', 'a 1'])
    assert.deepEqual(await texts('/page'), ['a 2', 'b 3', 'undefined 4'])
  })

  test('memoize node - an unsafe request is answered after its invalidations', async () => {
    await using world = await HttpWorld.onRedis()
    let value = 1
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      if (request.method === 'GET') response.writeHead(200, FRESH).end(`${request.url} ${value}`)
      else {
        value++
        // Its head and half of its body are sent before its end.
        response.writeHead(201, { location: '/other', 'content-type': 'text/plain' })
        response.write('do')
        setImmediate(() => response.end('ne', 'utf8'))
      }
    }
    const open = (): Promise<Served> => world.serve(memoizeHandler(world.locker(), {}, handler))
    const [one, two] = await Promise.all([open(), open()])
    const headers = { host: 'one.example' }
    for (const path of ['/page', '/other']) {
      for (const server of [one, two])
        assert.equal((await server.ask(path, { headers })).text, `${path} ${value}`)
    }
    for (let round = 0; round < 10; round++) {
      const made: Received = await one.ask('/page', { method: 'POST', headers, body: 'x' })
      assert.deepEqual([made.status, made.text, made.headers['content-type']], [201, 'done', 'text/plain'])
      for (const path of ['/page', '/other'])
        assert.equal((await one.ask(path, { headers })).text, `${path} ${value}`, `after ${value}`)
    }
    await until(async () => (await two.ask('/page', { headers })).text === `/page ${value}`, {
      what: 'the other',
    })
  })

  test('memoize node - bodies, Expect and unusual methods reach the handler unchanged', async () => {
    await using world = new HttpWorld()
    const handler = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      let text = ''
      for await (const chunk of request) text += chunk
      response.end(`${request.method} ${text}`)
    }
    const server = await world.serve(memoizeHandler(world.locker(), { ttl: HOUR }, handler))
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'QUERY'])
      assert.equal(
        (await server.ask('/', { method, body: 'body', headers: { 'content-length': 4 } })).text,
        `${method} body`,
      )
    const chunked = { 'transfer-encoding': 'chunked' }
    assert.equal((await server.ask('/', { method: 'GET', body: 'body', headers: chunked })).text, 'GET body')
    const expecting =
      'POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody'
    assert.match(
      await server.raw(expecting),
      /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK[\s\S]*POST body/,
    )
    const upgrading = 'GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: nothing\r\n\r\n'
    assert.match(await server.raw(upgrading), /200 OK[\s\S]*GET /)
  })

  test('memoize node - HTTP/1.0, pipelined requests and malformed ones', async () => {
    await using world = new HttpWorld()
    const server = await world.serve(
      memoizeHandler(world.locker(), { ttl: HOUR }, (request, response) => {
        setTimeout(
          () => response.end(`<${request.url} ${request.httpVersion}>`),
          request.url === '/slow' ? 50 : 0,
        )
      }),
    )
    const old = await server.raw('GET /old HTTP/1.0\r\n\r\n')
    assert.match(old, /^HTTP\/1\.1 200 OK\r\n[\s\S]*<\/old 1\.1>$/)
    const line = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nhost: x\r\n${more}\r\n`
    await server.ask('/hit', { headers: { host: 'x' } })
    const pipelined = await server.raw(
      line('/slow') + line('/hit') + line('/new') + line('/end', 'connection: close\r\n'),
    )
    assert.deepEqual(pipelined.match(/<.*?>/g), ['</slow 1.1>', '</hit 1.1>', '</new 1.1>', '</end 1.1>'])
    for (const broken of [
      'GET / HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n',
      'nonsense\r\n\r\n',
      'GET /\r\nx HTTP/1.1\r\n\r\n',
    ])
      assert.match(await server.raw(broken), /^HTTP\/1\.1 400 /)
    const two = await server.raw('GET /two HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\n\r\n')
    assert.doesNotMatch(two, /stored/, 'a request with two hosts is not stored')
  })
})
