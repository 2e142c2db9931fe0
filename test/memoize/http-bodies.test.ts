// Bodies that stream to the first client while they are recorded for the others.

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import { Recording, RecordingBudget } from '../../src/memoize/engine/recording.ts'
import { fromRawHeaders, type HttpResponse } from '../../src/memoize/index.ts'
import { CacheWorld, fresh, get, read, TestOrigin } from '../support/http-cache-scene.ts'
import { until } from '../support/wait.ts'

describe('http cache, streaming bodies', () => {
  /** A body whose pieces the test supplies. */
  class Slow {
    readonly body = new Readable({ objectMode: true, read() {} })

    give(...pieces: string[]): void {
      for (const piece of pieces) this.body.push(piece)
    }

    end(): void {
      this.body.push(null)
    }
  }

  const pieces = (response: HttpResponse): AsyncIterator<Uint8Array> =>
    (response.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]()

  const next = async (reader: AsyncIterator<Uint8Array>): Promise<string | undefined> => {
    const { done, value } = await reader.next()
    return done ? undefined : value.toString()
  }

  test('the first client reads the body while it streams; the others wait for the whole', async () => {
    await using world = new CacheWorld({}, 2)
    const slow = new Slow()
    const origin = new TestOrigin(() => fresh(slow.body, { 'x-a': 'b' }))
    const responses = [0, 0, 1].map((i) => world.caches[i]?.handle(get(), origin.ask))
    const first = await Promise.race(responses as Promise<HttpResponse>[])
    assert.deepEqual([first.status, fromRawHeaders(first.headers)['x-a']], [200, 'b'])
    const reader = pieces(first)
    slow.give('one ', 'two ')
    assert.equal(await next(reader), 'one ')
    slow.give('three')
    slow.end()
    assert.deepEqual(
      [await next(reader), await next(reader), await next(reader)],
      ['two ', 'three', undefined],
    )
    const hit = world.cache.handle(get(), origin.ask)
    assert.ok(!(hit instanceof Promise), 'it is stored at the end')
    const others = (await Promise.all(responses)).filter((response) => response !== first)
    for (const response of [...others, hit]) assert.equal(response?.body?.toString(), 'one two three')
    assert.equal(origin.count, 1)
  })

  test('Content-Length counts the bytes of text pieces', async () => {
    await using world = new CacheWorld()
    const origin = new TestOrigin(() => fresh(Readable.from(['äöü', 'ß!'])))
    await read(world.cache.handle(get(), origin.ask))
    const hit = await read(world.cache.handle(get(), origin.ask))
    assert.deepEqual([hit.body, hit.headers['content-length']], ['äöüß!', '9'])
  })

  test('the reader receives the end only after deliverEnd', async () => {
    for (const end of ['well', 'badly'] as const) {
      const slow = new Slow()
      const recording = new Recording(slow.body, undefined, new RecordingBudget(100))
      const collected = Promise.allSettled([recording.collect(100, () => undefined)])
      slow.give('a', 'b')
      const seen: string[] = []
      const reading = (async () => {
        for await (const piece of recording) seen.push(piece.toString())
      })()
      const read = Promise.allSettled([reading])
      if (end === 'well') slow.end()
      else slow.body.destroy(new Error('cut'))
      await collected
      // One turn of the event loop: everything that is possible by now has happened.
      await new Promise(setImmediate)
      const early = await Promise.race([read, 'not yet'])
      assert.deepEqual([early, seen], ['not yet', end === 'well' ? ['a'] : []])
      recording.deliverEnd()
      const [{ status }] = (await read) as [PromiseSettledResult<void>]
      assert.deepEqual([status, seen], end === 'well' ? ['fulfilled', ['a', 'b']] : ['rejected', []])
    }
  })

  test('a reader that leaves does not stop the recording', async () => {
    await using world = new CacheWorld()
    const slow = new Slow()
    const origin = new TestOrigin(() => fresh(slow.body))
    const responses = [0, 1].map(() => world.cache.handle(get(), origin.ask))
    const first = await Promise.race(responses as Promise<HttpResponse>[])
    await pieces(first).return?.()
    slow.give('hello')
    slow.end()
    const second = (await Promise.all(responses)).find((response) => response !== first)
    assert.equal(second?.body?.toString(), 'hello')
  })

  test('a body that exceeds maxBody belongs to its reader; the others fetch again', async () => {
    await using world = new CacheWorld({ maxBody: 5 })
    const slow = new Slow()
    const origin = new TestOrigin((_, count) => fresh(count === 1 ? slow.body : `own ${count}`))
    const responses = [0, 1].map(() => world.cache.handle(get(), origin.ask))
    const first = await Promise.race(responses as Promise<HttpResponse>[])
    const reader = pieces(first)
    slow.give('abcd', 'efgh')
    assert.deepEqual([await next(reader), await next(reader)], ['abcd', 'efgh'])
    const second = (await Promise.all(responses)).find((response) => response !== first)
    assert.equal((await read(second as HttpResponse)).body, 'own 2')
    slow.give('ijkl')
    slow.end()
    assert.deepEqual([await next(reader), await next(reader)], ['ijkl', undefined])
  })

  test('a body that exceeds maxBody is discarded when its reader leaves, or has left', async () => {
    for (const early of [true, false]) {
      await using world = new CacheWorld({ maxBody: 5 })
      const slow = new Slow()
      const reader = pieces(await world.cache.handle(get(), () => fresh(slow.body)))
      if (early) await reader.return?.()
      slow.give('abcdefgh')
      if (!early) {
        assert.equal(await next(reader), 'abcdefgh')
        await reader.return?.()
      }
      await until(() => slow.body.destroyed, { what: 'the body to be discarded' })
    }
  })

  test('a streaming body that fails affects its reader only, and is not stored', async () => {
    await using world = new CacheWorld()
    const slow = new Slow()
    const origin = new TestOrigin((_, count) => fresh(count === 1 ? slow.body : 'whole'))
    const responses = [0, 1].map(() => world.cache.handle(get(), origin.ask) as Promise<HttpResponse>)
    const settled = Promise.allSettled(responses)
    const reader = pieces(await Promise.race(responses))
    slow.give('a', 'b')
    assert.equal(await next(reader), 'a')
    slow.body.destroy(new Error('cut'))
    await assert.rejects(async () => {
      while ((await next(reader)) !== undefined);
    }, /cut/)
    assert.ok((await settled).every(({ status }) => status === 'fulfilled'))
    assert.equal((await read(world.cache.handle(get(), origin.ask))).body, 'whole')
  })

  test('a streaming body that is shorter than stated fails', async () => {
    await using world = new CacheWorld()
    const slow = new Slow()
    const reader = pieces(await world.cache.handle(get(), () => fresh(slow.body, { 'content-length': '9' })))
    slow.give('short')
    slow.end()
    await assert.rejects(async () => {
      while ((await next(reader)) !== undefined);
    }, /9 bytes/)
  })
})
