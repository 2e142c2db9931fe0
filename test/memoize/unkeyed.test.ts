// Request fields on which frameworks act, and that the cache key does not cover.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import express from 'express'
import {
  type HeaderFields,
  HttpCache,
  type HttpCacheOptions,
  type HttpRequest,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../../src/memoize/index.ts'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { get } from '../support/http-cache-scene.ts'
import { HttpWorld } from '../support/http-scene.ts'

/** Responds with everything that it receives. */
const mirror = ({ method, headers }: OriginRequest): OriginResponse => ({
  status: 200,
  headers: { 'cache-control': 'max-age=60' },
  body: JSON.stringify({ method, ...headers }),
})

async function fieldsOf(answer: HttpResponse | Promise<HttpResponse>): Promise<Record<string, unknown>> {
  return JSON.parse(String((await answer).body))
}

const POISONS = [
  'x-forwarded-for',
  'x-real-ip',
  'forwarded',
  'x-original-url',
  'x-rewrite-url',
  'x-host',
  'x-forwarded-scheme',
  'x-http-method-override',
]

describe('http unkeyed', () => {
  for (const name of POISONS)
    test(`${name} has no effect on the responses of other clients`, async () => {
      await using world = new HttpWorld()
      const cache = new HttpCache(world.locker())
      await cache.handle(get({ [name]: 'evil' }), mirror)
      assert.equal((await fieldsOf(cache.handle(get(), mirror)))[name], undefined)
      const keyed = new HttpCache(world.locker({ prefix: 'keyed' }), { vary: [name] })
      assert.equal((await fieldsOf(keyed.handle(get({ [name]: 'mine' }), mirror)))[name], 'mine')
      assert.equal((await fieldsOf(keyed.handle(get({ [name]: 'other' }), mirror)))[name], 'other')
      assert.equal((await fieldsOf(keyed.handle(get(), mirror)))[name], undefined)
    })

  for (const name of ['x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port'])
    test(`${name} is in the key`, async () => {
      await using world = new HttpWorld()
      const cache = new HttpCache(world.locker())
      for (const value of ['a', 'b', undefined])
        assert.equal((await fieldsOf(cache.handle(get({ [name]: value }), mirror)))[name], value)
    })

  const asked = async (options: HttpCacheOptions): Promise<unknown> => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker(), options)
    await cache.handle(get({ 'x-forwarded-host': 'evil', 'x-forwarded-for': '1.2.3.4' }), mirror)
    const { 'x-forwarded-host': host, 'x-forwarded-for': address } = await fieldsOf(
      cache.handle(get({ 'x-forwarded-host': 'good' }), mirror),
    )
    return { host, address }
  }

  test('with a custom key, fields that it does not cover are stripped', async () => {
    const byUrl = ({ url }: HttpRequest): string => url
    const byHost = ({ headers }: HttpRequest): string => String(headers['x-forwarded-host'])
    assert.deepEqual(await asked({ key: byUrl }), { host: undefined, address: undefined })
    assert.deepEqual(await asked({ key: byHost }), { host: 'good', address: undefined })
    assert.deepEqual(await asked({ key: byUrl, unkeyed: 'allow' }), { host: 'evil', address: '1.2.3.4' })
    assert.deepEqual(await asked({ key: byUrl, unkeyed: 'bypass' }), { host: 'good', address: undefined })
  })

  test('a method override bypasses the cache where POST is shared', async () => {
    await using world = new HttpWorld()
    const options: HttpCacheOptions = { methods: ['POST'], key: ({ url }) => url }
    const cache = new HttpCache(world.locker(), options)
    const post = (headers: HeaderFields = {}): HttpRequest => get(headers, { method: 'POST' })
    await cache.handle(post({ 'x-http-method-override': 'DELETE' }), mirror)
    assert.equal((await fieldsOf(cache.handle(post(), mirror)))['x-http-method-override'], undefined)
  })

  test('a response that allows the Origin of its request varies by Origin', async () => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker())
    const cors = ({ headers }: OriginRequest): OriginResponse => ({
      status: 200,
      headers: { 'cache-control': 'max-age=60', 'access-control-allow-origin': headers['origin'] },
    })
    for (const origin of ['https://evil', 'https://good', undefined]) {
      const { headers } = await cache.handle(get({ origin }), cors)
      assert.equal(
        headers[headers.indexOf('access-control-allow-origin') + 1] === origin,
        origin !== undefined,
      )
      if (origin === undefined) assert.ok(!headers.includes('access-control-allow-origin'))
    }
  })

  test('with trust proxy in Express, a redirect for one client is not served to others', async () => {
    await using world = new HttpWorld()
    const app = express().set('trust proxy', true)
    app.get('/', memoizeHandler(world.locker(), { ttl: 60_000 }), (request, response) => {
      if (request.protocol === 'http') response.redirect(301, `https://${request.hostname}/`)
      else response.send(`${request.protocol} ${request.hostname}`)
    })
    const server = await world.serve(app)
    const ask = (proto: string, host: string) =>
      server.ask('/', { headers: { 'x-forwarded-proto': proto, 'x-forwarded-host': host } })
    assert.equal((await ask('http', 'a.example')).status, 301)
    assert.equal((await ask('https', 'a.example')).text, 'https a.example')
    assert.equal((await ask('https', 'b.example')).text, 'https b.example')
  })
})
