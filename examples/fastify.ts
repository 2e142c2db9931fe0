// Pages of a Fastify server, made once for all who ask for them: the cache stands before the whole server.
// In your program: import { Locker } from 'soloflight'; import { memoizeHandler } from 'soloflight/memoize/node'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import { Locker } from '../src/index.ts'
import { memoizeHandler } from '../src/memoize/node.ts'

const { REDIS_URL } = process.env
const locker = new Locker(REDIS_URL ? { redis: REDIS_URL } : {})

let made = 0
const app = Fastify({
  serverFactory: (handler) => createServer(memoizeHandler(locker, { ttl: 60_000 }, handler)),
})
app.get('/prices', async () => {
  made++
  await sleep(200) // the database thinks
  return { apples: 3, pears: 4 }
})
app.get('/now', async (_request, reply) => {
  reply.header('cache-control', 'no-store')
  return 'never twice the same'
})

// A port of its own for every run: a second run does not find the pages of the first.
const url = await app.listen({ port: 0, host: '127.0.0.1' })

const answers = await Promise.all(Array.from({ length: 50 }, () => fetch(`${url}/prices`)))
const bodies = new Set(await Promise.all(answers.map((answer) => answer.text())))
console.log(`50 requests at once received ${[...bodies].join(' and ')}`)
console.log(`the page was made ${made} time${made === 1 ? '' : 's'}`)

const later = await fetch(`${url}/prices`)
console.log(`later: ${later.headers.get('cache-status')}`)
const now = await fetch(`${url}/now`)
console.log(`not stored: ${await now.text()}; ${now.headers.get('cache-status')}`)

await app.close()
await locker.close()
