// A page of a Hono application, made once for all who ask for it. The same line serves whatever has a `fetch`.
// In your program: import { Locker } from 'soloflight'; import { memoizeHandler } from 'soloflight/memoize/fetch'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createAdaptorServer } from '@hono/node-server'
import { Hono } from 'hono'
import { Locker } from '../src/index.ts'
import { memoizeHandler } from '../src/memoize/fetch.ts'

const { REDIS_URL } = process.env
const locker = new Locker(REDIS_URL ? { redis: REDIS_URL } : {})

let made = 0
const pages = new Hono().get('/prices', async (c) => {
  made++
  await sleep(200) // the database thinks
  return c.json({ apples: 3, pears: 4 })
})

const memoized = memoizeHandler(locker, { ttl: 60_000 }, pages.fetch)
const app = new Hono()
app.get('/health', (c) => c.text('fine')) // not shared
app.all('*', (c) => memoized(c.req.raw)) // or the whole application: serve({ fetch: memoizeHandler(locker, {}, app.fetch) })

const server = createAdaptorServer({ fetch: app.fetch })
server.listen(0, '127.0.0.1')
await once(server, 'listening')
// A port of its own for every run: a second run does not find the pages of the first.
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const answers = await Promise.all(Array.from({ length: 50 }, () => fetch(`${url}/prices`)))
const bodies = new Set(await Promise.all(answers.map((answer) => answer.text())))
console.log(`50 requests at once received ${[...bodies].join(' and ')}`)
console.log(`the page was made ${made} time${made === 1 ? '' : 's'}`)

const later = await fetch(`${url}/prices`)
console.log(`later: ${later.headers.get('cache-status')}`)
const health = await fetch(`${url}/health`)
console.log(`not shared: ${await health.text()}; ${health.headers.get('cache-status')}`)

server.close()
if ('closeAllConnections' in server) server.closeAllConnections()
await locker.close()
