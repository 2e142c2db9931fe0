// What clients can make a cache store and record is bounded, in the process and in Redis.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  HttpCache,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../../src/memoize/index.ts'
import { fresh, get } from '../support/http-cache-scene.ts'
import { HttpWorld } from '../support/http-scene.ts'
import type { Setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const MIB = 1024 * 1024

async function lengthOf({ body }: HttpResponse): Promise<number> {
  if (Buffer.isBuffer(body)) return body.length
  let length = 0
  for await (const piece of body ?? []) length += piece.length
  return length
}

/** Bodies in pieces of 64 KiB, and how many of their bytes were produced. */
class Bodies {
  bytes = 0
  readonly #pieces: number

  constructor(bytes: number) {
    this.#pieces = bytes / 65_536
  }

  readonly answer = (): OriginResponse => ({
    status: 200,
    headers: { 'cache-control': 'max-age=60' },
    body: this.#make(),
  })

  async *#make(): AsyncGenerator<Buffer> {
    for (let piece = 0; piece < this.#pieces; piece++) {
      this.bytes += 65_536
      yield Buffer.alloc(65_536)
      await new Promise(setImmediate)
    }
  }
}

/** Resolves when a number has not changed for 100 ms. */
async function settled(read: () => number): Promise<void> {
  for (let before = -1; before !== read(); await sleep(100)) before = read()
}

describe('http bounds, recordings', () => {
  test('a hundred slow readers hold at most maxRecorded, and each receives the whole body', async () => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker(), { maxRecorded: 16 * MIB })
    const bodies = new Bodies(7 * MIB)
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, n) => cache.handle(get({}, { url: `/${n}` }), bodies.answer)),
    )
    await settled(() => bodies.bytes)
    // Of each private body the first 256 KiB do not count, nor the piece for which there was no room.
    assert.ok(bodies.bytes <= 16 * MIB + 100 * 6 * 65_536, `${bodies.bytes / MIB} MiB were made`)
    assert.deepEqual(new Set(await Promise.all(answers.map(lengthOf))), new Set([7 * MIB]))
    assert.equal(bodies.bytes, 700 * MIB)
    // All of the budget has been released.
    await lengthOf(await cache.handle(get({}, { url: '/after' }), bodies.answer))
    assert.ok(
      !(cache.handle(get({}, { url: '/after' }), bodies.answer) instanceof Promise),
      'it is kept again',
    )
  })

  test('recordings whose clients have left, and those that fail, release the budget', async () => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker(), { maxRecorded: 2 * MIB })
    const bodies = new Bodies(MIB)
    const cut = (): OriginResponse => ({
      ...bodies.answer(),
      body: (async function* () {
        yield Buffer.alloc(512 * 1024)
        await sleep(10)
        throw new Error('cut')
      })(),
    })
    for (let n = 0; n < 8; n++) {
      const gone = await cache.handle(get({}, { url: `/gone/${n}` }), bodies.answer)
      assert.ok(gone.body && !Buffer.isBuffer(gone.body))
      await gone.body[Symbol.asyncIterator]().return?.()
      await assert.rejects(
        async () => lengthOf(await cache.handle(get({}, { url: `/cut/${n}` }), cut)),
        /cut/,
      )
    }
    await settled(() => bodies.bytes)
    await lengthOf(await cache.handle(get({}, { url: '/after' }), bodies.answer))
    assert.ok(!(cache.handle(get({}, { url: '/after' }), bodies.answer) instanceof Promise), 'it is kept')
  })
})

/** The number of records in Redis that hold a value. */
async function kept({ server }: Setup): Promise<number> {
  const keys = (await server.call('KEYS', '*')) as string[]
  const held = await Promise.all(keys.map((key) => server.call('HEXISTS', key, 'v')))
  return held.filter((each) => each === 1).length
}

describe('http bounds, stored responses', () => {
  test('maxKept: the oldest entries are invalidated', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxKept: 20 })
    for (let n = 0; n < 200; n++) await cache.handle(get({}, { url: `/?q=${n}` }), () => fresh('page'))
    await until(async () => (await kept(world.t)) <= 20, { what: 'the others to be invalidated' })
    assert.equal(await kept(world.t), 20)
    assert.ok(
      !(cache.handle(get({}, { url: '/?q=199' }), () => fresh('page')) instanceof Promise),
      'the newest is there',
    )
  })

  test('maxKeptBytes: the oldest entries are invalidated; a larger response is not stored', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxKeptBytes: 100_000 })
    for (let n = 0; n < 60; n++)
      await cache.handle(get({}, { url: `/?q=${n}` }), () => fresh('x'.repeat(9_000)))
    await until(async () => (await kept(world.t)) <= 10, { what: 'the others to be invalidated' })
    let count = 0
    for (let n = 0; n < 2; n++) {
      const answer = await cache.handle(get({}, { url: '/large' }), () =>
        fresh('x'.repeat(100_000), { n: `${++count}` }),
      )
      assert.equal(await lengthOf(answer), 100_000)
    }
    assert.equal(count, 2)
  })

  test('maxVariants: a further variant is not stored', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxVariants: 10 })
    let count = 0
    const origin = ({ headers }: OriginRequest): OriginResponse => {
      count++
      return fresh(String(headers['x-odd']), { vary: 'x-odd' })
    }
    const ask = async (odd: string): Promise<string> =>
      String((await cache.handle(get({ 'x-odd': odd }, { url: '/' }), origin)).body)
    for (let n = 0; n < 50; n++) assert.equal(await ask(`${n}`), `${n}`)
    count = 0
    for (let n = 0; n < 50; n++) assert.equal(await ask(`${n}`), `${n}`)
    assert.equal(count, 40)
  })

  test('invalidated variants do not count', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxVariants: 4 })
    let count = 0
    const origin = (): OriginResponse => fresh(`page ${++count}`, { vary: 'x-kind' })
    for (let turn = 1; turn <= 6; turn++) {
      for (const kind of ['a', 'b', 'a', 'b'])
        await cache.handle(get({ 'x-kind': kind }, { url: '/' }), origin)
      assert.equal(count, 2 * turn)
      await cache.handle({ ...get({}, { url: '/' }), method: 'POST' }, () => fresh('changed'))
    }
  })

  test('expired variants do not count', async () => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker(), { maxVariants: 3, vary: ['x-kind'] })
    const brief = (): OriginResponse => fresh('made up', { 'cache-control': 'max-age=1' })
    for (const kind of ['a', 'b', 'c']) await cache.handle(get({ 'x-kind': kind }, { url: '/' }), brief)
    await sleep(1_100)
    let count = 0
    for (let n = 0; n < 3; n++)
      await cache.handle(get({ 'x-kind': 'good' }, { url: '/' }), () => fresh(`page ${++count}`))
    assert.equal(count, 1)
  })
})
