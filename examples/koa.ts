// Pages of a Koa application, made once for all who ask for them: the cache stands before the whole application.
// In your program: import { Locker } from 'soloflight'; import { memoizeHandler } from 'soloflight/memoize/node'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Koa from 'koa'
import { Locker } from '../src/index.ts'
import { memoizeHandler } from '../src/memoize/node.ts'

const { REDIS_URL } = process.env
const locker = new Locker(REDIS_URL ? { redis: REDIS_URL } : {})

let made = 0
const app = new Koa()
app.use(async (ctx) => {
  made++
  await sleep(200) // the database thinks
  if (ctx.path === '/basket') ctx.set('cache-control', 'private')
  ctx.body = ctx.path === '/basket' ? 'yours alone' : { apples: 3, pears: 4 }
})

const server = createServer(memoizeHandler(locker, { ttl: 60_000 }, app.callback()))
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
const mine = await fetch(`${url}/basket`)
console.log(`a private page: ${await mine.text()}; ${mine.headers.get('cache-status')}`)

server.close()
server.closeAllConnections()
await locker.close()
