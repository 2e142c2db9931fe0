// Whole programs, as users write them: workers and awaited calls keep the process alive, and nothing else does.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { RedisQueue } from '../../src/index.ts'
import { freePort } from '../support/ports.ts'
import { type ModuleSystem, Programs } from '../support/program.ts'
import { RedisServer } from '../support/redis-server.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const SYSTEMS: ModuleSystem[] = ['CommonJS', 'ESM']

const ACCOUNT = ['--user', 'somebody', 'on', '>a-secret', '~*', '&*', '+@all']

let programs: Programs
before(async () => {
  programs = await Programs.build()
})
after(() => programs[Symbol.asyncDispose]())

/** A program with a worker only; it closes its queue at SIGTERM. */
const worker = (options: object): string => `
const queue = new RedisQueue('jobs', ${JSON.stringify(options)})
queue.process('render', (page) => 'rendered ' + page)
process.once('SIGTERM', () => (console.log('closing'), queue.close()))
process.once('beforeExit', () => console.log('nothing left'))
console.log('processing')`

/** The output of a program that ends as it should: only its queue kept it alive, and nothing else ended it. */
const ENDED = 'processing\nclosing\nnothing left\n'

/** Number of warnings in the output. */
const warnings = (errors: string): number => errors.split('SOLOFLIGHT_REDIS_UNREACHABLE').length - 1

for (const system of SYSTEMS) {
  describe(`U2 ${system}`, () => {
    test('a worker lives until its queue is closed', async () => {
      await using t = await setup()
      const program = await programs.start(system, 'RedisQueue', worker({ redis: t.redis }))
      await using queue = new RedisQueue('jobs', { redis: t.redis })
      assert.equal(await queue.submit('render', 'a'), 'rendered a')
      program.signal('SIGTERM')
      assert.equal(await program.exits(), 0, program.errors)
      assert.equal(program.output, ENDED)
      assert.equal(warnings(program.errors), 0, program.errors)
    })

    test('a worker waits for Redis, and one warning names the address and the cause', async () => {
      const port = await freePort()
      const redis = `redis://somebody:a-secret@127.0.0.1:${port}`
      const program = await programs.start(system, 'RedisQueue', worker({ redis }))
      await until(() => warnings(program.errors) > 0 || !program.runs, {
        what: 'the warning',
        timeout: 20_000,
      })
      assert.match(program.errors, new RegExp(`redis://127\\.0\\.0\\.1:${port}`))
      assert.match(program.errors, /ECONNREFUSED/)
      assert.doesNotMatch(program.errors, /a-secret|somebody/)
      await using server = await RedisServer.start({ port, args: ACCOUNT })
      await using queue = new RedisQueue('jobs', { redis: server.options })
      assert.equal(await queue.submit('render', 'b'), 'rendered b')
      program.signal('SIGTERM')
      assert.equal(await program.exits(), 0, program.errors)
      assert.equal(program.output, ENDED)
      assert.equal(warnings(program.errors), 1, program.errors)
    })

    test('a worker whose Redis was never there ends after close', async () => {
      const redis = { host: '127.0.0.1', port: await freePort() }
      const program = await programs.start(system, 'RedisQueue', worker({ redis }))
      await program.says('processing')
      program.signal('SIGTERM')
      assert.equal(await program.exits(), 0, program.errors)
      assert.equal(program.output, ENDED)
      assert.equal(warnings(program.errors), 0, program.errors)
    })

    test('an embedded worker lives until its queue is closed', async () => {
      const program = await programs.start(system, 'RedisQueue', worker({}))
      await program.says('processing')
      program.signal('SIGTERM')
      assert.equal(await program.exits(), 0, program.errors)
      assert.equal(program.output, ENDED)
    })

    /** Programs that end by themselves when their calls have settled, with their output. */
    const settling: Record<string, [names: string, text: string, output: string]> = {
      'an embedded submitter waits for a delayed job': [
        'RedisQueue',
        `const queue = new RedisQueue('jobs')
         queue.process('render', () => 'done')
         queue.submit('render', 1, { delay: 200, timeout: Infinity }).then((result) => (console.log(result), queue.close()))`,
        'done\n',
      ],
      'an embedded submitter waits for the attempt after a backoff': [
        'RedisQueue',
        `const queue = new RedisQueue('jobs', { attempts: 2, backoff: 200 })
         queue.process('render', (page, job) => { if (job.attempt === 1) throw new Error('no'); return 'done' })
         queue.submit('render', 1, { timeout: Infinity }).then((result) => (console.log(result), queue.close()))`,
        'done\n',
      ],
      'an embedded submitter without a worker waits for its timeout': [
        'RedisQueue',
        `new RedisQueue('jobs').submit('render', 1, { timeout: 300 }).catch((error) => console.log(error.code))`,
        'E_TIMEOUT\n',
      ],
      'one who waits for a job that was enqueued': [
        'RedisQueue',
        `const queue = new RedisQueue('jobs')
         queue.enqueue('render').then((job) => job.result({ timeout: 300 })).catch((error) => console.log(error.code))`,
        'E_TIMEOUT\n',
      ],
      'a caller of run waits for a work that nothing keeps alive': [
        'Locker',
        `new Locker().run('page', () => new Promise((resolve) => setTimeout(resolve, 200, 'done').unref())).then(console.log)`,
        'done\n',
      ],
      'a caller of run waits for a lease that ends by itself': [
        'Locker',
        `const locker = new Locker({ lease: 200, maxHold: 300 })
         locker.request('page').then(() =>
           locker.run('page', () => 'done', { timeout: Infinity })).then(console.log)`,
        'done\n',
      ],
      'a reader of a stream waits for its next chunk': [
        'Locker',
        `async function read() {
           async function* produce() {
             await new Promise((resolve) => setTimeout(resolve, 200).unref())
             yield 'done'
           }
           for await (const chunk of new Locker().stream('page', produce)) console.log(chunk)
         }
         read()`,
        'done\n',
      ],
    }
    for (const [name, [names, text, output]] of Object.entries(settling)) {
      test(name, async () => {
        const program = await programs.start(system, names, text)
        assert.equal(await program.exits(), 0, program.errors)
        assert.equal(program.output, output, program.errors)
      })
    }

    test('calls reject with UnavailableError while Redis is unreachable', async () => {
      const redis = JSON.stringify({ host: '127.0.0.1', port: await freePort() })
      const program = await programs.start(
        system,
        'Locker, RedisQueue',
        `const locker = new Locker({ redis: ${redis}, unavailableAfter: 300 })
         const queue = new RedisQueue('jobs', { redis: ${redis}, unavailableAfter: 300 })
         const log = (error) => console.log(error.code)
         Promise.all([locker.run('page', () => 1).catch(log), queue.submit('render').catch(log)])
           .then(() => Promise.all([locker.close(), queue.close()]))`,
      )
      assert.equal(await program.exits(), 0, program.errors)
      assert.equal(program.output, 'E_UNAVAILABLE\nE_UNAVAILABLE\n', program.errors)
    })
  })
}
