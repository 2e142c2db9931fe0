import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { Bus, Locker, RedisQueue, Services } from '../../src/index.ts'
import { Child } from '../support/process.ts'
import { serve } from '../support/process-child.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

interface Login {
  path: string
  username: string
  password: string
}

/** What this file does when it is started as another process: what ioredis says by itself would be its output. */
const handlers = {
  useLocker: async (redis: Login): Promise<void> => {
    await using locker = new Locker({ redis, cache: false })
    await locker.ready()
    const work = ({ progress }: { progress(value: number): void }) => {
      progress(1)
      return 1
    }
    assert.equal(await locker.run('key', work), 1)
    assert.deepEqual(await locker.runMany(['key', 'b'], () => [2]), [1, 2])
    assert.equal(await locker.run('key', () => 2, { refresh: true }), 2)
    const ticket = await locker.request('other')
    assert.ok(ticket.status === 'locked')
    await ticket.release()
    await locker.invalidate('key')
    assert.equal((await locker.peek('key')).status, 'free')
  },
  useTags: async (redis: Login): Promise<void> => {
    await using locker = new Locker({ redis, cache: false })
    for (const expected of [1, 1])
      assert.equal(await locker.run('tagged', () => 1, { tags: ['tag'] }), expected)
    await locker.invalidateTags('tag')
    assert.equal(await locker.run('tagged', () => 2, { tags: ['tag'] }), 2)
  },
  useStreams: async (redis: Login): Promise<void> => {
    await using locker = new Locker({ redis, cache: false })
    for (let round = 0; round < 2; round++) {
      const words: string[] = []
      const stream = locker.stream('stream', async function* () {
        yield* ['one', 'two']
      })
      for await (const word of stream) words.push(word)
      assert.deepEqual(words, ['one', 'two'])
    }
    await locker.invalidate('stream')
  },
  useQueue: async (redis: Login): Promise<void> => {
    await using queue = new RedisQueue('queue', { redis, attempts: 2 })
    await queue.ready()
    queue.process('work', async (number: number, job) => {
      job.progress(1)
      await job.log('line')
      if (number === 0) throw new Error('no')
      return number
    })
    assert.equal(await queue.submit('work', 1), 1)
    assert.equal(await queue.submit('work', 2, { delay: 20, priority: 1 }), 2)
    await assert.rejects(queue.submit('work', 0), { code: 'E_REMOTE' })
    const job = await queue.enqueue('later', 1, { delay: 60_000 })
    await queue.pause('work')
    await queue.resume('work')
    await assert.rejects(queue.submit('nobody', 1, { timeout: 20 }), { code: 'E_TIMEOUT' })
    assert.equal((await queue.counts()).failed, 1)
    await queue.redrive()
    assert.ok(await job.cancel())
    await queue.drain({ delayed: true })
    assert.equal((await queue.totals()).completed, 2)
    const names = () => RedisQueue.names({ redis })
    await until(async () => (await names()).length === 1, { what: 'the queue to be registered' })
    await queue.erase()
    assert.deepEqual(await names(), [])
  },
  useServices: async (redis: Login): Promise<void> => {
    await using serving = new Services({ redis })
    await using calling = new Services({ redis })
    const sums = await serving.register('sums', { capacity: 10, backlog: 1 })
    sums.on('add', (a: number, b: number) => a + b)
    sums.on('count', async function* () {
      yield* [1, 2]
    })
    const remote = calling.require('sums')
    await remote.ready()
    assert.equal(await remote.emit('add', 1, 2), 3)
    assert.equal(await remote.with({ dedupe: true }).pemit(2, 'add', 1, 2), 3)
    await remote.notify('add', 1, 2)
    for await (const answer of remote.broadcast('add', 1, 2))
      assert.deepEqual(answer, { id: serving.id, result: 3 })
    const numbers: unknown[] = []
    for await (const number of remote.stream('count')) numbers.push(number)
    assert.deepEqual(numbers, [1, 2])
    await assert.rejects(calling.require('none').emit('add'), { code: 'E_NO_SERVICE' })
    await remote.set('limit', 5)
    assert.equal(await sums.get('limit'), 5)
    await remote.remove('limit')
    assert.equal((await calling.list('sums')).length, 1)
    assert.ok((await calling.ping(serving.id)) >= 0)
    assert.ok(await calling.send(serving.id, 'hello'))
    assert.deepEqual(await serving.clean(), [])
    await serving.unregister('sums')
  },
  useBus: async (redis: Login): Promise<void> => {
    await using bus = new Bus({ redis: [redis, { ...redis, db: 1 }] })
    await bus.connect()
    const queue = bus.queue<number>('queue')
    await queue.attach({ maxsize: 2 })
    for (const number of [1, 2]) await queue.push(number, { key: 'key' })
    await assert.rejects(queue.push(3), { code: 'E_QUEUE_FULL' })
    for await (const { id } of queue.messages({ reliable: true })) {
      await queue.ack(id)
      break
    }
    await queue.metadata('name', 1)
    assert.deepEqual(await queue.metadata(), { name: 1 })
    assert.equal(await queue.metadata('name'), 1)
    const reader = bus.queue<number>('queue')
    await reader.attach()
    const [read] = await Promise.all([once(reader, 'message'), reader.consume({ remove: false })])
    assert.equal(read[0], 2)
    await reader.detach()
    assert.equal(await queue.flush(), 1)
    await queue.close()
    const [one, other] = [bus.channel('channel'), bus.channel('channel')]
    const ended = once(other, 'end')
    await Promise.all([one.connect(), other.listen()])
    await one.send(1)
    await one.end()
    await ended
    const topic = bus.pubsub('topic', { keep: 10, retain: true })
    await topic.publish(1)
    const message = once(topic, 'message')
    await topic.subscribe()
    assert.deepEqual(await message, [1])
    const object = bus.persistify('object', { value: 1 }, ['value'])
    object.persist(10_000)
    assert.ok(await object.save())
    assert.ok(await object.load())
  },
}

/** The rules that docs/operations.md names: for everything, and for tags, streams, queues, services and buses besides. */
async function rulesOfDocs(): Promise<string[][]> {
  const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const rows = page.matchAll(/^\| (everything|tags|streams|queues|services|buses) \| `(\+[^`]+)` \|$/gm)
  const lists = Array.from(rows, ([, , list = '']) => list.split(' '))
  assert.equal(lists.length, 6)
  return lists
}

function tests(): void {
  test('acl - what docs/operations.md says that an ACL needs is enough, and ioredis has nothing to say', async () => {
    const [base = [], tags = [], streams = [], queues = [], services = [], buses = []] = await rulesOfDocs()
    await using t = await setup()
    const uses: [keyof typeof handlers, string[]][] = [
      ['useLocker', []],
      ['useTags', tags],
      ['useStreams', streams],
      ['useQueue', queues],
      ['useServices', services],
      // Its instances are two databases here.
      ['useBus', [...buses, '+select']],
    ]
    for (const [use, rules] of uses) {
      const redis = { path: t.server.path, username: use, password: 'right' }
      const names = ['~soloflight:*', '&soloflight:*']
      await t.server.call('ACL', 'SETUSER', use, 'reset', 'on', '>right', ...names, ...base, ...rules)
      await using child = await Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
      await child.call(use, redis)
      assert.equal(child.output, '')
      const denied = String(await t.server.call('ACL', 'LOG')).replaceAll('client|setinfo', '')
      assert.doesNotMatch(denied, /object,(?!,|client)\S+/, use)
    }
  })
}

if (process.argv[2] === 'child') serve(handlers)
else tests()
