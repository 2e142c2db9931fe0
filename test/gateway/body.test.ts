// How the listener for node:http reads bodies, over HTTP/1.1 and HTTP/2.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import * as http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import type { Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { createGateway, type Gateway } from '../../src/gateway/index.ts'
import { toNodeListener } from '../../src/gateway/node.ts'
import { until } from '../support/wait.ts'

type Listener = (request: IncomingMessage, response: ServerResponse) => void

/** A post whose body is sent by the test. */
interface Post {
  readonly body: Writable
  readonly answer: Promise<{ status: number; text: string }>
  /** Breaks the connection, or resets the stream. */
  cut(): void
}

interface Site extends AsyncDisposable {
  /** `isTogether`: the body is sent with the headers. */
  post(headers?: Record<string, string>, isTogether?: boolean): Post
}

async function listen(listener: Listener): Promise<Site> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    post(headers = {}, isTogether = false) {
      const post = request({ host: '127.0.0.1', port, path: '/q/jobs', method: 'POST', headers })
      post.on('error', () => {})
      if (!isTogether) post.flushHeaders()
      const answer = once(post, 'response').then(async ([response]: IncomingMessage[]) => ({
        status: response?.statusCode ?? 0,
        text: await text(response as IncomingMessage),
      }))
      answer.catch(() => {})
      return { body: post, answer, cut: () => post.destroy() }
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function listen2(listener: Listener): Promise<Site> {
  const server = http2.createServer(listener as never)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const session = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  return {
    post(headers = {}) {
      const stream = session.request({ ...headers, ':path': '/q/jobs', ':method': 'POST' })
      stream.on('error', () => {})
      const answer = once(stream, 'response').then(async ([response]: http2.IncomingHttpHeaders[]) => ({
        status: Number(response?.[':status']),
        text: await text(stream),
      }))
      answer.catch(() => {})
      return { body: stream, answer, cut: () => stream.destroy(new Error('cut')) }
    },
    async [Symbol.asyncDispose]() {
      session.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function jobs(gateway: Gateway): Promise<string[]> {
  const answer = await gateway.fetch(new Request('http://localhost/status/jobs?with_desc=1'))
  return ((await answer.json()) as { jobs: { job: unknown }[] }).jobs.map((each) => JSON.stringify(each))
}

const LONG = JSON.stringify('x'.repeat(200_000))

for (const [version, open] of [
  ['HTTP/1.1', listen],
  ['HTTP/2', listen2],
] as const) {
  test(`body - one that comes in pieces is read whole, ${version}`, async () => {
    await using gateway = createGateway()
    await using site = await open(toNodeListener(gateway))
    for (const headers of [{}, { 'content-length': String(LONG.length) }]) {
      const { body, answer } = site.post(headers)
      for (let at = 0; at < LONG.length; at += 50_000) {
        body.write(LONG.slice(at, at + 50_000))
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      body.end()
      assert.equal((await answer).status, 201)
    }
    const empty = site.post()
    empty.body.end()
    assert.equal((await empty.answer).status, 400)
    const stored = await gateway.fetch(new Request('http://localhost/qb/jobs'))
    assert.equal(await stored.text(), `[${LONG},${LONG}]`)
  })

  test(`body - one that is announced to be empty is not waited for, ${version}`, async () => {
    await using gateway = createGateway()
    await using site = await open(toNodeListener(gateway))
    const { answer } = site.post({ 'content-length': '0' })
    const { status, text: answered } = await answer
    assert.equal(status, 400)
    assert.match(answered, /job is missing/)
  })

  test(`body - one that is cut off is no job, ${version}`, async () => {
    await using gateway = createGateway()
    let arrived = 0
    let ended = 0
    const onRequest = toNodeListener(gateway)
    await using site = await open((request, response) => {
      arrived++
      void onRequest(request, response).then(() => ended++)
    })
    for (const headers of [{}, { 'content-length': '8' }]) {
      const { body, cut } = site.post(headers)
      body.write('1234')
      await until(() => arrived === ended + 1, { what: 'the request' })
      cut()
      await until(() => ended === arrived, { what: 'the request to end' })
    }
    assert.deepEqual(await jobs(gateway), [])
  })

  test(`body - one whose connection the server destroys is no job, ${version}`, async () => {
    await using gateway = createGateway()
    let ended = 0
    const onRequest = toNodeListener(gateway)
    await using site = await open((request, response) => {
      void onRequest(request, response).then(() => ended++)
      const destroy = () => {
        const session = (request as unknown as Partial<http2.Http2ServerRequest>).stream?.session
        if (session) session.destroy()
        else request.socket.destroy()
      }
      setTimeout(destroy, 50)
    })
    const { body } = site.post({ 'content-length': '8' })
    body.write('1234')
    await until(() => ended === 1, { what: 'the request to end' })
    assert.deepEqual(await jobs(gateway), [])
  })

  test(`body - one that was read before, as by a parser, has a status, ${version}`, async () => {
    await using gateway = createGateway()
    const onRequest = toNodeListener(gateway)
    await using site = await open(async (request, response) => {
      await text(request)
      await onRequest(request, response)
    })
    const { body, answer } = site.post()
    body.end('1234')
    const { status, text: answered } = await answer
    assert.equal(status, 400)
    assert.match(answered, /body is incomplete/)
  })

  test(`body - that others listen to as well is read, ${version}`, async () => {
    await using gateway = createGateway()
    const onRequest = toNodeListener(gateway)
    let seen = ''
    const listeners: Record<string, Listener> = {
      before: (request, response) => {
        request.on('data', (chunk) => (seen += chunk))
        void onRequest(request, response)
      },
      after: (request, response) => {
        void onRequest(request, response)
        request.on('data', (chunk) => (seen += chunk))
      },
      paused: (request, response) => {
        request.on('data', (chunk) => (seen += chunk)).pause()
        void onRequest(request, response)
      },
      decoding: (request, response) => {
        request.setEncoding('utf8').on('data', (chunk) => (seen += chunk))
        void onRequest(request, response)
      },
    }
    const json = '"\u00e4"'
    for (const [name, listener] of Object.entries(listeners)) {
      await using site = await open(listener)
      for (const headers of [{}, { 'content-length': String(Buffer.byteLength(json)) }]) {
        for (const isTogether of [true, false]) {
          seen = ''
          const { body, answer } = site.post(headers, isTogether)
          if (!isTogether) await new Promise((resolve) => setTimeout(resolve, 20))
          body.end(json)
          assert.equal((await answer).status, 201, name)
          assert.equal(seen, json)
          const stored = await gateway.fetch(new Request('http://localhost/q/jobs'))
          assert.equal(await stored.text(), json, `${name}, ${isTogether ? 'with' : 'behind'} its headers`)
        }
      }
    }
  })

  test(`body - that a runtime has read is taken from it, ${version}`, async () => {
    await using gateway = createGateway({ maxBody: 10 })
    const onRequest = toNodeListener(gateway)
    await using site = await open(async (request, response) => {
      await onRequest(Object.assign(request, { rawBody: Buffer.from(await text(request)) }), response)
    })
    for (const [sent, status] of [
      ['1234', 201],
      ['12345678901', 413],
    ] as const) {
      const { body, answer } = site.post()
      body.end(sent)
      assert.equal((await answer).status, status)
    }
    assert.equal(await (await gateway.fetch(new Request('http://localhost/q/jobs'))).text(), '1234')
  })

  test(`body - of a Request that a wrapper has made anew, that one is read, ${version}`, async () => {
    await using gateway = createGateway()
    const wrapped: Gateway = {
      ready: () => gateway.ready(),
      close: () => gateway.close(),
      [Symbol.asyncDispose]: () => gateway.close(),
      async fetch(request, bindings) {
        const body = await request.text()
        return gateway.fetch(new Request(request.url, { method: 'POST', body: `[${body}]` }), bindings)
      },
    }
    await using site = await open(toNodeListener(wrapped))
    const { body, answer } = site.post()
    body.end('1234')
    assert.equal((await answer).status, 201)
    const stored = await gateway.fetch(new Request('http://localhost/q/jobs'))
    assert.equal(await stored.text(), '[1234]')
  })
}

test('body - one that has come is a job, though its client is gone before it is read', async () => {
  await using gateway = createGateway()
  const onRequest = toNodeListener(gateway)
  let post: Post | undefined
  let ended = 0
  await using site = await listen(async (request, response) => {
    await until(() => request.complete, { what: 'the body' })
    const closed = once(response, 'close')
    post?.cut()
    await closed
    await onRequest(request, response)
    ended++
  })
  for (const headers of [{ 'content-length': '4' }, {}]) {
    post = site.post(headers)
    post.body.end('1234')
    await until(() => ended === 1, { what: 'the request to end' })
    assert.equal((await jobs(gateway)).length, 1)
    await gateway.fetch(new Request('http://localhost/q/jobs', { method: 'DELETE' }))
    ended = 0
  }
})
