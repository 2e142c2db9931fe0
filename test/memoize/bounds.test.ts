// What clients can make a cache hold is bounded, in this process and in Redis; at each bound requests pass by.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type HeaderFields,
  HttpCache,
  type HttpRequest,
  type HttpResponse,
  type OriginRequest,
  type OriginResponse,
} from '../../src/memoize/engine/index.ts'
import { HttpWorld } from '../support/http-scene.ts'
import type { Setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const MIB = 1024 * 1024

const get = (url: string, headers: HeaderFields = {}): HttpRequest => ({
  method: 'GET',
  url,
  headers: { host: 'example.org', ...headers },
})

async function lengthOf({ body }: HttpResponse): Promise<number> {
  if (Buffer.isBuffer(body)) return body.length
  let length = 0
  for await (const piece of body ?? []) length += piece.length
  return length
}

/** Bodies of so many pieces of 64 KiB, and how much of them was made. */
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

/** Resolves when a number has not grown for a while. */
async function settled(read: () => number): Promise<void> {
  for (let before = -1; before !== read(); await sleep(100)) before = read()
}

describe('http bounds, recordings', () => {
  test('a hundred slow readers hold no more than maxRecorded, and each reads the whole', async () => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker(), { maxRecorded: 16 * MIB })
    const bodies = new Bodies(7 * MIB)
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, n) => cache.handle(get(`/${n}`), bodies.answer)),
    )
    await settled(() => bodies.bytes)
    // Of each, its first 256 KiB are not counted when it is for its own client alone, nor what had no room.
    assert.ok(bodies.bytes <= 16 * MIB + 100 * 6 * 65_536, `${bodies.bytes / MIB} MiB were made`)
    assert.deepEqual(new Set(await Promise.all(answers.map(lengthOf))), new Set([7 * MIB]))
    assert.equal(bodies.bytes, 700 * MIB)
    // All of it was given back.
    await lengthOf(await cache.handle(get('/after'), bodies.answer))
    assert.ok(!(cache.handle(get('/after'), bodies.answer) instanceof Promise), 'it is kept again')
  })

  test('those whose clients have gone, and those that break off, are given back', async () => {
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
      const gone = await cache.handle(get(`/gone/${n}`), bodies.answer)
      assert.ok(gone.body && !Buffer.isBuffer(gone.body))
      await gone.body[Symbol.asyncIterator]().return?.()
      await assert.rejects(async () => lengthOf(await cache.handle(get(`/cut/${n}`), cut)), /cut/)
    }
    await settled(() => bodies.bytes)
    await lengthOf(await cache.handle(get('/after'), bodies.answer))
    assert.ok(!(cache.handle(get('/after'), bodies.answer) instanceof Promise), 'it is kept')
  })
})

/** Records in Redis that hold a value. */
async function kept({ server }: Setup): Promise<number> {
  const keys = (await server.call('KEYS', '*')) as string[]
  const held = await Promise.all(keys.map((key) => server.call('HEXISTS', key, 'v')))
  return held.filter((each) => each === 1).length
}

const fresh = (body: string, headers: HeaderFields = {}): OriginResponse => ({
  status: 200,
  headers: { 'cache-control': 'max-age=3600', ...headers },
  body,
})

describe('http bounds, what is kept', () => {
  test('made-up URLs push out the oldest, by number', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxKept: 20 })
    for (let n = 0; n < 200; n++) await cache.handle(get(`/?q=${n}`), () => fresh('page'))
    await until(async () => (await kept(world.t)) <= 20, { what: 'the others to be forgotten' })
    assert.equal(await kept(world.t), 20)
    assert.ok(!(cache.handle(get('/?q=199'), () => fresh('page')) instanceof Promise), 'the newest is there')
  })

  test('and by bytes; what is larger than all of that is not kept', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxKeptBytes: 100_000 })
    for (let n = 0; n < 60; n++) await cache.handle(get(`/?q=${n}`), () => fresh('x'.repeat(9_000)))
    await until(async () => (await kept(world.t)) <= 10, { what: 'the others to be forgotten' })
    let count = 0
    for (let n = 0; n < 2; n++) {
      const answer = await cache.handle(get('/large'), () => fresh('x'.repeat(100_000), { n: `${++count}` }))
      assert.equal(await lengthOf(answer), 100_000)
    }
    assert.equal(count, 2)
  })

  test('made-up fields make no more than maxVariants of a page', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxVariants: 10 })
    let count = 0
    const origin = ({ headers }: OriginRequest): OriginResponse => {
      count++
      return fresh(String(headers['x-odd']), { vary: 'x-odd' })
    }
    const ask = async (odd: string): Promise<string> =>
      String((await cache.handle(get('/', { 'x-odd': odd }), origin)).body)
    for (let n = 0; n < 50; n++) assert.equal(await ask(`${n}`), `${n}`)
    count = 0
    for (let n = 0; n < 50; n++) assert.equal(await ask(`${n}`), `${n}`)
    assert.equal(count, 40)
  })

  test('variants that a change has made wrong do not count', async () => {
    await using world = await HttpWorld.onRedis()
    const cache = new HttpCache(world.locker(), { maxVariants: 4 })
    let count = 0
    const origin = (): OriginResponse => fresh(`page ${++count}`, { vary: 'x-kind' })
    for (let turn = 1; turn <= 6; turn++) {
      for (const kind of ['a', 'b', 'a', 'b']) await cache.handle(get('/', { 'x-kind': kind }), origin)
      assert.equal(count, 2 * turn)
      await cache.handle({ ...get('/'), method: 'POST' }, () => fresh('changed'))
    }
  })

  test('nor do variants that are over', async () => {
    await using world = new HttpWorld()
    const cache = new HttpCache(world.locker(), { maxVariants: 3, vary: ['x-kind'] })
    const brief = (): OriginResponse => fresh('made up', { 'cache-control': 'max-age=1' })
    for (const kind of ['a', 'b', 'c']) await cache.handle(get('/', { 'x-kind': kind }), brief)
    await sleep(1_100)
    let count = 0
    for (let n = 0; n < 3; n++)
      await cache.handle(get('/', { 'x-kind': 'good' }), () => fresh(`page ${++count}`))
    assert.equal(count, 1)
  })
})
