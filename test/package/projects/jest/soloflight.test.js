const { RedisQueue, Locker, RemoteError, Services, SoloflightError } = require('soloflight')
const { Bus } = require('soloflight/bus')
const { RemoteError: RemoteErrorOfErrors } = require('soloflight/errors')
const { Connection } = require('soloflight/kernel')
const { Locker: LockerOfLocker } = require('soloflight/locker')
const { HttpCache } = require('soloflight/memoize')
const { memoizeHandler: memoizeFetch } = require('soloflight/memoize/fetch')
const { memoizeHandler } = require('soloflight/memoize/node')
const { RedisQueue: RedisQueueOfQueue } = require('soloflight/queue')
const { Services: ServicesOfServices } = require('soloflight/services')

const redis = process.env.REDIS_URL

test('the subpaths share one copy of each module', () => {
  expect(RemoteErrorOfErrors).toBe(RemoteError)
  expect(LockerOfLocker).toBe(Locker)
  expect(RedisQueueOfQueue).toBe(RedisQueue)
  expect(ServicesOfServices).toBe(Services)
  expect([HttpCache, memoizeFetch, memoizeHandler].map((value) => typeof value)).toEqual(
    Array(3).fill('function'),
  )
})

describe.each([
  ['embedded', () => undefined],
  ['on Redis', () => new Connection(redis)],
])('%s', (name, connect) => {
  let connection
  let locker

  beforeAll(() => {
    connection = connect()
    locker = new Locker(connection ? { redis: connection, prefix: 'jest' } : {})
  })
  afterAll(async () => {
    await locker.close({ grace: 0 })
    await connection?.close()
  })

  test('ten callers, one run of the work', async () => {
    const work = jest.fn(async () => ({ name }))
    const results = await Promise.all(Array.from({ length: 10 }, () => locker.run('report', work)))
    expect(results).toEqual(Array(10).fill({ name }))
    expect(work).toHaveBeenCalledTimes(1)
  })

  test('a failure is a RemoteError', async () => {
    const failure = await locker.run('failing', () => Promise.reject(new Error('no'))).catch((error) => error)
    expect(failure).toBeInstanceOf(RemoteError)
    expect(failure).toBeInstanceOf(SoloflightError)
    expect(failure.message).toBe('no')
  })

  test('a stream', async () => {
    const words = []
    const source = async function* () {
      yield 'a'
      yield 'b'
    }
    for await (const word of locker.stream('words', source)) words.push(word)
    expect(words).toEqual(['a', 'b'])
  })

  test('a memoised handler of another subpath takes the locker', async () => {
    const handler = memoizeFetch(locker, { ttl: 60_000 }, async () => new Response('page'))
    expect(await (await handler(new Request('http://localhost/page'))).text()).toBe('page')
  })

  // Each kind replaces others of the process's timers, ticks and microtasks.
  test.each([
    ['as a rule', {}],
    ['but no ticks', { doNotFake: ['nextTick', 'queueMicrotask'] }],
    ['of old', { legacyFakeTimers: true }],
  ])('fake timers, %s, stop nothing, and nothing is stopped behind them', async (kind, options) => {
    await locker.run(`before ${kind}`, async () => 'real')
    jest.useFakeTimers(options)
    const faked = locker.run(`under ${kind}`, async () => 'fake', { timeout: 5_000 })
    try {
      expect(await faked).toBe('fake')
    } finally {
      jest.useRealTimers()
    }
    expect(await locker.run(`after ${kind}`, async () => 'real', { timeout: 5_000 })).toBe('real')
  })

  test('a job of a queue', async () => {
    const queue = new RedisQueue('jobs', connection ? { redis: connection, prefix: 'jest' } : {})
    queue.process('double', async ({ number }) => number * 2)
    expect(await queue.submit('double', { number: 21 })).toBe(42)
    await queue.close()
  })

  test('a call of a service', async () => {
    const services = new Services(connection ? { redis: connection, prefix: 'jest' } : {})
    const sums = await services.register('sums')
    sums.on('add', (a, b) => a + b)
    expect(await services.require('sums').emit('add', 20, 22)).toBe(42)
    await services.close()
  })

  test('a message of a queue of a bus', async () => {
    const bus = new Bus(connection ? { redis: connection, prefix: 'jest' } : {})
    const queue = bus.queue('greetings')
    await queue.attach()
    await queue.push({ hello: 'world' })
    for await (const { value } of queue) {
      expect(value).toEqual({ hello: 'world' })
      break
    }
    await bus.disconnect()
  })
})
