// memoizeHandler on node:http: responses that are shared, fresh and stale.

import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { describe, test } from 'node:test'
import pDefer from 'p-defer'
import { memoizeHandler } from '../../src/memoize/node.ts'
import { HttpWorld, onBoth } from '../support/http-scene.ts'
import { until } from '../support/wait.ts'

const HOUR = 3_600_000
const FRESH = { 'cache-control': 'max-age=60' }

describe('memoize node, shared responses', () => {
  onBoth('memoize node - concurrent requests at two servers run the handler once', async (world) => {
    const gate = pDefer<void>()
    let runs = 0
    const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      await gate.promise
      response.writeHead(201, 'Made', { ...FRESH, 'X-Made': ['a', 'b'], 'content-type': 'text/plain' })
      response.end('made once')
    }
    const servers = await Promise.all(
      [world.locker(), world.locker()].map((locker) => world.serve(memoizeHandler(locker, {}, handler))),
    )
    const headers = { host: 'one.example' }
    const crowd = Array.from({ length: 60 }, (_, i) => servers[i % 2]?.ask('/page', { headers }))
    await until(() => runs > 0, { what: 'the handler to run' })
    gate.resolve()
    for (const answer of await Promise.all(crowd)) {
      assert.deepEqual([answer?.status, answer?.statusText, answer?.text], [201, 'Made', 'made once'])
      assert.deepEqual(
        [answer?.headers['x-made'], answer?.headers['content-type'], answer?.headers['content-length']],
        ['a, b', 'text/plain', '9'],
      )
    }
    assert.equal(runs, 1)
  })

  onBoth(
    'memoize node - a streamed binary body reaches every client byte for byte, and is then served whole',
    async (world) => {
      const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 31) & 255))
      const handler = async (_: IncomingMessage, response: ServerResponse): Promise<void> => {
        response.writeHead(200, FRESH)
        await pipeline(
          Readable.from([bytes.subarray(0, 7), bytes.subarray(7, 200_000), bytes.subarray(200_000)]),
          response,
        )
      }
      const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
      const answers = await Promise.all(Array.from({ length: 5 }, () => server.ask('/')))
      for (const { bytes: received } of [...answers, await server.ask('/')])
        assert.ok(received.equals(bytes), 'the bytes')
      const hit = await server.ask('/')
      assert.equal(hit.headers['content-length'], '300000')
      assert.match(String(hit.headers['cache-status']), /hit/)
    },
  )

  test('memoize node - every way of writing a response gives the same as without the cache', async () => {
    await using world = new HttpWorld()
    const ways: Record<string, (response: ServerResponse, request: IncomingMessage) => unknown> = {
      end: (res) => res.end('x'),
      'end in latin1': (res) => res.end('caf\u00e9', 'latin1'),
      'end in hex': (res) => res.end('00ff10', 'hex'),
      'end with a Uint8Array': (res) => res.end(new Uint8Array([1, 2, 3])),
      'write in several encodings': (res) => {
        res.write('6162', 'hex')
        res.write('caf\u00e9')
        res.write(Buffer.from([0, 255]))
        res.end('eA==', 'base64')
      },
      'set, append, remove': (res) => {
        res.setHeader('x-a', ['1', '2'])
        res.appendHeader('x-a', '3')
        res.setHeader('X-B', 4)
        res.removeHeader('x-b')
        res.setHeaders(new Map([['x-c', '5']]))
        res.statusCode = 404
        res.statusMessage = 'Nothing here'
        res.end('none')
      },
      'writeHead with an object': (res) =>
        res.writeHead(202, 'Later', { 'x-a': ['1', '2'], 'x-b': 3 }).end('x'),
      'writeHead with an array': (res) => res.writeHead(200, ['x-a', '1', 'x-a', '2']).end('x'),
      'writeHead over setHeader': (res) => res.setHeader('x-a', '1').writeHead(200, { 'x-a': '2' }).end('x'),
      'its own length': (res) => res.writeHead(200, { 'content-length': '2' }).end('xy'),
      'its own coding': (res) => res.writeHead(200, { 'transfer-encoding': 'chunked' }).end('xy'),
      'no body': (res) => res.writeHead(204).end(),
      'flushed head, corked pieces': async (res) => {
        res.flushHeaders()
        res.cork()
        res.write('a')
        res.write('b', () => res.end('c'))
        res.uncork()
      },
      trailers: (res) => {
        res.writeHead(200, { trailer: 'x-sum' })
        res.write('body')
        res.addTrailers({ 'x-sum': '1' })
        res.end()
      },
      'early hints': (res) => {
        res.writeEarlyHints({ link: '</a.css>; rel=preload' })
        res.writeProcessing()
        res.end('late')
      },
      'a pipe': (res) => Readable.from(['a', 'b', 'c']).pipe(res),
      'the end of the request awaited': async (res, req) => {
        for await (const _ of req) assert.fail('there is no body')
        res.end('read')
      },
      'obs-text': (res) => res.setHeader('x-a', 'caf\u00e9').end('x'),
    }
    const handler = (request: IncomingMessage, response: ServerResponse): unknown => {
      response.setHeader('date', 'Sat, 21 Nov 2026 10:00:00 GMT')
      return ways[decodeURIComponent((request.url ?? '').slice(1))]?.(response, request)
    }
    const bare = await world.serve(handler)
    const memoized = await world.serve(memoizeHandler(world.locker(), { ttl: HOUR, errorTtl: HOUR }, handler))
    const OWN = [
      'connection',
      'keep-alive',
      'cache-status',
      'age',
      'content-length',
      'transfer-encoding',
      'trailer',
    ]
    for (const way of Object.keys(ways)) {
      const path = `/${encodeURIComponent(way)}`
      const seen = async (from: typeof bare) => {
        const { status, statusText, headers, bytes } = await from.ask(path)
        for (const name of OWN) delete headers[name]
        return { status, statusText, headers, bytes: bytes.toString('hex') }
      }
      const expected = await seen(bare)
      assert.deepEqual(await seen(memoized), expected, way)
      assert.deepEqual(await seen(memoized), expected, `${way}, out of the cache`)
    }
  })

  test('memoize node - one GET of the handler answers HEAD, Range and conditions', async () => {
    await using world = new HttpWorld()
    const seen: unknown[] = []
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      seen.push([request.method, request.headers['if-none-match'], request.headers.range])
      response.writeHead(200, { ...FRESH, etag: '"a"' }).end('0123456789')
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    const head = await server.ask('/', { method: 'HEAD', headers: { 'if-none-match': '"b"' } })
    assert.deepEqual([head.status, head.text, head.headers['content-length']], [200, '', '10'])
    const same = await server.ask('/', { headers: { 'if-none-match': '"a"' } })
    assert.deepEqual([same.status, same.text, same.headers.etag], [304, '', '"a"'])
    const part = await server.ask('/', { headers: { range: 'bytes=2-4' } })
    assert.deepEqual([part.status, part.text, part.headers['content-range']], [206, '234', 'bytes 2-4/10'])
    const beyond = await server.ask('/', { headers: { range: 'bytes=20-' } })
    assert.deepEqual([beyond.status, beyond.headers['content-range']], [416, 'bytes */10'])
    assert.equal((await server.ask('/')).text, '0123456789')
    assert.deepEqual(seen, [['GET', undefined, undefined]])
  })

  test('memoize node - with Vary every client receives its variant', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = (request: IncomingMessage, response: ServerResponse): void => {
      runs++
      response.writeHead(200, { ...FRESH, vary: 'Accept-Language' }).end(request.headers['accept-language'])
    }
    const server = await world.serve(memoizeHandler(world.locker(), {}, handler))
    for (let round = 0; round < 2; round++) {
      const languages = ['de', 'en', 'fr', 'de', 'en', 'fr']
      const answers = await Promise.all(
        languages.map((language) => server.ask('/', { headers: { 'accept-language': language } })),
      )
      assert.deepEqual(
        answers.map(({ text }) => text),
        languages,
      )
    }
    assert.ok(runs <= 4, `${runs} runs for three languages`)
  })

  test('memoize node - a method with a body is shared by a key that includes the body', async () => {
    await using world = new HttpWorld()
    let runs = 0
    const handler = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      runs++
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk)
      response.writeHead(200, FRESH).end(`${request.method} ${Buffer.concat(chunks)}`)
    }
    const options = {
      methods: ['POST'],
      key: ({ incoming }: { incoming?: IncomingMessage | undefined }) =>
        incoming?.headers['x-digest'] as string,
    }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    const big = 'x'.repeat(500_000)
    const post = (body: string, digest: string, headers = {}) =>
      server.ask('/', { method: 'POST', body, headers: { 'x-digest': digest, ...headers } })
    assert.equal((await post('one', '1')).text, 'POST one')
    assert.equal((await post('one', '1')).text, 'POST one')
    assert.equal((await post('two', '2', { 'transfer-encoding': 'chunked' })).text, 'POST two')
    assert.equal((await post(big, '3')).text, `POST ${big}`)
    assert.equal(runs, 3)
  })
})

describe('memoize node, stale', () => {
  test('memoize node - a stale response is served at once while one request refreshes it', async () => {
    await using world = new HttpWorld()
    const runs: ServerResponse[] = []
    const answer = (response: ServerResponse | undefined): void => {
      const headers = { 'cache-control': 'max-age=1, stale-while-revalidate=60', age: '1' }
      response?.writeHead(200, headers).end(`answer ${runs.length}`)
    }
    const server = await world.serve(
      memoizeHandler(world.locker(), {}, (_, response) => {
        if (runs.push(response) === 1) answer(response)
      }),
    )
    assert.equal((await server.ask('/')).text, 'answer 1')
    const crowd = await Promise.all(Array.from({ length: 20 }, () => server.ask('/')))
    for (const { text } of crowd) assert.equal(text, 'answer 1')
    await until(() => runs.length > 1, { what: 'the refresh' })
    assert.equal(runs.length, 2)
    answer(runs[1])
    await until(async () => (await server.ask('/')).text === 'answer 2', { what: 'the refreshed response' })
  })

  test('memoize node - a stale response is served when the handler fails', async () => {
    await using world = new HttpWorld()
    let fails = false
    const told: unknown[] = []
    const handler = (_: IncomingMessage, response: ServerResponse): void => {
      if (fails) throw new Error('down')
      response.writeHead(200, { 'cache-control': 'max-age=1, stale-if-error=60', age: '1' }).end('good')
    }
    const options = { onError: (error: unknown) => told.push(error) }
    const server = await world.serve(memoizeHandler(world.locker(), options, handler))
    assert.equal((await server.ask('/')).text, 'good')
    fails = true
    assert.deepEqual([(await server.ask('/')).text, told.length], ['good', 1])
  })

  test('memoize node - headers that middlewares set are kept, those of the response win', async () => {
    await using world = new HttpWorld()
    let clients = 0
    const handler = memoizeHandler(world.locker(), {}, (_, response) => {
      response.writeHead(200, { ...FRESH, 'x-both': 'stored', link: ['<a>', '<b>'] }).end('x')
    })
    const server = await world.serve((request, response) => {
      response.setHeader('x-both', 'client')
      response.setHeader('X-Client', ++clients)
      response.setHeader('set-cookie', `id=${clients}`)
      handler(request, response)
    })
    for (let client = 1; client <= 3; client++) {
      const { headers } = await server.ask('/')
      assert.deepEqual(
        [headers['x-both'], headers['x-client'], headers['set-cookie'], headers['link']],
        ['stored', `${client}`, [`id=${client}`], '<a>, <b>'],
      )
    }
  })

  test('memoize node - a writeHead that a middleware has wrapped is called; if it throws, the client receives 500', async () => {
    await using world = new HttpWorld()
    const handler = memoizeHandler(world.locker(), {}, (_, response) => {
      response.writeHead(200, FRESH).end('x')
    })
    let refuses = false
    const server = await world.serve((request, response) => {
      const { writeHead } = response
      response.writeHead = ((status: number, ...rest: unknown[]) => {
        if (refuses && status === 200) throw new TypeError('refused')
        assert.ok(!rest.some(Array.isArray), 'a wrapper need not accept an array of headers')
        response.setHeader('x-before', 'seen')
        return writeHead.apply(response, [status, ...rest] as never)
      }) as typeof writeHead
      handler(request, response)
    })
    for (let i = 0; i < 2; i++) {
      const { headers } = await server.ask('/')
      assert.deepEqual([headers['x-before'], headers['cache-control']], ['seen', FRESH['cache-control']])
    }
    refuses = true
    assert.deepEqual([(await server.ask('/')).status, (await server.ask('/new')).status], [500, 500])
  })
})
