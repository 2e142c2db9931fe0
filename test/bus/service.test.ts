// Services of a bus: requests, replies in parts, limits, disconnects. In memory and on two Redis.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bus, MemoryBus } from '../../src/bus/index.ts'
import { RemoteError } from '../../src/errors.ts'
import { Services } from '../../src/services/index.ts'
import { busServers } from '../support/bus-servers.ts'
import { rejectionOf, soon, timed, until } from '../support/wait.ts'

interface World extends AsyncDisposable {
  /** One more Bus, as another process would have it. */
  open(): Bus
}

async function inMemory(): Promise<World> {
  const store = new MemoryBus()
  const opened: Bus[] = []
  return {
    open() {
      const bus = new Bus({ store })
      opened.push(bus)
      return bus
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(opened.map((bus) => bus.disconnect({ grace: 0 })))
    },
  }
}

const WORLDS: [string, () => Promise<World>][] = [
  ['memory', inMemory],
  ['redis', () => busServers(2)],
]

function onBoth(name: string, run: (world: World) => Promise<void>): void {
  for (const [kind, make] of WORLDS) {
    test(`${name} (${kind})`, async () => {
      await using world = await make()
      await run(world)
    })
  }
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown }).code
}

onBoth('request - one of the objects that serve replies', async (world) => {
  const served: string[] = []
  for (const who of ['first', 'second']) {
    const service = world.open().service<number, number>('double')
    service.on('serving', () => served.push(`${who} serves`))
    service.on('request', (number, reply) => {
      served.push(who)
      reply(null, number * 2)
    })
    assert.equal(service.isServing(), false)
    await service.serve()
    assert.equal(service.isServing(), true)
  }
  assert.deepEqual(served, ['first serves', 'second serves'])
  const requester = world.open().service<number, number>('double')
  let connected = 0
  requester.on('connected', () => connected++)
  assert.equal(codeOf(await rejectionOf(requester.request(1))), 'E_NOT_ATTACHED')
  await requester.connect()
  assert.equal(codeOf(await rejectionOf(requester.connect())), 'E_ALREADY_ATTACHED')
  assert.deepEqual([connected, requester.isConnected()], [1, true])
  const replies = await Promise.all(Array.from({ length: 50 }, (_, number) => requester.request(number)))
  assert.deepEqual(
    replies,
    Array.from({ length: 50 }, (_, number) => number * 2),
  )
  assert.equal(served.length, 52)
})

onBoth('reply - an error keeps its message, code and fields; the first reply counts', async (world) => {
  const service = world.open().service<string, string>('echo')
  service.on('request', (text, reply) => {
    if (text === 'error') reply(Object.assign(new Error('no such text'), { code: 'E_TEXT', line: 5 }))
    reply(null, text)
    reply(new Error('too late'))
  })
  await service.serve()
  const requester = world.open().service<string, string>('echo')
  await requester.connect()
  assert.equal(await requester.request('hello'), 'hello')
  const error = await rejectionOf(requester.request('error'))
  assert.ok(error instanceof RemoteError)
  assert.deepEqual(
    [error.message, error.remote.code, error.remote.fields],
    ['no such text', 'E_TEXT', { line: 5 }],
  )
})

onBoth(
  'reply - what is known about a request: who asks, how long, whether it is still wanted',
  async (world) => {
    const service = world.open().service<null, string>('slow')
    const aborted = new Promise<number>((resolve) => {
      service.on('request', (_, { call }) => {
        call.signal.addEventListener('abort', () => resolve(call.left()))
      })
    })
    await service.serve()
    const requester = world.open().service<null, string>('slow')
    await requester.connect()
    const controller = new AbortController()
    const outcome = rejectionOf(requester.request(null, { reqTimeout: 60_000, signal: controller.signal }))
    assert.equal(await soon(aborted, 100), 'pending')
    controller.abort(new Error('not wanted'))
    assert.equal(codeOf(await outcome), 'E_ABORTED')
    const left = await aborted
    assert.ok(left > 50_000 && left <= 60_000, `${left} ms`)
  },
)

onBoth('request - waits up to reqTimeout: for a process that serves, and for its reply', async (world) => {
  const requester = world.open().service<string, string>('late')
  await requester.connect({ reqTimeout: 300 })
  const { error, ms } = await timed(() => requester.request('nobody'))
  assert.match(String(codeOf(error)), /^E_(NO_SERVICE|TIMEOUT)$/)
  assert.ok(ms >= 290 && ms < 2_000, `${ms} ms`)

  const early = requester.request('early', { reqTimeout: 10_000 })
  const service = world.open().service<string, string>('late')
  service.on('request', (text, reply) => {
    if (text !== 'silent') reply(null, text)
  })
  await service.serve()
  assert.equal(await early, 'early')
  const silent = await rejectionOf(requester.request('silent'))
  assert.deepEqual([codeOf(silent), (silent as { ran?: string }).ran], ['E_TIMEOUT', 'maybe'])
})

onBoth('stream - the parts of a reply, in order, then its result', async (world) => {
  const service = world.open().service<number, number>('count')
  service.on('request', async (to, reply) => {
    for (let number = 1; number < to; number++) reply(null, number, true)
    if (to < 0) reply(new Error('less than nothing'))
    else reply(null, to)
  })
  await service.serve()
  const requester = world.open().service<number, number>('count')
  await requester.connect()
  const read = async (to: number) => {
    const parts: number[] = []
    for await (const part of requester.stream(to)) parts.push(part)
    return parts
  }
  assert.deepEqual(
    await read(500),
    Array.from({ length: 500 }, (_, index) => index + 1),
  )
  assert.deepEqual(await read(1), [1])
  assert.equal(((await rejectionOf(read(-1))) as Error).message, 'less than nothing')
  // Without reading the parts, only the result arrives.
  assert.equal(await requester.request(5), 5)
})

onBoth('stream - of an AsyncIterable; leaving the loop ends it at the one that serves', async (world) => {
  const service = world.open().service<null, number>('endless')
  let ended = false
  async function* numbers(): AsyncGenerator<number> {
    try {
      for (let number = 0; ; number++) yield number
    } finally {
      ended = true
    }
  }
  service.on('request', (_, reply) => reply(null, numbers()))
  await service.serve()
  const requester = world.open().service<null, number>('endless')
  await requester.connect()
  let last = 0
  for await (const number of requester.stream(null)) {
    last = number
    if (number === 200) break
  }
  assert.equal(last, 200)
  await until(() => ended, { what: 'the end of the iterable' })
  const unconnected = world.open().service<null, number>('endless')
  assert.equal(codeOf(await rejectionOf(unconnected.stream(null).next())), 'E_NOT_ATTACHED')
})

onBoth('serve - max requests and no more; then it can serve again', async (world) => {
  const service = world.open().service<number, number>('some')
  let taken = 0
  service.on('request', (number, reply) => {
    taken++
    reply(null, number)
  })
  await service.serve({ max: 3 })
  const requester = world.open().service<number, number>('some')
  await requester.connect({ reqTimeout: 500 })
  const outcomes = await Promise.allSettled([1, 2, 3, 4, 5].map((number) => requester.request(number)))
  assert.equal(taken, 3)
  assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 3)
  assert.equal(service.isServing(), false)
  await service.serve()
  assert.equal(await requester.request(6), 6)
})

onBoth('serve - twice, with a backlog beside max, without a listener', async (world) => {
  const bus = world.open()
  const service = bus.service<number, number>('twice')
  await service.serve()
  assert.equal(codeOf(await rejectionOf(service.serve())), 'E_ALREADY_ATTACHED')
  assert.equal(codeOf(await rejectionOf(bus.service('twice').serve())), 'E_DUPLICATE_HANDLER')
  assert.ok((await rejectionOf(bus.service('other').serve({ max: 1, backlog: 1 }))) instanceof TypeError)
  assert.ok((await rejectionOf(bus.service('other').serve({ max: 0 }))) instanceof TypeError)
  assert.ok((await rejectionOf(bus.service('other').serve({ capacity: 0 }))) instanceof TypeError)
  const requester = world.open().service<number, number>('twice')
  assert.ok((await rejectionOf(requester.connect({ reqTimeout: -1 }))) instanceof TypeError)
  await requester.connect()
  assert.match(String(await rejectionOf(requester.request(1))), /no listener/)
})

onBoth('disconnect - requests under way are answered within the grace, on both sides', async (world) => {
  const service = world.open().service<number, number>('grace')
  const events: string[] = []
  let answer = () => {}
  const asked = new Promise<void>((resolve) => {
    service.on('request', (number, reply) => {
      resolve()
      answer = () => reply(null, number)
    })
  })
  service.on('disconnect', () => events.push('service'))
  await service.serve()
  const requester = world.open().service<number, number>('grace')
  requester.on('disconnect', () => events.push('requester'))
  await requester.connect()
  const request = requester.request(5, { reqTimeout: 20_000 })
  await asked
  const disconnecting = [service.disconnect(), requester.disconnect()]
  assert.deepEqual([service.isServing(), requester.isConnected()], [false, false])
  assert.equal(codeOf(await rejectionOf(requester.request(6))), 'E_NOT_ATTACHED')
  assert.equal(await soon(Promise.race(disconnecting), 100), 'pending')
  answer()
  assert.equal(await request, 5)
  await Promise.all(disconnecting)
  assert.deepEqual(events.sort(), ['requester', 'service'])
  await service.disconnect()
  assert.equal(events.length, 2)
})

onBoth('disconnect - after the grace, requests under way are ended', async (world) => {
  const service = world.open().service<number, number>('endless')
  const asked = new Promise<void>((resolve) => service.on('request', () => resolve()))
  await service.serve()
  const requester = world.open().service<number, number>('endless')
  await requester.connect()
  const outcome = rejectionOf(requester.request(5, { reqTimeout: 60_000 }))
  await asked
  const { ms } = await timed(() => requester.disconnect({ grace: 100 }))
  assert.ok(ms >= 90 && ms < 2_000, `${ms} ms`)
  assert.equal(codeOf(await outcome), 'E_ABORTED')
  assert.throws(() => service.disconnect({ grace: -1 }), TypeError)
})

onBoth('bus.disconnect - ends services and requests; they begin anew after a connect', async (world) => {
  const [bus, other] = [world.open(), world.open()]
  const service = bus.service<number, number>('again')
  let ended = 0
  service.on('request', (number, reply) => reply(null, number))
  service.on('disconnect', () => ended++)
  await service.serve()
  const requester = other.service<number, number>('again')
  await requester.connect()
  assert.equal(await requester.request(1), 1)
  await bus.disconnect()
  assert.deepEqual([service.isServing(), ended], [false, 1])
  assert.equal(codeOf(await rejectionOf(service.serve())), 'E_CLOSED')
  await bus.connect()
  await service.serve()
  assert.equal(await requester.request(2), 2)
  await other.disconnect()
  assert.equal(requester.isConnected(), false)
})

test('service - a Services object on the same Redis reaches it: it is the same engine', async () => {
  await using t = await busServers(1)
  const service = t.open().service<number, number>('double')
  service.on('request', (number, reply) => reply(null, number * 2))
  await service.serve()
  await using services = new Services({ redis: t.urls[0] ?? '' })
  assert.equal(await services.require('double').emit('request', 4), 8)
})
