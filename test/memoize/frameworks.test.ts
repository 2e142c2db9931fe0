// Fastify and Koa behind memoizeHandler, with the lines of their examples.

import assert from 'node:assert/strict'
import { createServer, request as httpRequest } from 'node:http'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import Fastify from 'fastify'
import Koa from 'koa'
import type { Locker } from '../../src/index.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { HttpWorld, onBoth, Served } from '../support/http-scene.ts'
import { LOCALHOST } from '../support/ports.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000

/** How often a page was rendered. */
interface Counts {
  runs: number
}

const BYTES = Buffer.from([0, 255, 13, 10, 128])

/** Begins at once, and takes long enough for a client to disconnect in between. */
async function* slowly(): AsyncGenerator<string> {
  for (let i = 0; i < 8; i++) {
    yield `${i} `
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
}

async function fastify(world: HttpWorld, locker: Locker, counts: Counts): Promise<Served> {
  const app = Fastify({
    serverFactory: (handler) => createServer(memoizeHandler(locker, { ttl: HOUR }, handler)),
  })
  app.get('/slow', async (request) => {
    counts.runs++
    await new Promise((resolve) => setTimeout(resolve, 50))
    return { method: request.method, ip: request.ip }
  })
  app.get('/bytes', (_request, reply) => reply.type('application/octet-stream').send(BYTES))
  app.get('/stream', (_request, reply) => reply.type('text/plain').send(Readable.from(['one ', 'two'])))
  app.get('/who', (request, reply) => {
    reply.header('set-cookie', `who=${request.headers['x-who']}`).send(`for ${request.headers['x-who']}`)
  })
  app.get('/fails', async () => {
    counts.runs++
    throw new Error('no database')
  })
  app.post('/slow', async (request) => ({ got: request.body }))
  app.get('/long', (_request, reply) => {
    counts.runs++
    return reply.header('cache-control', 'max-age=60').type('text/plain').send(Readable.from(slowly()))
  })
  await app.listen({ port: 0, host: LOCALHOST })
  return world.keep(new Served(app.server))
}

function koa(world: HttpWorld, locker: Locker, counts: Counts): Promise<Served> {
  const app = new Koa()
  app.silent = true
  app.use(async (ctx) => {
    const who = ctx.get('x-who')
    if (ctx.method === 'POST') {
      let text = ''
      for await (const chunk of ctx.req) text += chunk
      ctx.body = { got: JSON.parse(text) }
    } else if (ctx.path === '/slow') {
      counts.runs++
      await new Promise((resolve) => setTimeout(resolve, 50))
      ctx.body = { method: ctx.method, ip: ctx.ip }
    } else if (ctx.path === '/bytes') ctx.body = BYTES
    else if (ctx.path === '/stream') {
      ctx.type = 'text/plain'
      ctx.body = Readable.from(['one ', 'two'])
    } else if (ctx.path === '/long') {
      counts.runs++
      ctx.set('cache-control', 'max-age=60')
      ctx.type = 'text/plain'
      ctx.body = Readable.from(slowly())
    } else if (ctx.path === '/who') {
      ctx.cookies.set('who', who)
      ctx.body = `for ${who}`
    } else if (ctx.path === '/fails') {
      counts.runs++
      throw new Error('no database')
    }
  })
  return world.listen(createServer(memoizeHandler(locker, { ttl: HOUR }, app.callback())))
}

for (const [name, open] of Object.entries({ fastify, koa })) {
  describe(`memoize frameworks, ${name}`, () => {
    onBoth(
      `memoize frameworks - ${name}: concurrent requests at two servers render the page once`,
      async (world) => {
        const counts = { runs: 0 }
        const servers = await Promise.all([
          open(world, world.locker(), counts),
          open(world, world.locker(), counts),
        ])
        const headers = { host: 'one.example' }
        const crowd = Array.from({ length: 40 }, (_, i) => servers[i % 2]?.ask('/slow', { headers }))
        for (const answer of await Promise.all(crowd)) {
          assert.deepEqual(JSON.parse(answer?.text ?? ''), { method: 'GET', ip: '127.0.0.1' })
          assert.match(String(answer?.headers['content-type']), /^application\/json/)
        }
        assert.equal(counts.runs, 1)
        const head = await servers[0]?.ask('/slow', { method: 'HEAD', headers })
        assert.deepEqual([head?.status, head?.text, counts.runs], [200, '', 1])
      },
    )

    test(`memoize frameworks - ${name}: a disconnect truncates no other response, before the head or after`, async () => {
      await using world = new HttpWorld()
      const counts = { runs: 0 }
      const server = await open(world, world.locker(), counts)
      for (const [i, after] of [10, 120].entries()) {
        const path = `/long?${i}`
        const first = httpRequest({ host: LOCALHOST, port: server.port, path, agent: false })
        first.on('error', () => undefined).end()
        await until(() => counts.runs === i + 1, { what: 'the page to begin' })
        const second = server.ask(path)
        await new Promise((resolve) => setTimeout(resolve, after))
        first.destroy()
        assert.equal((await second).text, '0 1 2 3 4 5 6 7 ')
        assert.equal((await server.ask(path)).text, '0 1 2 3 4 5 6 7 ')
        assert.equal(counts.runs, i + 1)
      }
    })

    test(`memoize frameworks - ${name}: bytes, streams, cookies, bodies and errors`, async () => {
      await using world = new HttpWorld()
      const counts = { runs: 0 }
      const server = await open(world, world.locker(), counts)
      for (let round = 0; round < 2; round++) {
        assert.ok((await server.ask('/bytes')).bytes.equals(BYTES), 'the bytes')
        assert.equal((await server.ask('/stream')).text, 'one two')
      }
      assert.match(String((await server.ask('/stream')).headers['cache-status']), /hit/)
      const clients = await Promise.all(
        Array.from({ length: 20 }, (_, i) => server.ask('/who', { headers: { 'x-who': `${i}` } })),
      )
      for (const [i, { text, headers }] of clients.entries()) {
        assert.equal(text, `for ${i}`)
        assert.match(String(headers['set-cookie']), new RegExp(`^who=${i}(;|$)`))
      }
      const posted = await server.ask('/slow', {
        method: 'POST',
        body: '{"a":1}',
        headers: { 'content-type': 'application/json', 'content-length': 7 },
      })
      assert.equal(posted.text, '{"got":{"a":1}}')
      assert.equal((await server.ask('/fails')).status, 500)
      assert.equal((await server.ask('/fails')).status, 500)
      assert.equal(counts.runs, 2)
      assert.equal((await server.ask('/nowhere')).status, 404)
    })
  })
}
