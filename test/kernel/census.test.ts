// The census: what live processes have, asked by one of them.

import assert from 'node:assert/strict'
import { hostname } from 'node:os'
import { test } from 'node:test'
import type { Redis } from 'ioredis'
import {
  ClosedError,
  Connection,
  Lease,
  Locker,
  MemoryStore,
  RedisQueue,
  UnavailableError,
} from '../../src/index.ts'
import type { CensusOptions, CensusResult } from '../../src/kernel/census.ts'
import { newId, recordKey } from '../../src/kernel/keys.ts'
import type { LockerCensusItem } from '../../src/locker/flight/flight-census.ts'
import type { QueueCensusItem } from '../../src/queue/store/census-item.ts'
import { MemoryQueueStore } from '../../src/queue/store/memory-store.ts'
import { RedisCluster } from '../support/cluster.ts'
import { LockerProcesses } from '../support/locker-process.ts'
import { QueueProcesses, told } from '../support/queue-process.ts'
import { type Setup, setup } from '../support/setup.ts'
import { rejectionOf, timed, until } from '../support/wait.ts'

/** A time limit that no test waits for. */
const LONG = 30_000

const INBOX = /^soloflight:1:inbox:([\w-]{22})$/

/** A connection that messages reach. It answers as a process of its own. */
async function connected(redis: ConstructorParameters<typeof Connection>[0]): Promise<Connection> {
  const connection = new Connection(redis)
  await connection.census({ layer: 'none', within: LONG, maxItems: 1 })
  return connection
}

/** Takes a census when the question that a subscriber sees is answered by the test alone. */
async function askedBy(
  connection: Connection,
  client: Redis,
  options: CensusOptions,
): Promise<{ inbox: string; nonce: string; result: Promise<CensusResult> }> {
  const question = new Promise<string>((resolve) => {
    client.on('message', (_channel, message: string) => {
      if (message.startsWith('1c ')) resolve(message)
    })
  })
  await client.subscribe(connection.broadcastChannel)
  const result = connection.census(options)
  const [, inbox = '', nonce = ''] = /^1c ([\w-]{22})([\w-]{22}) /.exec(await question) ?? []
  return { inbox: connection.inboxPrefix + inbox, nonce, result }
}

function pidsOf({ answers }: CensusResult<unknown>): number[] {
  return answers.map(({ pid }) => pid).sort((one, other) => one - other)
}

function numbered(count: number): { number: number }[] {
  return Array.from({ length: count }, (_, number) => ({ number }))
}

/** Locker processes that have subscribed, each with a lease for a key of its own. */
async function holders(t: Setup, count: number): Promise<LockerProcesses> {
  const processes = await LockerProcesses.start(...Array.from({ length: count }, () => ({ redis: t.redis })))
  for (const [index, child] of processes.all.entries()) {
    await child.call('request', `key ${index}`)
    await until(async () => (await child.call('stats')).subscribed, { what: 'the subscription of a child' })
  }
  return processes
}

test('census - every process answers with its place, its age and what it has; the last answer ends it', async () => {
  await using t = await setup()
  await using processes = await holders(t, 2)
  await using connection = new Connection(t.redis)
  const { value, ms } = await timed(connection.census<LockerCensusItem>({ layer: 'locker', within: LONG }))
  const result = value as CensusResult<LockerCensusItem>
  assert.ok(ms < LONG / 3, `${ms} ms`)
  assert.deepEqual([result.complete, result.silent], [true, 0])
  const pids = [process.pid, ...processes.all.map(({ pid }) => pid)]
  assert.deepEqual(
    pidsOf(result),
    pids.sort((one, other) => one - other),
  )
  assert.equal(new Set(result.answers.map(({ process }) => process)).size, 3)
  for (const { host, since, complete } of result.answers) {
    assert.equal(host, hostname().slice(0, 48))
    assert.ok(since > Date.now() - 10 * 60_000 && since <= Date.now(), `${since}`)
    assert.equal(complete, true)
  }
  const held = result.answers.flatMap(({ items }) => items)
  assert.deepEqual(held.map(({ key, state }) => `${state} ${key}`).sort(), ['held key 0', 'held key 1'])
})

test('census - a process that was killed is not there; a frozen one is counted as silent, and answers when it is thawed', async () => {
  await using t = await setup()
  await using processes = await holders(t, 3)
  await using connection = await connected(t.redis)
  await processes.at(0).kill()
  await processes.at(1).freeze()
  const without = await until(
    async () => {
      const result = await connection.census({ layer: 'locker', within: 400 })
      // The server may not have read the end of the killed one yet.
      return result.silent === 1 && result
    },
    { what: 'one silent process', timeout: 10_000 },
  )
  assert.equal(without.complete, false)
  assert.deepEqual(
    pidsOf(without),
    [process.pid, processes.at(2).pid].sort((one, other) => one - other),
  )
  processes.at(1).thaw()
  const again = await connection.census({ layer: 'locker', within: LONG })
  assert.deepEqual([again.complete, again.silent, again.answers.length], [true, 0, 3])
})

test('census - 5,000 items come in pages, in order; a cap cuts them and says so', async () => {
  await using t = await setup()
  await using one = await connected(t.redis)
  await using asker = await connected(t.redis)
  const padding = 'x'.repeat(100)
  one.contribute('flood', () => numbered(5_000).map((item) => ({ ...item, padding })))
  const all = await asker.census<{ number: number }>({ layer: 'flood', within: LONG })
  assert.deepEqual([all.complete, all.silent], [true, 0])
  const flood = all.answers.find(({ items }) => items.length > 0)
  assert.deepEqual(
    flood?.items.map(({ number }) => number),
    numbered(5_000).map(({ number }) => number),
  )
  const some = await asker.census<{ number: number }>({ layer: 'flood', within: LONG, maxItems: 1_000 })
  assert.equal(some.complete, false)
  const cut = some.answers.find(({ items }) => items.length > 0)
  assert.deepEqual([cut?.items.length, cut?.complete, cut?.items[0]?.number], [1_000, false, 0])
  // The cap is for all answers together.
  asker.contribute('flood', () => numbered(5_000))
  const both = await asker.census({ layer: 'flood', within: LONG, maxItems: 6_000 })
  assert.equal(both.complete, false)
  assert.equal(both.answers.flatMap(({ items }) => items).length, 6_000)
})

test('census - a process sends 32 pages at most, of 64 KiB at most, and what no page can hold is left out', async () => {
  await using t = await setup()
  await using one = await connected(t.redis)
  await using asker = await connected(t.redis)
  let yielded = 0
  one.contribute('large', function* () {
    for (yielded = 0; yielded < 1_000; yielded++) yield { text: 'x'.repeat(20_000) }
  })
  const client = await t.client()
  const sizes: number[] = []
  client.on('pmessage', (_pattern, _channel, message: string) => sizes.push(message.length))
  await client.psubscribe('soloflight:1:inbox:*')
  const { complete, answers } = await asker.census({ layer: 'large', within: LONG })
  const large = answers.find(({ items }) => items.length > 0)
  assert.deepEqual([complete, large?.complete, large?.items.length], [false, false, 96])
  assert.equal(yielded, 96)
  assert.ok(Math.max(...sizes) <= 64 * 1024)
  one.contribute('odd', () => [{ text: 'x'.repeat(70_000) }, { text: 'fits' }])
  const odd = await asker.census({ layer: 'odd', within: LONG })
  assert.equal(odd.complete, false)
  assert.deepEqual(
    odd.answers.flatMap(({ items }) => items),
    [{ text: 'fits' }],
  )
})

test('census - answers that are malformed, forged or late are dropped', async () => {
  await using t = await setup()
  await using asker = await connected(t.redis)
  asker.contribute('layer', () => [{ true: 1 }])
  const client = await t.client()
  // It never answers, so the census goes on until its time is over.
  const { inbox, nonce, result } = await askedBy(asker, await t.client(), { layer: 'layer', within: 800 })
  const origin = '"host":"h","pid":1,"since":1'
  const [head, body] = [`1${nonce}c`, `{${origin},"items":[{"forged":1}]}`]
  const name = 'a'.repeat(16)
  const forged = [
    `1${newId()}c ${name} 0 1 1\n${body}`,
    `2${nonce}c ${name} 0 1 1\n${body}`,
    `1${nonce}x ${name} 0 1 1\n${body}`,
    `${head} short 0 1 1\n${body}`,
    `${head} ${name} -1 1 1\n${body}`,
    `${head} ${name} 32 1 1\n${body}`,
    `${head} ${name} 0 2 1\n${body}`,
    `${head} ${name} 0 1\n${body}`,
    `${head} ${name} 0 1 1\n`,
    `${head} ${name} 0 1 1\n[]`,
    `${head} ${name} 0 1 1\n{${origin}}`,
    `${head} ${name} 0 1 1\n{${origin},"items":[1,null,[]]}`,
    `${head} ${name} 0 1 1\n{"host":1,"pid":1,"since":1,"items":[]}`,
    `${head} ${name} 0 1 1\n{"host":"h","pid":-1,"since":1,"items":[]}`,
    `${head} ${name} 0 1 1\n{"host":"h","pid":1,"since":"now","items":[]}`,
    `${head} ${name} 0 1 1\n{${origin},"items":[{"large":"${'x'.repeat(70_000)}"}]}`,
  ]
  for (const message of forged) await client.publish(inbox, message)
  const { answers, complete, silent } = await result
  assert.deepEqual([complete, silent], [false, 1])
  assert.deepEqual(
    answers.map(({ pid, items }) => [pid, items]),
    [[process.pid, [{ true: 1 }]]],
  )
  // The nonce means nothing any more.
  await client.publish(inbox, `${head} ${name} 0 1 1\n${body}`)
  assert.equal((await asker.census({ layer: 'none', within: 300 })).answers.length, 1)
})

test('census - pages that contradict an answer do not become part of it', async () => {
  await using t = await setup()
  await using asker = await connected(t.redis)
  const client = await t.client()
  const { inbox, nonce, result } = await askedBy(asker, await t.client(), { layer: 'layer', within: 800 })
  const page = (fields: string, host: string, item: string) =>
    client.publish(
      inbox,
      `1${nonce}c ${'b'.repeat(16)} ${fields}\n{"host":"${host}","pid":7,"since":7,"items":[{"item":"${item}"}]}`,
    )
  await page('1 1 1', 'h', 'second')
  await page('1 1 1', 'h', 'second again')
  await page('2 0 1', 'h', 'after the last')
  await page('0 0 1', 'other', 'of another host')
  await page('0 0 1', 'h', 'first')
  const { answers } = await result
  const { items, complete } = answers.find(({ pid }) => pid === 7) ?? assert.fail()
  assert.deepEqual([items, complete], [[{ item: 'first' }, { item: 'second' }], true])
})

test('census - an answer without some of its pages is incomplete when the time is over', async () => {
  await using t = await setup()
  await using asker = await connected(t.redis)
  const client = await t.client()
  const { inbox, nonce, result } = await askedBy(asker, await t.client(), { layer: 'layer', within: 400 })
  const body = '{"host":"h","pid":7,"since":7,"items":[{"item":1}]}'
  await client.publish(inbox, `1${nonce}c ${'b'.repeat(16)} 0 0 1\n${body}`)
  const { answers, complete } = await result
  const partial = answers.find(({ pid }) => pid === 7)
  assert.deepEqual([partial?.items, partial?.complete, complete], [[{ item: 1 }], false, false])
})

test('census - questions that make no sense are not answered', async () => {
  await using t = await setup()
  const client = await t.client()
  const address = newId() + newId()
  const question = { layer: 'layer', maxItems: 10, within: 100 }
  const json = (changed: object) => JSON.stringify({ ...question, ...changed })
  const nonsense = [
    ['c', '1c', `1c ${address}`, `1c ${address} `, `1c ${address} []`, `1c ${address} {`],
    [`1c ${newId()} ${json({})}`, `2c ${address} ${json({})}`, `1c ${address} ${json({ layer: 1 })}`],
    [
      json({ filter: 1 }),
      json({ maxItems: 'all' }),
      json({ within: null }),
      json({ layer: '__proto__' }),
    ].map((text) => `1c ${address} ${text}`),
    [
      `1c ${address} ${json({ layer: 'x'.repeat(256) })}`,
      `1c ${address} ${json({ filter: 'x'.repeat(70_000) })}`,
    ],
  ]
  // A process answers few questions a second, and nonsense counts.
  for (const messages of nonsense) {
    await using one = await connected(t.redis)
    let asked = 0
    one.contribute('layer', () => {
      asked++
      return []
    })
    for (const message of messages) await client.publish(one.broadcastChannel, message)
    // Messages arrive in order.
    assert.equal((await one.census({ layer: 'layer', within: LONG })).complete, true)
    assert.equal(asked, 1)
  }
})

test('census - a process answers ten questions a second at most', async () => {
  await using t = await setup()
  await using one = await connected(t.redis)
  let asked = 0
  one.contribute('layer', () => {
    asked++
    return []
  })
  const client = await t.client()
  const began = performance.now()
  const question = JSON.stringify({ layer: 'layer', maxItems: 10, within: 100 })
  for (let number = 0; number < 200; number++)
    await client.publish(one.broadcastChannel, `1c ${newId()}${newId()} ${question}`)
  await until(async () => (await one.census({ layer: 'none', within: 300 })).complete, {
    what: 'an answer in the next second',
    timeout: 10_000,
  })
  const seconds = Math.ceil((performance.now() - began) / 1000) + 1
  assert.ok(asked >= 8 && asked <= 10 * seconds, `${asked} in ${seconds} s`)
})

test('census - a contributor that throws takes nothing away from the others; it is told of by a warning', async () => {
  await using t = await setup()
  await using asker = await connected(t.redis)
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
  asker.contribute('layer', function* () {
    yield { item: 1 }
    throw new Error('broken contributor')
  })
  asker.contribute('layer', () => [{ item: 2 }])
  const loop: { self?: unknown } = {}
  loop.self = loop
  asker.contribute('layer', () => [loop])
  const undo = asker.contribute('layer', () => [{ item: 3 }])
  undo()
  undo()
  const { answers, complete } = await asker.census({ layer: 'layer', within: LONG })
  assert.deepEqual(
    [answers[0]?.items, answers[0]?.complete, complete],
    [[{ item: 1 }, { item: 2 }], false, false],
  )
  assert.match((await warned).message, /census of layer/)
})

test('census - no address is in an answer', async () => {
  await using t = await setup()
  await using one = await connected(t.redis)
  await using asker = await connected(t.redis)
  const client = await t.client()
  const messages: string[] = []
  client.on('pmessage', (_pattern, channel: string, message: string) => {
    assert.equal(INBOX.exec(channel)?.[1], asker.inbox.id)
    messages.push(message)
  })
  await client.psubscribe('soloflight:1:inbox:*')
  const { answers } = await asker.census({ layer: 'layer', within: LONG })
  await until(() => messages.length === 2, { what: 'two answers' })
  const texts = [...messages, JSON.stringify(answers)]
  for (const text of texts) for (const { inbox } of [one, asker]) assert.ok(!text.includes(inbox.id), text)
})

test('census - nothing is sent while nobody asks', async () => {
  await using t = await setup()
  await using one = await connected(t.redis)
  await using locker = new Locker({ redis: one })
  await using queue = new RedisQueue('q', { redis: one })
  await using _lease = (await locker.request('key')) as Lease
  queue.process('work', () => {})
  const client = await t.client()
  const before = await client.info('commandstats')
  const published = (info: string) => /cmdstat_publish:calls=(\d+)/.exec(info)?.[1]
  await until(() => queue.stats().subscribed, { what: 'the subscription' })
  assert.equal(published(await client.info('commandstats')), published(before))
  await one.census({ layer: 'locker', within: LONG })
  // The question, and the answer.
  assert.equal(Number(published(await client.info('commandstats'))), Number(published(before)) + 2)
})

test('census - asked before the connection is used, it waits for the subscription; lost, it asks again', async () => {
  await using t = await setup({ proxy: true })
  await using one = await connected(t.server.options)
  let asked = 0
  one.contribute('layer', () => {
    asked++
    return [{ item: asked }]
  })
  const deaf = await t.client({ ...t.server.options })
  await deaf.subscribe(one.broadcastChannel)
  await using asker = new Connection(t.redis)
  const result = asker.census({ layer: 'layer', within: 3_000 })
  await until(() => asked === 1, { what: 'the question' })
  t.proxy.cut()
  await until(() => asked === 2, { what: 'the question again' })
  const { answers, silent: without } = await result
  assert.equal(without, 1)
  assert.deepEqual(
    answers.flatMap(({ items }) => items),
    [{ item: 2 }],
  )
})

test('census - without Redis it is rejected when the time is over; closing the connection rejects it at once', async () => {
  await using t = await setup({ proxy: true })
  await t.proxy.refuse(true)
  const away = new Connection(t.redis)
  const { error, ms } = await timed(away.census({ layer: 'layer', within: 300 }))
  assert.ok(error instanceof UnavailableError, String(error))
  assert.ok(ms < 2_000, `${ms} ms`)
  const pending = rejectionOf(away.census({ layer: 'layer', within: LONG }))
  await away.close()
  assert.ok((await pending) instanceof ClosedError)
  assert.ok((await rejectionOf(away.census({ layer: 'layer' }))) instanceof ClosedError)
})

test('census - the options are checked', async () => {
  await using connection = new Connection('redis://127.0.0.1:1')
  const wrong = [
    { layer: 1 },
    {},
    { layer: 'layer', filter: 1 },
    { layer: 'layer', within: 0 },
    { layer: 'layer', within: Number.POSITIVE_INFINITY },
    { layer: 'layer', maxItems: 0 },
    { layer: 'layer', maxItems: 100_001 },
    { layer: 'layer', most: 1 },
    { layer: 'layer', filter: 'x'.repeat(70_000) },
  ]
  for (const options of wrong)
    assert.ok((await rejectionOf(connection.census(options as CensusOptions))) instanceof TypeError)
})

test('census - on a cluster all processes answer until the time is over', async () => {
  await using cluster = await RedisCluster.start()
  const connections = await Promise.all([1, 2, 3].map(async () => new Connection(await cluster.client())))
  try {
    for (const [index, connection] of connections.entries()) {
      connection.contribute('layer', () =>
        numbered(3_000).map((item) => ({ ...item, index, padding: 'x'.repeat(60) })),
      )
      await connection.census({ layer: 'none', within: 300 })
    }
    const [asker] = connections
    const result = await asker?.census<{ index: number }>({ layer: 'layer', within: 1_500 })
    assert.deepEqual([result?.complete, result?.silent, result?.answers.length], [true, undefined, 3])
    for (const { items } of result?.answers ?? []) assert.equal(items.length, 3_000)
  } finally {
    for (const connection of connections) await connection.close()
  }
})

for (const kind of ['redis', 'memory'] as const) {
  test(`census - in ${kind} the locker tells what it holds and waits for, without credentials`, async () => {
    await using t = await setup()
    const store = new MemoryStore()
    await using connection = await connected(t.redis)
    const place = kind === 'redis' ? { redis: connection } : { store }
    const ask = async (filter?: string) => {
      const asker = kind === 'redis' ? connection : store.census
      const { answers, complete } = await asker.census<LockerCensusItem>({
        layer: 'locker',
        filter,
        within: LONG,
      })
      assert.equal(complete, true)
      return answers.flatMap(({ items }) => items).sort((one, other) => (one.state < other.state ? -1 : 1))
    }
    await using locker = new Locker({ ...place, prefix: 'p', lease: 20_000 })
    await using elsewhere =
      kind === 'redis' ? new Locker({ redis: t.redis, prefix: 'p' }) : new Locker({ store, prefix: 'p' })
    const key = 'https://user:pass@host/path?access_token=abc'
    const lease = await locker.request(key)
    assert.ok(lease instanceof Lease)
    const waiting = [elsewhere.request(key), elsewhere.request(key)]
    await until(async () => (await locker.peek(key)).lock?.parked === 1, { what: 'the other to be parked' })
    const own = locker.request(key)
    const [held, ...others] = await ask(key)
    const { age, leaseLeft, ...rest } = held ?? assert.fail()
    assert.deepEqual(rest, {
      key: 'https://***@host/path?access_token=***',
      record: recordKey('p', key),
      state: 'held',
      fence: lease.fence,
      waiters: 1,
      mode: 'shared',
      lease: 20_000,
    })
    assert.ok(age >= 0 && age < 10_000 && Number(leaseLeft) > 10_000 && Number(leaseLeft) <= 20_000)
    if (kind === 'memory') {
      const [parked] = others
      assert.deepEqual([parked?.state, parked?.fence, parked?.waiters], ['waiting', lease.fence, 2])
    }
    // A key that is too long to be looked through stands as its record.
    const long = `//user:pass@${'x'.repeat(5_000)}`
    const other = await locker.request(long)
    const [longest] = await ask(long)
    assert.equal(longest?.key, recordKey('p', long))
    assert.deepEqual(await ask('nobody has it'), [])
    assert.ok(other instanceof Lease)
    await other.release()
    await lease.publish(1)
    await Promise.all([...waiting, own])
    assert.deepEqual(await ask(), [])
  })
}

test('census - lockers on one connection tell of their key once, and nothing once they are closed', async () => {
  await using t = await setup()
  await using connection = await connected(t.redis)
  const lockers = [1, 2].map(() => new Locker({ redis: connection }))
  const lease = await lockers[0]?.request('key')
  const parked = rejectionOf(Promise.resolve(lockers[1]?.request('key')))
  const items = async () => (await connection.census({ layer: 'locker', within: LONG })).answers[0]?.items
  assert.deepEqual(
    (await items())?.map(({ waiters }) => waiters),
    [1],
  )
  assert.ok(lease instanceof Lease)
  await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
  await parked
  assert.deepEqual(await items(), [])
})

test('census - queues tell of their workers, of jobs that run, and of jobs that are waited for', async () => {
  await using t = await setup()
  await using processes = await QueueProcesses.start({ redis: t.redis, concurrency: 3 }, { redis: t.redis })
  const [worker, submitter] = [processes.at(0), processes.at(1)]
  void submitter.call('submit', { name: 'task' })
  const begun = await told(worker, 'begun', 'task')
  await using connection = new Connection(t.redis)
  const census = (filter?: string) =>
    connection.census<QueueCensusItem>({ layer: 'queue', filter, within: LONG })
  const { answers, complete } = await census('q')
  assert.equal(complete, true)
  const itemsOf = (pid: number) =>
    (answers.find((answer) => answer.pid === pid)?.items ?? []).map((item) => {
      if (!('age' in item)) return item
      const { age, ...rest } = item
      assert.ok(age >= 0 && age < 10_000, `${age}`)
      return rest
    })
  const common = { queue: 'q', prefix: 'soloflight', command: 'work' }
  const { id, fence } = begun
  assert.deepEqual(itemsOf(worker.pid), [
    { ...common, kind: 'worker', concurrency: 3, busy: 1 },
    { ...common, kind: 'running', id, fence, attempt: 1 },
  ])
  assert.deepEqual(itemsOf(submitter.pid), [{ ...common, kind: 'waiting', id, waiters: 1 }])
  const others = await census('another')
  assert.deepEqual(
    others.answers.flatMap(({ items }) => items),
    [],
  )
  await worker.call('finish', 'task')
})

test('census - an embedded queue answers for itself until it is closed', async () => {
  const store = new MemoryQueueStore()
  const queue = new RedisQueue('q', { store })
  queue.process('work', () => new Promise<void>((resolve) => setTimeout(resolve, 50)))
  const done = queue.submit('work')
  const kinds = async () => {
    const { answers } = await store.census.census<QueueCensusItem>({ layer: 'queue' })
    return answers.flatMap(({ items }) => items.map(({ kind }) => kind))
  }
  await until(async () => (await kinds()).length === 3, { what: 'the job to run' })
  assert.deepEqual((await kinds()).sort(), ['running', 'waiting', 'worker'])
  await done
  await queue.close()
  assert.deepEqual(await kinds(), [])
})
