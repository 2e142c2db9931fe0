// Middlewares before the cache change a request: the cache decides by the request that the handler sees.

import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { describe, test } from 'node:test'
import express, { type Request } from 'express'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { CHAINS, type Step } from '../support/chains.ts'
import { HttpWorld, type Served } from '../support/http-scene.ts'

const HOUR = 3_600_000
const USERS = ['ann', 'bob', undefined, 'ann']

const texts = async (server: Served, path: string, field: string): Promise<string[]> => {
  const received: string[] = []
  for (const user of USERS)
    received.push((await server.ask(path, { headers: user === undefined ? {} : { [field]: user } })).text)
  return received
}

for (const [name, chain] of Object.entries(CHAINS)) {
  describe(`memoize changed request, ${name}`, () => {
    test(`memoize changed request - ${name}: a header that a middleware has removed does not come back`, async () => {
      await using world = new HttpWorld()
      const page: Step = ({ headers, rawHeaders }, response) =>
        response.end(headers['x-admin'] || /secret/.test(rawHeaders.join()) ? 'the admin page' : 'the page')
      const trust: Step = (request, _response, next) => {
        delete request.headers['x-admin']
        next()
      }
      const inChain = await world.serve(chain(trust, memoizeHandler(world.locker(), { ttl: HOUR }), page))
      const handler = memoizeHandler(world.locker(), { ttl: HOUR }, page as never)
      const ofItsOwn = await world.serve(chain(trust, handler))
      for (const server of [inChain, ofItsOwn]) {
        const forged = await server.ask('/', { headers: { 'x-admin': 'secret' } })
        assert.deepEqual([forged.text, (await server.ask('/')).text], ['the page', 'the page'])
      }
    })

    for (const field of ['authorization', 'cookie'])
      test(`memoize changed request - ${name}: ${field} that a middleware has set keeps users apart`, async () => {
        await using world = new HttpWorld()
        const signIn: Step = (request, _response, next) => {
          const token = request.headers['x-token']
          if (token !== undefined) request.headers[field] = String(token)
          next()
        }
        const account: Step = ({ headers }, response) =>
          response.end(`account of ${headers[field] ?? 'nobody'}`)
        const server = await world.serve(
          chain(signIn, memoizeHandler(world.locker(), { ttl: HOUR }), account),
        )
        const expected = USERS.map((user) => `account of ${user ?? 'nobody'}`)
        assert.deepEqual(await texts(server, '/', 'x-token'), expected)
      })

    test(`memoize changed request - ${name}: a response is private when credentials are set behind the cache`, async () => {
      await using world = new HttpWorld()
      const signIn: Step = (request, _response, next) => {
        const token = request.headers['x-token']
        if (token !== undefined) request.headers.authorization = String(token)
        setImmediate(next)
      }
      const account: Step = ({ headers }, response) =>
        response.end(`account of ${headers.authorization ?? 'nobody'}`)
      const server = await world.serve(chain(memoizeHandler(world.locker(), { ttl: HOUR }), signIn, account))
      assert.deepEqual((await texts(server, '/', 'x-token')).slice(0, 3), [
        'account of ann',
        'account of bob',
        'account of nobody',
      ])
    })

    test(`memoize changed request - ${name}: a response is private when its request changes while Redis is read`, async () => {
      await using world = await HttpWorld.onRedis()
      const late: Step = (request, _response, next) => {
        next()
        request.headers['x-user'] = request.headers['x-token']
      }
      const page: Step = ({ headers }, response) => response.end(`page of ${headers['x-user'] ?? 'nobody'}`)
      const server = await world.serve(chain(late, memoizeHandler(world.locker(), { ttl: HOUR }), page))
      assert.deepEqual((await texts(server, '/', 'x-token')).slice(0, 3), [
        'page of ann',
        'page of bob',
        'page of nobody',
      ])
    })

    test(`memoize changed request - ${name}: variants are stored by the headers that the handler sees`, async () => {
      await using world = new HttpWorld()
      const language: Step = (request, _response, next) => {
        request.headers['x-language'] = request.headers['x-user']
        next()
      }
      let runs = 0
      const page: Step = ({ headers }, response) => {
        runs++
        response.setHeader('vary', 'X-Language')
        response.end(`page in ${headers['x-language'] ?? 'any'}`)
      }
      const server = await world.serve(chain(language, memoizeHandler(world.locker(), { ttl: HOUR }), page))
      const expected = USERS.map((user) => `page in ${user ?? 'any'}`)
      for (let round = 0; round < 2; round++) assert.deepEqual(await texts(server, '/', 'x-user'), expected)
      assert.ok(runs <= 4, `${runs} runs`)
    })

    test(`memoize changed request - ${name}: conditions and Cache-Control are those that the handler sees`, async () => {
      await using world = new HttpWorld()
      let runs = 0
      const strict: Step = ({ headers }, _response, next) => {
        delete headers['if-none-match']
        if (headers['x-user']) headers['cache-control'] = 'no-store'
        next()
      }
      const page: Step = (_request, response) => {
        response.setHeader('etag', '"a"')
        response.end(`page ${++runs}`)
      }
      const server = await world.serve(chain(strict, memoizeHandler(world.locker(), { ttl: HOUR }), page))
      for (const headers of [{ 'if-none-match': '"a"' }, {}]) {
        const { status, text } = await server.ask('/', { headers })
        assert.deepEqual([status, text], [200, 'page 1'])
      }
      assert.equal((await server.ask('/', { headers: { 'x-user': 'ann' } })).text, 'page 2')
    })

    test(`memoize changed request - ${name}: headers of any type and case are compared as text`, async () => {
      await using world = new HttpWorld()
      const odd: Step = (request, _response, next) => {
        const headers = request.headers as Record<string, unknown>
        headers['x-number'] = Number(headers['x-user'] ?? 0)
        headers['X-Upper'] = headers['x-user']
        headers['x-none'] = undefined
        next()
      }
      const page: Step = (request, response) => {
        const headers = request.headers as Record<string, unknown>
        response.setHeader('vary', 'x-number, x-upper, constructor, __proto__')
        response.end(JSON.stringify([headers['x-number'], headers['X-Upper']]))
      }
      const server = await world.serve(chain(odd, memoizeHandler(world.locker(), { ttl: HOUR }), page))
      for (const user of ['1', '2', '1'])
        assert.equal((await server.ask('/', { headers: { 'x-user': user } })).text, `[${user},"${user}"]`)
    })
  })
}

test('memoize changed request - a rewritten URL is keyed by both of its forms', async () => {
  await using world = new HttpWorld()
  const app = express()
  app.use((req, _res, next) => {
    const tenant = req.headers['x-tenant']
    if (tenant) req.url = `/${tenant}${req.url}`
    next()
  })
  const handler = (req: IncomingMessage) => `${(req as Request).originalUrl} as ${(req as Request).url}`
  app.use('/sub', memoizeHandler(world.locker(), { ttl: HOUR }), (req, res) => void res.send(handler(req)))
  app.use(memoizeHandler(world.locker(), { ttl: HOUR }), (req, res) => void res.send(handler(req)))
  const server = await world.serve(app)
  const ask = async (path: string, tenant?: string) =>
    (await server.ask(path, { headers: tenant === undefined ? {} : { 'x-tenant': tenant } })).text
  for (let round = 0; round < 2; round++) {
    assert.equal(await ask('/page'), '/page as /page')
    assert.equal(await ask('/page', 'a'), '/page as /a/page')
    assert.equal(await ask('/page', 'b'), '/page as /b/page')
    assert.equal(await ask('/a/page'), '/a/page as /a/page')
    assert.equal(await ask('/sub?x=1'), '/sub?x=1 as /?x=1')
    assert.equal(await ask('/page', 'sub'), '/page as /page')
  }
})
