// A gateway that is there, but whose store does not answer it: what it refuses is sent again, on the same socket.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RemoteBus } from '../../../src/bus/remote/index.ts'
import { type Asked, FakeGateway } from '../../support/fake-gateway.ts'
import { until } from '../../support/wait.ts'

const UNAVAILABLE = { status: 503, error: 'unavailable' }

const OPENED: readonly (readonly [type: string, open: (bus: RemoteBus) => Promise<unknown>])[] = [
  ['attach', (bus) => bus.queue('q').attach()],
  ['subscribe', (bus) => bus.pubsub('t').subscribe()],
  ['connect', (bus) => bus.channel('c', 'a', 'b').connect()],
  ['object', (bus) => bus.persistify('o', { a: 1 }, ['a']).load()],
]

for (const [type, open] of OPENED) {
  test(`remote - ${type}, which a new socket restores, is refused once: it is sent again on that socket`, async () => {
    const asked: [nth: number, id: string | number][] = []
    await using gateway = await FakeGateway.start(({ id, type: askedType }, send, nth) => {
      if (askedType !== type) return false
      asked.push([nth, id])
      if (asked.length === 2) send({ id, problem: UNAVAILABLE })
      else send({ id, ok: null })
      // It ends the socket.
      if (asked.length === 1) setImmediate(() => send('oops'))
      return true
    })
    await using bus = gateway.bus()
    // That of an object ends with the socket.
    await open(bus).catch(() => {})
    await until(() => asked.length === 3, { what: 'the third request' })
    const [[, id] = assert.fail()] = asked
    assert.deepEqual(asked, [
      [1, id],
      [2, id],
      [2, id],
    ])
    assert.ok(bus.isOnline())
  })
}

const PACED: readonly (readonly [
  begins: string,
  ready: string,
  open: (bus: RemoteBus) => Promise<unknown>,
])[] = [
  [
    'consume',
    'ready',
    async (bus) => {
      const queue = bus.queue('q')
      await queue.attach()
      await queue.consume({ throttle: (ready) => ready() })
    },
  ],
  [
    'consume',
    'ready',
    async (bus) => {
      const queue = bus.queue('q')
      await queue.attach()
      queue
        .messages()
        .next()
        .catch(() => {})
    },
  ],
  ['connect', 'ready-channel', (bus) => bus.channel('c', 'a', 'b').connect({ throttle: (ready) => ready() })],
]

for (const [index, [begins, ready, open]] of PACED.entries()) {
  test(`remote - ${ready} (${index}) that is refused is told again until it is answered, and then no more`, async () => {
    let told = 0
    const onAsked = ({ id, type }: Asked, send: (message: unknown) => void) => {
      if (type === begins) {
        send({ id, ok: null })
        setImmediate(() => send({ sub: 's1', event: 'throttle' }))
      } else if (type === ready) send({ id, ...(++told < 3 ? { problem: UNAVAILABLE } : { ok: null }) })
      return type === begins || type === ready
    }
    await using gateway = await FakeGateway.start(onAsked)
    await using bus = gateway.bus()
    await open(bus)
    await until(() => told === 3, { what: 'the third' })
    // One more would come after half a second.
    const before = performance.now()
    await until(() => performance.now() - before > 700, { what: 'longer than the pause' })
    assert.equal(told, 3)
  })
}
