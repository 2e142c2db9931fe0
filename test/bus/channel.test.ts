// Channels: two roles, each of one process at a time; messages, coming and going, the end.

import assert from 'node:assert/strict'
import type { Channel, ChannelOptions } from '../../src/bus/index.ts'
import { AlreadyAttachedError, ClosedError, NotAttachedError } from '../../src/errors.ts'
import { type BusWorld, onBothStores } from '../support/bus.ts'
import { rejectionOf, soon, until } from '../support/wait.ts'

const EVENTS = ['connect', 'disconnect', 'remote:connect', 'remote:disconnect', 'message', 'end'] as const

/** A channel object of a process of its own, and its events. */
function end(w: BusWorld, roles: readonly string[] = []) {
  const channel: Channel<unknown, unknown> = w.open().channel('chat', ...roles)
  const events: unknown[] = []
  for (const event of EVENTS)
    channel.on(event, (value?: unknown) => events.push(event === 'message' ? value : event))
  return { channel, events }
}

const told = (events: readonly unknown[], expected: readonly unknown[]) =>
  until(() => events.length >= expected.length, { what: `${expected}, got ${events}` }).then(() =>
    assert.deepEqual(events, expected),
  )

onBothStores('channels - either side may come first, and both learn that the other is there', async (w) => {
  const [a, b] = [end(w), end(w)]
  await b.channel.listen()
  await a.channel.connect()
  assert.ok(a.channel.isAttached() && b.channel.isBound())
  await told(a.events, ['connect', 'remote:connect'])
  await told(b.events, ['connect', 'remote:connect'])
  await a.channel.send({ text: 'hello' })
  await b.channel.send(null)
  await told(b.events, ['connect', 'remote:connect', { text: 'hello' }])
  await told(a.events, ['connect', 'remote:connect', null])
})

onBothStores('channels - messages that are sent before the peer is there wait, in order', async (w) => {
  const [a, b] = [end(w), end(w)]
  await a.channel.attach()
  for (const value of [1, 2, 3]) await a.channel.send(value)
  await b.channel.listen()
  await until(() => b.events.includes(3), { what: 'the messages' })
  assert.deepEqual(
    b.events.filter((event) => typeof event === 'number'),
    [1, 2, 3],
  )
})

onBothStores('channels - roles with names; several channels and roles do not mix', async (w) => {
  const [a, b, c] = [end(w, ['client', 'server']), end(w, ['server', 'client']), end(w)]
  await Promise.all([a.channel.connect(), b.channel.connect(), c.channel.connect()])
  await a.channel.send('to the server')
  await b.channel.send('to the client')
  await until(() => a.events.includes('to the client') && b.events.includes('to the server'), {
    what: 'the messages',
  })
  await told(c.events, ['connect'])
})

onBothStores(
  'channels - disconnect: the peer is told, the channel stays, another process can come',
  async (w) => {
    const [a, b, c] = [end(w), end(w), end(w)]
    await a.channel.connect()
    await b.channel.listen()
    await told(a.events, ['connect', 'remote:connect'])
    await b.channel.disconnect()
    await told(a.events, ['connect', 'remote:connect', 'remote:disconnect'])
    assert.deepEqual(b.events.at(-1), 'disconnect')
    await a.channel.send('for whoever comes')
    await c.channel.listen()
    await told(c.events, ['connect', 'remote:connect', 'for whoever comes'].sort()).catch(() => {})
    await until(() => c.events.length === 3, { what: 'the message' })
    await until(() => a.events.length === 4, { what: 'the next' })
    assert.deepEqual(a.events, ['connect', 'remote:connect', 'remote:disconnect', 'remote:connect'])
    await b.channel.detach()
    await b.channel.disconnect()
  },
)

onBothStores('channels - a taken role: the newcomer waits for it', async (w) => {
  const [a, b, c] = [end(w), end(w), end(w)]
  await a.channel.connect()
  await b.channel.listen()
  const taken = c.channel.listen()
  assert.equal(await soon(taken, 100), 'pending')
  assert.ok((await rejectionOf(c.channel.listen())) instanceof AlreadyAttachedError)
  assert.ok((await rejectionOf(c.channel.send('early'))) instanceof NotAttachedError)
  await a.channel.send('to b')
  await until(() => b.events.includes('to b'), { what: 'the message' })
  await b.channel.disconnect()
  await taken
  await until(() => a.events.length === 4, { what: 'the change' })
  assert.deepEqual(a.events, ['connect', 'remote:connect', 'remote:disconnect', 'remote:connect'])
  assert.ok(!c.events.includes('to b'))
})

onBothStores('channels - a wait for a role ends with disconnect', async (w) => {
  const [a, b] = [end(w), end(w)]
  await a.channel.connect()
  const waiting = rejectionOf(b.channel.connect())
  assert.equal(await soon(waiting, 50), 'pending')
  await b.channel.disconnect()
  assert.ok((await waiting) instanceof ClosedError)
  assert.deepEqual(b.events, [])
})

onBothStores('channels - disconnect while it connects leaves no role taken', async (w) => {
  const [a, b] = [end(w), end(w)]
  const connecting = rejectionOf(a.channel.connect())
  await a.channel.disconnect()
  assert.ok((await connecting) instanceof ClosedError)
  await b.channel.connect()
  await b.channel.disconnect()
  await a.channel.connect()
  assert.deepEqual(a.events, ['connect'])
})

onBothStores(
  'channels - end: the peer gets what was sent, then the end; both can send no more',
  async (w) => {
    const [a, b] = [end(w), end(w)]
    await a.channel.connect()
    await b.channel.listen()
    await told(b.events, ['connect', 'remote:connect'])
    for (const value of [1, 2]) void a.channel.send(value)
    await a.channel.end()
    await told(b.events, ['connect', 'remote:connect', 1, 2, 'end', 'disconnect'])
    assert.deepEqual(a.events, ['connect', 'remote:connect', 'disconnect'])
    for (const { channel } of [a, b]) {
      assert.ok((await rejectionOf(channel.send('more'))) instanceof ClosedError)
      assert.ok(!channel.isAttached())
    }
    assert.ok((await rejectionOf(a.channel.end())) instanceof NotAttachedError)
    // It can begin anew.
    await b.channel.connect()
    await a.channel.listen()
    await b.channel.send('again')
    await until(() => a.events.includes('again'), { what: 'the message' })
  },
)

onBothStores('channels - end reaches a peer that comes later', async (w) => {
  const [a, b] = [end(w), end(w)]
  await a.channel.connect()
  await a.channel.send('last words')
  await a.channel.end()
  await b.channel.listen()
  await until(() => b.events.includes('end'), { what: 'the end' })
  assert.deepEqual(
    b.events.filter((event) => event !== 'connect' && event !== 'disconnect'),
    ['last words', 'end'],
  )
})

onBothStores('channels - disconnect in the listener of the end ends all the same', async (w) => {
  const [a, b] = [end(w), end(w)]
  await a.channel.connect()
  await b.channel.listen({ reliable: true })
  b.channel.on('end', () => void b.channel.disconnect())
  await a.channel.end()
  await until(() => b.events.includes('disconnect'), { what: 'the end' })
  await b.channel.listen({ reliable: true })
  await a.channel.connect()
  await a.channel.send('anew')
  await until(() => b.events.includes('anew'), { what: 'the message' })
  assert.equal(b.events.filter((event) => event === 'end').length, 1)
})

onBothStores('channels - whoever waits for a role learns of the peer when it has the role', async (w) => {
  const [a, b, c] = [end(w), end(w), end(w)]
  await a.channel.connect()
  await b.channel.listen()
  const waiting = c.channel.listen()
  await a.channel.disconnect()
  await a.channel.connect()
  await until(() => b.events.filter((event) => event === 'remote:connect').length === 2, { what: 'the peer' })
  assert.deepEqual(c.events, [])
  await b.channel.disconnect()
  await waiting
  await until(() => c.events.length === 2, { what: 'its events' })
  assert.deepEqual(c.events, ['connect', 'remote:connect'])
})

onBothStores('channels - sendTo a role without taking one', async (w) => {
  const [a, b] = [end(w), end(w)]
  await a.channel.sendTo('remote', 'from outside')
  await b.channel.listen()
  await until(() => b.events.includes('from outside'), { what: 'the message' })
  assert.ok((await rejectionOf(a.channel.send('x'))) instanceof NotAttachedError)
  assert.ok((await rejectionOf(a.channel.sendTo('', 'x'))) instanceof TypeError)
  assert.ok(!b.events.includes('remote:connect'))
})

onBothStores('channels - reliable: what was not acknowledged comes again after a reconnection', async (w) => {
  const [a, b] = [end(w), end(w)]
  await a.channel.connect()
  await b.channel.listen({ reliable: true, prefetch: 3 })
  for (const value of [1, 2, 3]) await a.channel.send(value)
  await until(() => b.events.includes(3), { what: 'the messages' })
  await b.channel.ack(1)
  await b.channel.disconnect()
  b.events.length = 0
  await b.channel.listen({ reliable: true, prefetch: 3 })
  await until(() => b.events.includes(3), { what: 'the messages again' })
  assert.deepEqual(
    b.events.filter((event) => typeof event === 'number'),
    [2, 3],
  )
})

onBothStores('channels - options and names are checked', async (w) => {
  const { channel } = end(w)
  const wrong: ChannelOptions[] = [
    { ttl: 99 },
    { lease: 1 },
    { prefetch: 0 },
    { reliable: 1 as never },
    { x: 1 } as never,
  ]
  for (const options of wrong) assert.throws(() => channel.connect(options), TypeError)
  const bus = w.open()
  assert.throws(() => bus.channel(''), TypeError)
  assert.throws(() => bus.channel('c', 'same', 'same'), TypeError)
  assert.throws(() => bus.channel('c', '\0'), TypeError)
})
