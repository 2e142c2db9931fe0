import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Locker, type LockerOptions, RedisQueue, TimeoutError, UnavailableError } from '../../src/index.ts'
import { freePort, LOCALHOST } from '../support/ports.ts'
import { Child } from '../support/process.ts'
import { serve } from '../support/process-child.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** How a process reaches Redis. */
interface Login {
  path: string
  username: string
  password: string
}

const given: string[] = []

/** The roles of this file when a test starts it as another process: a warning is emitted once per process. */
const handlers = {
  /** Processes two commands and runs a work, by lockers and queues of its own. */
  work: async (redis: Login): Promise<void> => {
    process.on('warning', (warning) =>
      given.push(`${(warning as { code?: string }).code} ${warning.message}`),
    )
    for (let number = 0; number < 3; number++) {
      const queue = new RedisQueue('jobs', { redis, unavailableAfter: 200 })
      queue.process('render', () => 1)
      await new Locker({ redis, unavailableAfter: 200 }).run('key', () => 1).catch(() => {})
    }
  },
  warnings: async (): Promise<string[]> => given,
  /** Runs a work under a lease. */
  run: async (redis: Login, lease: number): Promise<void> => {
    process.on('warning', (warning) =>
      given.push(`${(warning as { code?: string }).code} ${warning.message}`),
    )
    const locker = new Locker({ redis, lease })
    await Promise.allSettled([1, 2].map((n) => locker.run(`key ${n}`, () => 1, { timeout: 1_000 })))
  },
}

async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (value) => assert.fail(`Expected a failure, got ${String(value)}`),
    (error: unknown) => error,
  )
}

function tests(): void {
  for (const place of ['memory', 'redis'] as const) {
    describe(`diagnosis - on ${place}`, () => {
      test(`diagnosis - a TimeoutError names the queue, the command and the missing part, on ${place}`, async () => {
        await using t = place === 'redis' ? await setup() : undefined
        const options: LockerOptions = { redis: t?.redis ?? null }
        await using queue = new RedisQueue('jobs', { redis: t?.redis ?? null })
        await using other = new RedisQueue('jobs', { redis: t?.redis ?? null })
        await using locker = new Locker(options)
        await queue.ready()
        // The details of a TimeoutError must be found out within a moment.
        const explained = async () => {
          const two = [1, 2].map((payload) => failureOf(queue.submit('render', payload, { timeout: 50 })))
          const late = await Promise.all(two)
          for (const error of late) assert.ok(error instanceof TimeoutError)
          const said = /`render` in the queue `jobs`, and no worker is known that processes it, within 50 ms/
          return late.every((error) => said.test(String(error)))
        }
        await until(explained, { what: 'the missing worker to be told' })
        const worker = place === 'redis' ? other : queue
        worker.process(
          'render',
          (_payload, { signal }) => new Promise((_, end) => signal.addEventListener('abort', end)),
        )
        await until(() => worker.stats().running > 0, { what: 'the jobs to be taken' })
        const busy = await failureOf(queue.submit('render', 3, { timeout: 50 }))
        assert.match(String(busy), /TimeoutError: No outcome of `render` in the queue `jobs`, within 50 ms/)
        const never = () => new Promise<never>(() => {})
        const key = await failureOf(locker.run('report:42', never, { timeout: 50 }))
        assert.match(String(key), /TimeoutError: No outcome of `report:42` within 50 ms/)
        const words = locker.stream('words', never as never, { timeout: 50 })
        assert.match(String(await failureOf(words.next())), /TimeoutError: No chunk of `words` within 50 ms/)
        await Promise.all([queue, other, locker].map((layer) => layer.close({ grace: 0 })))
      })

      test(`diagnosis - ready resolves when it works, on ${place}`, async () => {
        await using t = place === 'redis' ? await setup() : undefined
        await using locker = new Locker({ redis: t?.redis ?? null })
        await using queue = new RedisQueue('jobs', { redis: t?.redis ?? null })
        await Promise.all([locker.ready(), queue.ready({ timeout: 5000 })])
        assert.deepEqual([locker.stats().subscribed, queue.stats().subscribed], [true, true])
        await until(async () => t === undefined || (await t.server.call('DBSIZE')) === 0, {
          what: 'what the probes wrote to be gone',
        })
        await assert.rejects(locker.ready({ timeout: -1 }), TypeError)
        await locker.close()
        await assert.rejects(locker.ready(), { code: 'E_CLOSED' })
      })
    })
  }

  describe('diagnosis - ready', () => {
    const layers: Record<string, (redis: LockerOptions['redis']) => Locker | RedisQueue> = {
      Locker: (redis) => new Locker({ redis }),
      RedisQueue: (redis) => new RedisQueue('jobs', { redis }),
    }
    for (const [layer, make] of Object.entries(layers)) {
      test(`diagnosis - ready of a ${layer} names the cause`, async () => {
        await using t = await setup()
        const cases: [rules: string[], said: RegExp][] = [
          [['-evalsha'], /NOPERM.*evalsha/],
          [['resetkeys'], /NOPERM/],
          [['resetchannels'], /NOPERM|can't publish to the channel/],
          [['-subscribe'], /no message arrives \(NOPERM.*subscribe/],
        ]
        for (const [rules, said] of cases) {
          await t.server.call(
            'ACL',
            'SETUSER',
            'user',
            'reset',
            'on',
            '>right',
            '~*',
            '&*',
            '+@all',
            ...rules,
          )
          await using it = make({ ...t.redis, username: 'user', password: 'right' })
          const error = await failureOf(it.ready({ timeout: 1000 }))
          assert.ok(error instanceof UnavailableError)
          assert.match(error.message, said)
          assert.match(error.message, /^Redis is not ready within 1000 ms: /)
        }
        await using wrong = make({ ...t.redis, username: 'user', password: 'wrong' })
        assert.match(String(await failureOf(wrong.ready({ timeout: 1000 }))), /WRONGPASS/)
        await t.server.call('REPLICAOF', LOCALHOST, 1)
        await using replica = make(t.redis)
        assert.match(String(await failureOf(replica.ready({ timeout: 1000 }))), /READONLY/)
        await using nobody = make({ port: await freePort() })
        assert.match(String(await failureOf(nobody.ready({ timeout: 300 }))), /ECONNREFUSED/)
      })
    }

    test('diagnosis - ready waits for a server that starts later', async () => {
      await using t = await setup({ proxy: true })
      await t.proxy.refuse(true)
      await using locker = new Locker({ redis: t.redis })
      const ready = locker.ready()
      await new Promise((resume) => setTimeout(resume, 50))
      await t.proxy.refuse(false)
      await ready
    })
  })

  describe('diagnosis - warnings', () => {
    const warned = async (child: Child<typeof handlers>, code: string) => {
      await until(async () => (await child.call('warnings')).some((text) => text.startsWith(code)), {
        what: code,
      })
      return child.call('warnings')
    }

    test('diagnosis - a worker that Redis refuses warns once', async () => {
      await using t = await setup()
      for (const [rule, said] of [
        ['-evalsha', /NOPERM.*evalsha/],
        ['-subscribe', /NOPERM.*subscribe/],
      ] as const) {
        await t.server.call('ACL', 'SETUSER', 'user', 'reset', 'on', '>right', '~*', '&*', '+@all', rule)
        await using child = await Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
        await child.call('work', { path: t.server.path, username: 'user', password: 'right' })
        const warnings = await warned(child, 'SOLOFLIGHT_WORKER_REFUSED')
        assert.equal(warnings.length, 1, warnings.join('\n'))
        assert.match(warnings[0] ?? '', /queue `jobs` gets no jobs of `render` in this process/)
        assert.match(warnings[0] ?? '', said)
      }
    })

    test('diagnosis - a lease that is shorter than the latency of Redis warns once', async () => {
      await using t = await setup({ proxy: true })
      await using child = await Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
      t.proxy.delay(150, { direction: 'down' })
      await child.call('run', t.redis as Login, 100)
      const warnings = await warned(child, 'SOLOFLIGHT_LEASE_TOO_SHORT')
      assert.equal(warnings.length, 1, warnings.join('\n'))
    })

    test('diagnosis - a server that may evict keys warns once; without permission for INFO there is no warning', async () => {
      await using t = await setup()
      await t.server.call('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
      for (const rule of ['+info', '-info']) {
        await t.server.call('ACL', 'SETUSER', 'user', 'reset', 'on', '>right', '~*', '&*', '+@all', rule)
        await using child = await Child.fork<typeof handlers>(new URL(import.meta.url), { args: ['child'] })
        await child.call('work', { path: t.server.path, username: 'user', password: 'right' })
        const warnings =
          rule === '+info' ? await warned(child, 'SOLOFLIGHT_EVICTION') : await child.call('warnings')
        assert.equal(warnings.length, rule === '+info' ? 1 : 0, warnings.join('\n'))
      }
    })
  })
}

if (process.argv[2] === 'child') serve(handlers)
else tests()
