// A node:http server and a Fetch handler whose pages are made once.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { Locker } from 'soloflight'
import { memoizeHandler as memoizeFetch } from 'soloflight/memoize/fetch'
import { memoizeHandler as memoizeNode } from 'soloflight/memoize/node'

const redis = process.env['REDIS_URL'] ?? ''
const PAGE = 'page '.repeat(2_000)
const pause = () => new Promise((resolve) => setTimeout(resolve, 20))

for (const options of [{}, { redis, prefix: `smoke-${process.pid}` }]) {
  const locker = new Locker(options)

  let made = 0
  const handler = memoizeFetch(locker, { ttl: 60_000 }, async (request) => {
    made += 1
    await pause()
    return new Response(`${new URL(request.url).pathname} ${PAGE}`, { headers: { ETag: '"1"' } })
  })
  const ask = () => handler(new Request('http://localhost/fetch'))
  for (const response of await Promise.all(Array.from({ length: 5 }, ask))) {
    assert.equal(await response.text(), `/fetch ${PAGE}`)
  }
  assert.match((await ask()).headers.get('Cache-Status') ?? '', /hit/)
  assert.equal(made, 1)

  let served = 0
  const page = memoizeNode(locker, { ttl: 60_000 }, async (request, response) => {
    served += 1
    await pause()
    response.setHeader('ETag', '"1"')
    response.end(`${request.url} ${PAGE}`)
  })
  const server = createServer(page).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(address !== null && typeof address === 'object')
  const url = `http://127.0.0.1:${address.port}/node`
  for (const response of await Promise.all(Array.from({ length: 5 }, () => fetch(url)))) {
    assert.deepEqual([response.status, await response.text()], [200, `/node ${PAGE}`])
  }
  assert.equal(served, 1)
  const unchanged = await fetch(url, { headers: { 'If-None-Match': '"1"' } })
  assert.equal(unchanged.status, 304)
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
  await locker.close()
}
