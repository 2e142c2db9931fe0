// A page of an Express 5 application, made once for all who ask for it.
// In your program: import { Locker } from 'soloflight'; import { memoizeHandler } from 'soloflight/memoize/node'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { Locker } from '../src/index.ts'
import { memoizeHandler } from '../src/memoize/node.ts'

const { REDIS_URL } = process.env
const locker = new Locker(REDIS_URL ? { redis: REDIS_URL } : {})

let made = 0
const app = express()
app.use(memoizeHandler(locker, { ttl: 60_000 })) // what follows is shared
app.get('/prices', async (_request, response) => {
  made++
  await sleep(200) // the database thinks
  response.json({ apples: 3, pears: 4 })
})
app.get('/basket', (_request, response) => {
  response.set('cache-control', 'private').send('yours alone')
})

const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')
// A port of its own for every run: a second run does not find the pages of the first.
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const answers = await Promise.all(Array.from({ length: 50 }, () => fetch(`${url}/prices`)))
const bodies = new Set(await Promise.all(answers.map((answer) => answer.text())))
console.log(`50 requests at once received ${[...bodies].join(' and ')}`)
console.log(`the page was made ${made} time${made === 1 ? '' : 's'}`)

const later = await fetch(`${url}/prices`)
console.log(`later: ${later.headers.get('cache-status')}`)

const etag = later.headers.get('etag') ?? ''
const same = await fetch(`${url}/prices`, { headers: { 'if-none-match': etag } })
console.log(`who has it already: ${same.status} ${same.statusText}`)

const mine = await fetch(`${url}/basket`)
console.log(`a private page: ${await mine.text()}; ${mine.headers.get('cache-status')}`)

server.close()
server.closeAllConnections()
await locker.close()
