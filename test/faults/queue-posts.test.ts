// A post of several jobs under faults: all of its jobs are there, or none, and each once.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ConflictError, type Job, RedisQueue } from '../../src/index.ts'
import { QueueKeys } from '../../src/queue/store/redis/queue-calls.ts'
import { queueScripts } from '../../src/queue/store/redis/scripts/index.ts'
import { LONG, onCommands } from '../support/locker-scene.ts'
import {
  idle,
  keysOf,
  loadQueueScripts,
  NAME,
  over,
  Runs,
  type WiredScene,
  wired,
} from '../support/queue-wire.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, until } from '../support/wait.ts'

/** Number of bytes of the reply that arrive before the connection ends. */
const OFFSETS = [0, 3, 30]

const names = new QueueKeys('soloflight', NAME)
const postOf = (...payloads: unknown[]) => payloads.map((payload) => ({ command: 'work', payload }))
/** Jobs, posts, and what lists them: not what workers and the register write. */
const isOfPost = (key: string) => /\}([bjw]\/|[tdn]$)/.test(key)
const idsOf = (jobs: readonly Job[]) => jobs.map(({ id }) => id)

/** Cuts the next reply to a post. The returned function awaits that. */
function lose({ t }: WiredScene, bytes: number): () => Promise<boolean> {
  const fault = t.proxy.swallowReplyAfter(new RegExp(`^EVALSHA ${queueScripts.submitAll.sha1} `), bytes)
  return () => until(() => fault.hits === 1, { what: 'the reply to be lost' })
}

describe('posts under faults', { concurrency: 2 }, () => {
  for (const dedupe of [false, 'key'] as const) {
    const kind = dedupe === false ? 'without a key' : 'with a key'

    test(`S6 posts - a reply is lost, ${kind}: all jobs are there once, and reported as created`, async () => {
      await using s = await wired({ lease: LONG })
      for (const bytes of OFFSETS) {
        const isLost = lose(s, bytes)
        const options = { dedupe: dedupe && `${dedupe} ${bytes}` }
        const jobs = await s.queue.enqueueAll(postOf(1, 1, 2), options)
        await isLost()
        for (const { disposition } of jobs) assert.equal(disposition, 'created')
        assert.equal((await s.other.counts()).waiting, 3)
        for (const id of idsOf(jobs)) assert.ok(await s.other.remove(id), 'it is not there')
        assert.equal((await s.other.counts()).waiting, 0)
      }
      assert.equal((await s.other.totals()).submitted, 3 * OFFSETS.length)
    })

    test(`S6 posts - a reply is lost, ${kind}, and its jobs run: each runs once, and its result arrives`, async () => {
      await using s = await wired({ lease: LONG })
      const runs = new Runs()
      s.other.process('work', runs.handler(), { concurrency: 3 })
      await idle(s.t.server, 3)
      for (const bytes of OFFSETS) {
        const isLost = lose(s, bytes)
        const payloads = Array.from({ length: 40 }, (_, n) => `${bytes}.${n}`)
        const jobs = await s.queue.enqueueAll(postOf(...payloads), { dedupe: dedupe && `${dedupe} ${bytes}` })
        await isLost()
        assert.deepEqual(await Promise.all(jobs.map((job) => job.result())), payloads)
        await over(s.other)
        for (const payload of payloads) assert.equal(runs.of(payload), 1, `${payload} ran more than once`)
      }
    })
  }

  test('S6 posts - a call that was given up and took effect: the same post finds its jobs, another is refused', async () => {
    await using s = await wired({ lease: LONG, unavailableAfter: 200 })
    await s.queue.enqueueAll([])
    await s.t.server.freeze()
    const error = await rejectionOf(s.queue.enqueueAll(postOf(1, 2, 3), { dedupe: 'key' }))
    assert.deepEqual(
      [(error as { code: string }).code, (error as { sent: boolean }).sent],
      ['E_UNAVAILABLE', true],
    )
    s.t.server.thaw()
    await until(async () => (await s.other.counts()).waiting === 3, { what: 'it to take effect' })
    await assert.rejects(s.other.enqueueAll(postOf(1, 2), { dedupe: 'key' }), ConflictError)
    const jobs = await s.other.enqueueAll(postOf(1, 2, 3), { dedupe: 'key' })
    assert.deepEqual([...new Set(jobs.map(({ disposition }) => disposition))], ['joined'])
    assert.deepEqual(
      (await s.other.jobs('waiting')).jobs.map(({ id }) => id),
      idsOf(jobs),
    )
  })

  test('S6 posts - a connection that ends in the middle of the command: all jobs once', async () => {
    await using s = await wired({ lease: LONG })
    for (const [round, bytes] of [1, 200, 700, 5_000, 60_000].entries()) {
      const fault = s.t.proxy.cutAfter(bytes, 'up', { only: onCommands })
      await s.queue.enqueueAll(postOf(...Array.from({ length: 100 }, () => 'x'.repeat(1000))))
      await fault.struck
      assert.equal((await s.other.counts()).waiting, 100 * (round + 1))
    }
  })

  for (const [what, begin, end] of [
    ['OOM', ['CONFIG', 'SET', 'maxmemory', 1], ['CONFIG', 'SET', 'maxmemory', 0]],
    ['READONLY', ['REPLICAOF', '127.0.0.1', 1], ['REPLICAOF', 'NO', 'ONE']],
    [
      'NOREPLICAS',
      ['CONFIG', 'SET', 'min-replicas-to-write', 1],
      ['CONFIG', 'SET', 'min-replicas-to-write', 0],
    ],
    ['NOPERM', ['ACL', 'SETUSER', 'default', '-hset'], ['ACL', 'SETUSER', 'default', '+hset']],
  ] as [string, [string, ...(string | number)[]], [string, ...(string | number)[]]][]) {
    test(`posts - ${what}: nothing is written, and the key is free`, async () => {
      await using s = await wired({ lease: LONG, unavailableAfter: 1000 })
      s.other.process('work', () => {}, { concurrency: 5 })
      await idle(s.t.server, 5)
      await s.t.server.call(...begin)
      const error = await rejectionOf(s.queue.enqueueAll(postOf(1, 2, 3), { dedupe: 'key' }))
      assert.equal((error as { code: string }).code, 'E_UNAVAILABLE', String(error))
      assert.deepEqual([...(await keysOf(s.t.server)).keys()].filter(isOfPost), [])
      await s.t.server.call(...end)
      const jobs = await until(() => s.queue.enqueueAll(postOf(4), { dedupe: 'key' }), {
        what: 'the end of it',
      })
      await jobs[0]?.result()
    })
  }

  test('posts - memory that runs out in the middle of the step: all jobs are there', async () => {
    await using s = await wired({ lease: LONG })
    // Their records take more room than the command that brings them.
    const options = { delay: 60_000 }
    const post = Array.from({ length: 1000 }, () => ({ command: 'work', options }))
    const used = async () =>
      Number(/used_memory:(\d+)/.exec(String(await s.t.server.call('INFO', 'memory')))?.[1])
    await s.queue.enqueueAll(post)
    const before = await used()
    await s.queue.enqueueAll(post)
    const after = await used()
    await s.t.server.call('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')
    await s.t.server.call('CONFIG', 'SET', 'maxmemory', Math.round(after + 0.7 * (after - before)))
    assert.equal((await s.queue.enqueueAll(post)).length, 1000)
    const error = await rejectionOf(s.queue.enqueueAll(postOf(1)))
    assert.match(String((error as Error).cause), /OOM/, 'it has not run out')
    await s.t.server.call('CONFIG', 'SET', 'maxmemory', 0)
    assert.equal((await s.other.counts()).delayed, 3000)
  })

  test('posts - a key of another type refuses the whole post, and nothing is written', async () => {
    await using s = await wired({ lease: LONG })
    const [deadlines = '', delayed = '', , , commands = ''] = names.shared
    const others = names.command('other')
    const post = [...postOf(1, 2), { command: 'other', payload: 3, options: { delay: 5000, priority: 1 } }]
    const first = await s.queue.enqueueAll(post, { dedupe: 'key' })
    await s.other.erase()
    const [record = ''] = [...(await keysOf(s.t.server)).keys()].filter((key) =>
      key.startsWith(`${names.base}b/`),
    )
    for (const key of [deadlines, delayed, commands, record, ...others, ...names.command('work')]) {
      await s.t.server.call('FLUSHALL')
      await s.t.server.call('SET', key, 'of another type')
      const error = await rejectionOf(s.queue.enqueueAll(post, { dedupe: 'key' }))
      assert.match(String((error as Error).cause), /WRONGTYPE/, key)
      const written = [...(await keysOf(s.t.server)).keys()].filter((name) => name !== key)
      assert.deepEqual(written.filter(isOfPost), [])
    }
    // Totals that somebody has overwritten stop no job.
    await s.t.server.call('FLUSHALL')
    await s.t.server.call('SET', names.totals, 'of another type')
    assert.equal((await s.queue.enqueueAll(post, { dedupe: 'key' })).length, first.length)
    assert.equal((await s.queue.enqueueAll(post, { dedupe: 'key' }))[0]?.disposition, 'joined')
  })

  test('S6 posts - the server is killed under load and comes back: each post is there once as a whole, or not at all', async () => {
    await using t = await setup({ persistence: true })
    await loadQueueScripts(t.server)
    await using queue = new RedisQueue(NAME, { redis: t.redis, unavailableAfter: 3000 })
    await using other = new RedisQueue(NAME, { redis: t.redis, unavailableAfter: 10_000 })
    await queue.ready()
    const SIZE = 200
    const posts = new Map<string, string[] | undefined>()
    let goes = true
    const load = Array.from({ length: 4 }, async (_, worker) => {
      for (let n = 0; goes; n++) {
        const name = `${worker}.${n}`
        const post = postOf(...Array.from({ length: SIZE }, () => name))
        posts.set(name, undefined)
        await queue.enqueueAll(post, { dedupe: name }).then(
          (jobs) => posts.set(name, idsOf(jobs)),
          (error) => assert.equal(error.code, 'E_UNAVAILABLE'),
        )
      }
    })
    for (let round = 0; round < 4; round++) {
      const before = posts.size
      await until(() => posts.size >= before + 6, { what: 'posts', timeout: 20_000 })
      await t.server.kill()
      await t.server.restart()
    }
    goes = false
    await Promise.all(load)
    await other.ready()
    const stored = async () => {
      const counted = new Map<string, string[]>()
      let cursor: string | undefined
      do {
        const page = await other.jobs('waiting', { limit: 1000, ...(cursor === undefined ? {} : { cursor }) })
        for (const { payload, id } of page.jobs)
          counted.set(String(payload), [...(counted.get(String(payload)) ?? []), id])
        cursor = page.cursor
      } while (cursor !== undefined)
      return counted
    }
    const found = await stored()
    for (const [name, ids] of found) assert.equal(ids.length, SIZE, `${name} is there in part, or twice`)
    for (const [name, ids] of posts) if (ids) assert.deepEqual(found.get(name), ids, `${name} was accepted`)
    // Whoever got no answer asks again: it is there once then.
    for (const name of posts.keys())
      await other.enqueueAll(postOf(...Array.from({ length: SIZE }, () => name)), { dedupe: name })
    const after = await stored()
    assert.equal(after.size, posts.size)
    for (const [name, ids] of after) assert.equal(ids.length, SIZE, name)
    for (const [name, ids] of found) assert.deepEqual(after.get(name), ids, name)
  })
})
