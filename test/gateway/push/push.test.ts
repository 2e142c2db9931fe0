// The jobs of a queue are posted to a URL: what the request is, and what the answer means for the job.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { createGateway, type PushWorkerOptions } from '../../../src/gateway/index.ts'
import { isRemote, type RemoteError } from '../../../src/index.ts'
import { type Answer, onBothWorlds } from '../../support/gateway.ts'
import { freePort } from '../../support/ports.ts'
import { answer, assertSigned, PushReceiver, SECRET } from '../../support/receiver.ts'
import { rejectionOf, until } from '../../support/wait.ts'

const TEXT = '{ "b":1.0, "a":9007199254740993, "a":2, "é":"\\u00e9" }'
const OTHER_SECRET = `whsec_${Buffer.alloc(32, 5).toString('base64')}`

function pushTo(url: string, more: Partial<PushWorkerOptions> = {}): { push: PushWorkerOptions[] } {
  return { push: [{ queue: 'jobs', url, allowInternal: true, backoff: 10, timeout: 20_000, ...more }] }
}

const failureOf = ({ json }: Answer) => (json as { failure: RemoteError['remote'] }).failure

onBothWorlds('push - a job is posted byte for byte and signed, and the answer is its result', async (w) => {
  await using receiver = await PushReceiver.start(answer(200, TEXT, { 'content-type': 'application/json' }))
  const queue = 'a b/c:é'
  const url = `${receiver.url.replace('//', '//me:pass@')}?x=1`
  const { call } = await w.open(pushTo(url, { queue, secret: [SECRET, OTHER_SECRET] }))
  const posted = await call('POST', `/q/${encodeURIComponent(queue)}?wait=20`, { body: TEXT })
  assert.deepEqual([posted.status, posted.text], [200, TEXT])
  const [request] = receiver.received
  assert.ok(request && receiver.received.length === 1)
  assert.deepEqual([request.method, request.path, request.body], ['POST', '/hook?x=1', TEXT])
  assertSigned(request, SECRET, OTHER_SECRET)
  const { headers } = request
  assert.match(String(headers['webhook-id']), /^[\w-]{22}$/)
  assert.equal(headers['x-job-id'], headers['webhook-id'])
  assert.equal(headers['x-job-attempt'], '1')
  assert.match(String(headers['x-job-fence']), /^[1-9]\d*$/)
  assert.equal(headers['x-job-queue'], encodeURIComponent(queue))
  assert.equal(headers['x-job-command'], 'job')
  assert.equal(headers['content-type'], 'application/json')
  assert.equal(headers.authorization, `Basic ${btoa('me:pass')}`)
})

onBothWorlds(
  'push - commands have workers of their own; without a secret a request is not signed',
  async (w) => {
    await using receiver = await PushReceiver.start((response, { headers }) =>
      answer(200, JSON.stringify(headers['x-job-command']))(response),
    )
    const { push } = pushTo(receiver.url)
    const { call } = await w.open({
      push: ['one', 'two'].flatMap((command) => push.map((each) => ({ ...each, command }))),
    })
    const posts = ['one', 'two'].map((command) =>
      call('POST', `/q/jobs?wait=20&command=${command}`, { body: '1' }),
    )
    assert.deepEqual(
      (await Promise.all(posts)).map(({ text }) => text),
      ['"one"', '"two"'],
    )
    for (const { headers } of receiver.received) assert.equal(headers['webhook-signature'], undefined)
  },
)

onBothWorlds('push - the body of a 2xx is JSON, or a text; an empty one is null', async (w) => {
  const json = { 'content-type': 'application/problem+json; charset=utf-8' }
  const plain = { 'content-type': 'text/plain' }
  const results = [
    [answer(200, '{"a":1.0}', json), '{"a":1.0}'],
    [answer(201, ' [1] '), ' [1] '],
    [answer(204), 'null'],
    [answer(200), 'null'],
    [answer(200, '\uFEFF1', json), '1'],
    [answer(200, 'ok "é"'), '"ok \\"é\\""'],
    [answer(202, '12', plain), '"12"'],
  ] as const
  await using receiver = await PushReceiver.start((response, { body }) =>
    results[Number(body)]?.[0](response),
  )
  const { call } = await w.open(pushTo(receiver.url))
  for (const [index, [, result]] of results.entries()) {
    const { status, text } = await call('POST', '/q/jobs?wait=20', { body: String(index) })
    assert.deepEqual([status, text], [200, result], `${index}`)
  }
})

onBothWorlds('push - an answer that is no result fails the job for good', async (w) => {
  const json = { 'content-type': 'application/json' }
  const answers = [
    [answer(200, '{"a":', json), /not JSON/],
    [answer(200, '['.repeat(2000) + ']'.repeat(2000), json), /nested too deeply/],
    [answer(400, 'no such field', json), /answered: 400/],
    [answer(404), /answered: 404/],
    [answer(410), /answered: 410/],
    [answer(422), /answered: 422/],
    [answer(301, '', { location: 'http://127.0.0.1:1/' }), /redirected, which is not followed: 301/],
    [answer(307, '', { location: '/elsewhere' }), /not followed: 307/],
    [answer(304), /not followed: 304/],
  ] as const
  await using receiver = await PushReceiver.start((response, { body }) =>
    answers[Number(body)]?.[0](response),
  )
  const { call } = await w.open(pushTo(receiver.url))
  for (const [index, [, message]] of answers.entries()) {
    const answered = await call('POST', '/q/jobs?wait=20', { body: String(index) })
    assert.equal(answered.status, 500)
    const failure = failureOf(answered)
    assert.match(failure.message, message)
    assert.equal(failure.code, 'E_PUSH')
    if (index === 2) assert.deepEqual(failure.fields, { status: 400, answer: 'no such field' })
  }
  assert.equal(receiver.received.length, answers.length)
  assert.ok(receiver.received.every(({ path }) => path === '/hook'))
})

onBothWorlds('push - a text that is not UTF-8 fails the job', async (w) => {
  await using receiver = await PushReceiver.start(
    (response) => void response.end(Buffer.from([0x22, 0xff, 0x22])),
  )
  const { call } = await w.open(pushTo(receiver.url))
  assert.match(failureOf(await call('POST', '/q/jobs?wait=20', { body: '1' })).message, /not UTF-8/)
})

onBothWorlds('push - 5xx, 408, 425, 429 and lost connections are retried, with the same id', async (w) => {
  const statuses = [500, 503, 599, 408, 425, 429]
  await using receiver = await PushReceiver.start((response, _, index) => {
    const status = statuses[index]
    if (status !== undefined) answer(status, 'busy')(response)
    else if (index === 6) response.socket?.resetAndDestroy()
    else if (index === 7)
      response.writeHead(200, { 'content-length': 5 }).write('1', () => response.destroy())
    else answer(200, '"done"')(response)
  })
  const { call } = await w.open(pushTo(receiver.url, { secret: SECRET }))
  const posted = await call('POST', '/q/jobs?wait=20&attempts=9', { body: '1' })
  assert.deepEqual([posted.status, posted.text], [200, '"done"'])
  const { received } = receiver
  assert.deepEqual(
    received.map(({ headers }) => headers['x-job-attempt']),
    Array.from({ length: 9 }, (_, n) => String(n + 1)),
  )
  assert.equal(new Set(received.map(({ headers }) => headers['webhook-id'])).size, 1)
  assert.equal(new Set(received.map(({ headers }) => headers['x-job-fence'])).size, 9)
  for (const request of received) assertSigned(request, SECRET)
  // Why each attempt failed is in the log.
  const id = received[0]?.headers['x-job-id']
  const log = (await call('GET', `/j/jobs/${id}/log`)).text
  for (const line of [
    'Attempt 1: The receiver answered: 500',
    'Attempt 7: The receiver cannot be reached: ECONNRESET',
  ])
    assert.ok(log.includes(line), log)
})

onBothWorlds('push - a job fails after its attempts, by default those of the worker', async (w) => {
  await using receiver = await PushReceiver.start(answer(500, 'x'.repeat(5_000)))
  const { call } = await w.open(pushTo(receiver.url, { attempts: 3 }))
  const failure = failureOf(await call('POST', '/q/jobs?wait=20', { body: '1' }))
  assert.deepEqual(failure.fields, { status: 500, answer: 'x'.repeat(1_000) })
  assert.equal(receiver.received.length, 3)
  await call('POST', '/q/jobs?wait=20&attempts=1', { body: '1' })
  assert.equal(receiver.received.length, 4)
})

onBothWorlds('push - Retry-After is waited for, if it is longer than the backoff', async (w) => {
  const at: number[] = []
  await using receiver = await PushReceiver.start((response, _, index) => {
    at.push(performance.now())
    if (index === 0) answer(503, '', { 'retry-after': '1' })(response)
    else answer(200, '"done"')(response)
  })
  const { call } = await w.open(pushTo(receiver.url))
  assert.equal((await call('POST', '/q/jobs?wait=20', { body: '1' })).text, '"done"')
  const [first = 0, second = 0] = at
  assert.ok(second - first >= 990, `${second - first} ms`)
})

onBothWorlds('push - no connection: the job is retried, and tells no address', async (w) => {
  const { call } = await w.open(pushTo(`http://127.0.0.1:${await freePort()}/`, { attempts: 2 }))
  const answered = await call('POST', '/q/jobs?wait=20', { body: '1' })
  assert.equal(failureOf(answered).message, 'The receiver cannot be reached: ECONNREFUSED')
  assert.doesNotMatch(answered.text, /127\.0\.0\.1/)
})

onBothWorlds(
  'push - the timeout is that of the whole request, however slowly its answer comes',
  async (w) => {
    await using receiver = await PushReceiver.start((response, { body }) => {
      // The one never answers, the other never ends.
      if (body === '1') return
      const trickle = setInterval(() => response.write('1'), 20)
      response.once('close', () => clearInterval(trickle))
    })
    const { call } = await w.open(pushTo(receiver.url, { timeout: 300, attempts: 1 }))
    for (const body of ['1', '2']) {
      const failure = failureOf(await call('POST', '/q/jobs?wait=20', { body }))
      assert.equal(failure.message, 'The receiver has not answered within 300 ms')
    }
    await until(() => receiver.left === 2, { what: 'both requests to end' })
  },
)

onBothWorlds('push - an answer is read up to the largest body, whatever it announces', async (w) => {
  await using receiver = await PushReceiver.start((response, { body }) => {
    if (body === '1') return void response.end(`"${'x'.repeat(1022)}"`)
    if (body === '2') return void response.end(`"${'x'.repeat(1023)}"`)
    // It never ends, and has no length.
    const chunk = Buffer.alloc(64 * 1024, 0x20)
    const send = () => {
      while (!response.destroyed && response.write(chunk));
    }
    response.on('drain', send)
    send()
  })
  const { call } = await w.open({ maxBody: 1024, ...pushTo(receiver.url) })
  assert.equal((await call('POST', '/q/jobs?wait=20', { body: '1' })).status, 200)
  for (const body of ['2', '3']) {
    const failure = failureOf(await call('POST', '/q/jobs?wait=20', { body }))
    assert.match(failure.message, /too large: the largest has 1024 bytes/)
  }
  await until(() => receiver.left === 1, { what: 'the endless answer to be left' })
})

onBothWorlds('push - a job that is cancelled ends its request', async (w) => {
  await using receiver = await PushReceiver.start(() => {})
  const { call } = await w.open(pushTo(receiver.url))
  const { id } = (await call('POST', '/q/jobs', { body: '1' })).json as { id: string }
  await receiver.receives(1)
  assert.equal((await call('POST', `/j/jobs/${id}/cancel`)).status, 200)
  await until(() => receiver.left === 1, { what: 'the request to end', timeout: 15_000 })
})

onBothWorlds('push - at most `concurrency` requests run at once', async (w) => {
  const open: (() => void)[] = []
  await using receiver = await PushReceiver.start((response) => void open.push(() => response.end('1')))
  const { call } = await w.open(pushTo(receiver.url, { concurrency: 3 }))
  const posts = Array.from({ length: 9 }, () => call('POST', '/q/jobs?wait=20', { body: '1' }))
  for (let round = 1; round <= 3; round++) {
    await receiver.receives(3 * round)
    assert.equal(open.length, 3)
    for (const end of open.splice(0)) end()
  }
  for (const { status } of await Promise.all(posts)) assert.equal(status, 200)
  assert.equal(receiver.received.length, 9)
})

onBothWorlds('push - internal addresses are not dialled, by whatever name', async (w) => {
  await using receiver = await PushReceiver.start(answer(200))
  const url = `http://localhost:${receiver.port}/`
  const { call } = await w.open(pushTo(url, { allowInternal: false, attempts: 2 }))
  const failure = failureOf(await call('POST', '/q/jobs?wait=20', { body: '1' }))
  assert.match(failure.message, /internal addresses only: `allowInternal` allows them/)
  assert.equal(receiver.received.length, 0)
  const allowed = await w.open(pushTo(url, { queue: 'allowed' }))
  assert.equal((await allowed.call('POST', '/q/allowed?wait=20', { body: '1' })).status, 200)
})

onBothWorlds(
  'push - closing, it lets requests run for the grace, and gives the rest back uncounted',
  async (w) => {
    const open: (() => void)[] = []
    await using receiver = await PushReceiver.start((response, _, index) => {
      if (index > 1) answer(200, '"second"')(response)
      else open.push(() => answer(200, '"first"')(response))
    })
    const queue = w.queue('jobs')
    const first = await w.open(pushTo(receiver.url))
    const [short, long, later] = await Promise.all(
      [1, 2, 3].map(async (n) => {
        if (n === 3) await receiver.receives(2)
        return await queue.enqueue('job', n, { dedupe: false })
      }),
    )
    assert.ok(short && long && later)
    await until(() => open.length === 2, { what: 'two requests', timeout: 15_000 })
    const done = (async () => {
      const results = await Promise.allSettled(
        [short, long].map((job) => queue.result(job, { timeout: 20_000 })),
      )
      return results.map((result) => result.status === 'fulfilled' && result.value)
    })()
    // One is answered within the grace, the other never.
    const closing = first.gateway.close({ grace: 1_000 })
    open[0]?.()
    await closing
    await until(() => receiver.left === 1, { what: 'the other request to end', timeout: 15_000 })
    await w.open(pushTo(receiver.url))
    const results = await done
    assert.deepEqual([...results].sort(), ['first', 'second'])
    assert.equal(await queue.result(later, { timeout: 20_000 }), 'second')
    // The second attempt of the job that was given back counts as its first.
    for (const { headers } of receiver.received) assert.equal(headers['x-job-attempt'], '1')
  },
)

test('push - a receiver that closes before it has read the body has answered all the same', async () => {
  // An answer at once, then the end of the connection.
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () =>
      socket.end('HTTP/1.1 422 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno'),
    )
  })
  const port = await freePort()
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  await using gateway = createGateway(pushTo(`http://127.0.0.1:${port}/`, { attempts: 1 }))
  const body = JSON.stringify('x'.repeat(800_000))
  const response = await gateway.fetch(
    new Request('http://localhost/q/jobs?wait=20', { method: 'POST', body }),
  )
  assert.match(await response.text(), /answered: 422/)
  server.close()
})

onBothWorlds('push - an answer 101 fails the job, and its place is free again', async (w) => {
  const sockets = new Set<Socket>()
  let isUpgrading = true
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
    socket.on('data', () =>
      socket.write(
        isUpgrading
          ? 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbytes'
          : 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1',
      ),
    )
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const { call } = await w.open(pushTo(`http://127.0.0.1:${port}/`, { concurrency: 1 }))
  const failure = failureOf(await call('POST', '/q/jobs?wait=20', { body: '1' }))
  assert.equal(failure.message, 'The receiver answered: 101')
  assert.deepEqual(failure.fields, { status: 101 })
  await until(() => sockets.size === 0, { what: 'its connection to end' })
  isUpgrading = false
  assert.equal((await call('POST', '/q/jobs?wait=20', { body: '2' })).text, '1')
  for (const socket of sockets) socket.destroy()
  server.close()
})

onBothWorlds('push - 102 is no answer yet: a cancel frees its place', async (w) => {
  const sockets = new Set<Socket>()
  let received = 0
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
    socket.on('data', () => {
      const status = received++ === 0 ? '102 Processing' : '200 OK\r\nContent-Length: 1'
      socket.write(`HTTP/1.1 ${status}\r\n\r\n${received > 1 ? '1' : ''}`)
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const { call } = await w.open(pushTo(`http://127.0.0.1:${port}/`, { concurrency: 1 }))
  const { id } = (await call('POST', '/q/jobs', { body: '1' })).json as { id: string }
  await until(() => received === 1, { what: 'the request', timeout: 15_000 })
  assert.equal((await call('POST', `/j/jobs/${id}/cancel`)).status, 200)
  assert.equal((await call('POST', '/q/jobs?wait=20', { body: '2' })).text, '1')
  for (const socket of sockets) socket.destroy()
  server.close()
})

test('push - options that are invalid are refused', async () => {
  const url = 'https://example.com/hook'
  const refused: [object, RegExp][] = [
    [{ queue: 'q' }, /`push\[0\]\.url` to be an http: or https: URL/],
    [{ url }, /Expected `name` to be a string/],
    [{ queue: '', url }, /Expected `name` to be a string of 1 to 256 characters/],
    [{ queue: 'q', command: '', url }, /Expected `command` to be a string of 1 to 256 characters/],
    [{ queue: 'q', url, backoff: 'x' }, /backoff/],
    [{ queue: 'q', url: 'ftp://x/hunter2' }, /`push\[0\]\.url` to be an http: or https: URL/],
    [{ queue: 'q', url, secret: 'hunter2' }, /`push\[0\]\.secret` to be whsec_/],
    [{ queue: 'q', url, secret: [] }, /`push\[0\]\.secret` to be whsec_/],
    [{ queue: 'q', url, timeout: 0 }, /`push\[0\]\.timeout` to be a number from 1 to 86400000/],
    [{ queue: 'q', url, concurrency: 1_001 }, /`push\[0\]\.concurrency`/],
    [{ queue: 'q', url, attempts: 0 }, /`push\[0\]\.attempts`/],
    [{ queue: 'q', url, retries: 3 }, /Unknown option `retries` in `push\[0\]`/],
    ...['127.0.0.1', '0x7f.1', '[::1]', '[::ffff:10.0.0.1]', '169.254.169.254', '2130706433'].map(
      (host): [object, RegExp] => [
        { queue: 'q', url: `http://${host}/` },
        /`push\[0\]\.url` is an internal address: `allowInternal` allows it/,
      ],
    ),
  ]
  for (const [push, message] of refused)
    assert.throws(
      () => createGateway({ push: [push as PushWorkerOptions] }),
      (error: Error) =>
        error instanceof TypeError && message.test(error.message) && !/hunter2/.test(error.message),
      JSON.stringify(push),
    )
  const twice = { queue: 'q', url }
  assert.throws(
    () => createGateway({ push: [twice, { ...twice, command: 'job' }] }),
    /same jobs as another one/,
  )
})

onBothWorlds('push - the failure of a push reaches submitters of the library too', async (w) => {
  await using receiver = await PushReceiver.start(answer(422, 'bad'))
  await w.open(pushTo(receiver.url))
  const error = await rejectionOf(w.queue('jobs').submit('job', 1, { timeout: 20_000 }))
  assert.ok(isRemote(error, 'PushError'))
  assert.deepEqual(error.remote.fields, { status: 422, answer: 'bad' })
})
