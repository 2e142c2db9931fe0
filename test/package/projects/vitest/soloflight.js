import { Bus, Connection, Locker, RedisQueue, RemoteError, Services } from 'soloflight'
import { RemoteError as RemoteErrorOfErrors } from 'soloflight/errors'
import { memoizeHandler } from 'soloflight/memoize/fetch'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'

const redis = process.env['REDIS_URL'] ?? ''

/** The tests of one environment of Vitest. */
export function checkSoloflight(environment) {
  test('the subpaths share one copy of each module', () => {
    expect(RemoteErrorOfErrors).toBe(RemoteError)
  })

  describe.each([
    ['embedded', () => undefined],
    ['on Redis', () => new Connection(redis)],
  ])('%s', (name, connect) => {
    let connection
    let locker

    beforeAll(() => {
      connection = connect()
      locker = new Locker(connection ? { redis: connection, prefix: `vitest-${environment}` } : {})
    })
    afterAll(async () => {
      await locker.close({ grace: 0 })
      await connection?.close()
    })

    test('ten callers, one run of the work', async () => {
      const work = vi.fn(async () => ({ name }))
      const call = () => locker.run('report', work, { timeout: 5_000, signal: new AbortController().signal })
      expect(await Promise.all(Array.from({ length: 10 }, call))).toEqual(Array(10).fill({ name }))
      expect(work).toHaveBeenCalledTimes(1)
    })

    test('a failure is a RemoteError', async () => {
      await expect(locker.run('failing', () => Promise.reject(new Error('no')))).rejects.toThrow(RemoteError)
    })

    test('a timeout', async () => {
      const never = locker.run('never', () => new Promise(() => {}), { timeout: 20 })
      await expect(never).rejects.toMatchObject({ code: 'E_TIMEOUT' })
    })

    test('a memoised handler of another subpath takes the locker', async () => {
      const handler = memoizeHandler(locker, { ttl: 60_000 }, async () => new Response('page'))
      expect(await (await handler(new Request('http://localhost/page'))).text()).toBe('page')
    })

    test('fake timers stop nothing, and nothing is stopped behind them', async () => {
      await locker.run('before', async () => 'real')
      vi.useFakeTimers()
      try {
        expect(await locker.run('under', async () => 'fake', { timeout: 5_000 })).toBe('fake')
      } finally {
        vi.useRealTimers()
      }
      expect(await locker.run('after', async () => 'real', { timeout: 5_000 })).toBe('real')
    })

    test('a job of a queue', async () => {
      const queue = new RedisQueue(
        'jobs',
        connection ? { redis: connection, prefix: `vitest-${environment}` } : {},
      )
      queue.process('double', async ({ number }) => number * 2)
      expect(await queue.submit('double', { number: 21 })).toBe(42)
      await queue.close()
    })

    test('a call of a service', async () => {
      const services = new Services(connection ? { redis: connection, prefix: `vitest-${environment}` } : {})
      const sums = await services.register('sums')
      sums.on('add', (a, b) => a + b)
      expect(await services.require('sums').emit('add', 20, 22)).toBe(42)
      await services.close()
    })

    test('a message of a queue of a bus', async () => {
      const bus = new Bus(connection ? { redis: connection, prefix: `vitest-${environment}` } : {})
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
}
