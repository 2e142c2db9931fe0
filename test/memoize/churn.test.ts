// Many clients of a server with sessions, compression and a cache, on connections that are kept alive. A third of them
// disconnect at random moments; each of the others receives exactly its own response.

import assert from 'node:assert/strict'
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import compression from 'compression'
import session from 'express-session'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { CHAINS, type Step } from '../support/chains.ts'
import { HttpWorld } from '../support/http-scene.ts'
import { LOCALHOST } from '../support/ports.ts'

const DURATION = 1_500
const CLIENTS = 20
const KINDS = ['private', 'max-age=1', 'max-age=0, stale-while-revalidate=60']
const PIECE = 7_000

const upTo = (limit: number): number => Math.floor(Math.random() * limit)

/** The text of a page. Only a private page names its client. */
const textOf = (url: string, who: unknown): string => {
  const { searchParams } = new URL(url, 'http://x')
  const own = searchParams.get('kind') === 'private' ? `for ${who} ` : ''
  return `${own}${url} ${'x'.repeat(Number(searchParams.get('length')))} end`
}

/** Answers in one piece or in several, at once or late, with and without waiting for drain. */
const page: Step = (request, response) => {
  const { searchParams } = new URL(request.url ?? '', 'http://x')
  const text = textOf(request.url ?? '', request.headers['x-who'])
  response.setHeader('content-type', 'text/plain')
  response.setHeader('cache-control', String(searchParams.get('kind')))
  if (searchParams.get('pieces') !== '1') return setTimeout(() => response.end(text), upTo(40))
  let at = 0
  const goOn = (): void => {
    while (at < text.length) {
      const more = response.write(text.slice(at, at + PIECE))
      at += PIECE
      if (upTo(3) === 0) return void setTimeout(goOn, upTo(30))
      if (!more) return void response.once('drain', goOn)
    }
    response.end()
  }
  return setTimeout(goOn, upTo(60))
}

for (const [name, chain] of Object.entries(CHAINS))
  test(`memoize churn - ${name}: each client that stays receives exactly its own response`, async () => {
    await using world = new HttpWorld()
    const sessions = session({ secret: 'x', resave: false, saveUninitialized: true }) as unknown as Step
    const cache = memoizeHandler(world.locker(), {})
    const server = await world.serve(chain(sessions, compression() as unknown as Step, cache, page))
    const agent = new Agent({ keepAlive: true })
    const end = Date.now() + DURATION
    let received = 0

    const ask = async (who: number): Promise<void> => {
      const kind = encodeURIComponent(KINDS[upTo(KINDS.length)] ?? '')
      const length = [10, 3_000, 300_000][upTo(3)]
      const path = `/?id=${upTo(4)}&kind=${kind}&length=${length}&pieces=${upTo(2)}`
      const [zipped, method] = [upTo(2) === 0, upTo(8) === 0 ? 'HEAD' : 'GET']
      const headers = { 'x-who': who, ...(zipped && { 'accept-encoding': 'gzip' }) }
      const asked = httpRequest({ host: LOCALHOST, port: server.port, agent, path, method, headers })
      let left = false
      const leave = (): void => {
        left = true
        asked.destroy()
      }
      const leaving = upTo(3) === 0 ? setTimeout(leave, upTo(60)) : undefined
      try {
        const response = await new Promise<IncomingMessage>((resolve, reject) => {
          asked.once('response', resolve).once('error', reject).end()
        })
        const bytes = await buffer(response)
        const unzipped = response.headers['content-encoding'] === 'gzip' && method === 'GET'
        assert.ok(!unzipped || zipped, 'no client receives a coding that it does not accept')
        const text = String(unzipped ? gunzipSync(bytes) : bytes)
        const expected = method === 'HEAD' ? '' : textOf(path, who)
        assert.ok(
          text === expected,
          `${method} ${path}: ${text.length} bytes that begin with ${text.slice(0, 60)}`,
        )
        assert.deepEqual([response.statusCode, response.headers['set-cookie']?.length], [200, 1])
        received++
      } catch (error) {
        if (!left || error instanceof assert.AssertionError) throw error
      } finally {
        clearTimeout(leaving)
      }
    }

    const client = async (who: number): Promise<void> => {
      while (Date.now() < end || received <= CLIENTS) await ask(who)
    }
    try {
      await Promise.all(Array.from({ length: CLIENTS }, (_, who) => client(who)))
    } finally {
      agent.destroy()
    }
  })
