// A feed tells each client all events, or that some were missed.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Feed } from '../../../src/gateway/events/feed.ts'
import { Feeds, MAX_IDLE_FEEDS } from '../../../src/gateway/events/feeds.ts'
import type { EventStream } from '../../../src/gateway/http/event-stream.ts'
import { EventStreams } from '../../../src/gateway/http/event-streams.ts'
import { Lifecycle } from '../../../src/gateway/lifecycle.ts'
import { EventParser } from '../../support/event-client.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { until } from '../../support/wait.ts'

const clock = new ManualClock()
const streams = new EventStreams({ maxStreams: 100, heartbeat: 1_000 }, clock, new Lifecycle(clock))

/** A client that reads when it is told to. */
class Client {
  readonly parser = new EventParser()
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>
  isOver = false

  constructor(source: (stream: EventStream) => Promise<void>) {
    this.#reader = streams.create(source).toBody(new AbortController().signal).getReader()
  }

  /** Reads until `enough`, or the end. */
  async read(enough: () => boolean = () => false): Promise<void> {
    while (!enough() && !this.isOver) {
      const { done, value } = await this.#reader.read()
      if (done) this.isOver = true
      else this.parser.add(value)
    }
  }

  get texts(): string[] {
    return this.parser.events.filter(({ event }) => event !== 'gap').map(({ data }) => data)
  }

  get missed(): number {
    const gaps = this.parser.events.filter(({ event }) => event === 'gap')
    return gaps.reduce((sum, { data }) => sum + (JSON.parse(data) as { missed: number }).missed, 0)
  }

  leave(): Promise<void> {
    return this.#reader.cancel()
  }
}

function numbers(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, index) => String(from + index))
}

function publish(feed: Feed, from: number, to: number, pad = ''): void {
  for (const text of numbers(from, to)) feed.publish({ event: 'x', data: text + pad })
}

test('feed - a slow client gets what is kept, and is told how many events are not', async () => {
  const feed = new Feed()
  const pad = ' '.repeat(100)
  const [slow, quick] = [
    new Client((stream) => feed.send(stream, 0)),
    new Client((stream) => feed.send(stream, 0)),
  ]
  for (let from = 0; from < 5_000; from += 50) {
    publish(feed, from, from + 50, pad)
    await quick.read(() => quick.texts.length >= from + 50)
  }
  await slow.read(() => slow.texts.length + slow.missed >= 5_000)
  assert.deepEqual(
    quick.texts,
    numbers(0, 5_000).map((text) => text + pad),
  )
  assert.equal(quick.missed, 0)
  assert.ok(slow.missed > 3_000, `it has missed ${slow.missed}`)
  // Without the lost ones in the middle, in order.
  const gap = slow.parser.events.findIndex(({ event }) => event === 'gap')
  assert.deepEqual(
    slow.texts.slice(0, gap),
    numbers(0, gap).map((text) => text + pad),
  )
  assert.deepEqual(
    slow.texts.slice(gap),
    numbers(gap + slow.missed, 5_000).map((text) => text + pad),
  )
  await Promise.all([slow.leave(), quick.leave()])
  await until(() => feed.size === 0, { what: 'both to be forgotten' })
})

test('feed - it keeps 1 MiB of events at most, but always the last', async () => {
  const feed = new Feed()
  publish(feed, 0, 20, 'x'.repeat(100_000))
  const client = new Client((stream) => feed.send(stream, 0))
  await client.read(() => client.texts.length + client.missed >= 20)
  assert.equal(client.missed, 10)
  feed.publish({ event: 'x', data: 'y'.repeat(3_000_000) })
  await client.read(() => client.texts.length + client.missed >= 21)
  assert.equal(client.texts.at(-1)?.length, 3_000_000)
  feed.end()
  await client.read()
})

test('feed - a client that comes again goes on behind its last event, exactly once', async () => {
  const feed = new Feed()
  publish(feed, 0, 10)
  const first = new Client((stream) => feed.send(stream, 0))
  await first.read(() => first.texts.length === 10)
  await first.leave()
  publish(feed, 10, 20)
  const ids = first.parser.events.map(({ id }) => id)
  for (const [index, id] of ids.entries()) {
    const number = feed.numberOf(id)
    assert.equal(number, index + 1)
    const again = new Client((stream) => feed.send(stream, number ?? 0))
    await again.read(() => again.texts.length === 19 - index)
    assert.deepEqual(again.texts, numbers(index + 1, 20))
    await again.leave()
  }
  for (const id of [
    '',
    'x',
    `${ids[0]}0000`,
    ids[0]?.replace(/^./, '_') ?? '',
    new Feed().numberOf(ids[0] ?? '') ?? 'none',
  ])
    assert.equal(feed.numberOf(String(id)), undefined, String(id))
})

test('feed - its end comes behind the last event, also for a slow client', async () => {
  const feed = new Feed()
  const client = new Client((stream) => feed.send(stream, 0))
  publish(feed, 0, 100, ' '.repeat(1_000))
  feed.publish({ event: 'end', id: 'end', data: 'over' })
  feed.end()
  feed.publish({ event: 'x', data: 'too late' })
  await client.read()
  assert.equal(client.texts.length, 101)
  assert.deepEqual(client.parser.events.at(-1), { event: 'end', id: 'end', data: 'over' })
  assert.ok(client.isOver)
})

test('feeds - clients share a source, which goes on for 30 s without one', async () => {
  const feeds = new Feeds(clock)
  let [started, stopped] = [0, 0]
  const source = async () => {
    started++
    return () => void stopped++
  }
  const opened = await Promise.all([
    feeds.open('a', source),
    feeds.open('a', source),
    feeds.open('b', source),
  ])
  assert.equal(opened[0]?.feed, opened[1]?.feed)
  assert.deepEqual([started, feeds.size], [2, 2])
  for (const { release } of opened) release()
  await clock.pass(29_000)
  const again = await feeds.open('a', source)
  assert.equal(again.feed, opened[0]?.feed)
  await clock.pass(60_000)
  assert.deepEqual([started, stopped, feeds.size], [2, 1, 1])
  again.release()
  await clock.pass(31_000)
  assert.deepEqual([started, stopped, feeds.size], [2, 2, 0])
  // One that cannot start is not kept, nor is one that has ended.
  await assert.rejects(
    feeds.open('a', () => Promise.reject(new Error('down'))),
    /down/,
  )
  assert.equal(feeds.size, 0)
  const ended = await feeds.open('a', source)
  ended.feed.end()
  assert.notEqual((await feeds.open('a', source)).feed, ended.feed)
  ended.release()
  assert.deepEqual([started, stopped], [4, 2])
  const last = await feeds.open('c', source)
  feeds.close()
  last.release()
  await clock.pass(60_000)
  assert.deepEqual([started, stopped, feeds.size], [5, 5, 0], 'each is stopped once')
})

test('feeds - of those without a client the ones go on that were left last', async () => {
  const feeds = new Feeds(clock)
  const stopped: string[] = []
  const open = (name: string) => feeds.open(name, async () => () => void stopped.push(name))
  const used = await open('used')
  const names = ['first', 'second', ...Array.from({ length: MAX_IDLE_FEEDS - 2 }, (_, n) => `job ${n}`)]
  for (const name of names)
    (await open(name)).release()
    // One that is used again was left last.
  ;(await open('first')).release()
  await clock.pass(0)
  assert.deepEqual(stopped, [])
  for (const name of ['a', 'b']) (await open(name)).release()
  await clock.pass(0)
  assert.deepEqual(stopped, ['second', 'job 0'])
  assert.equal(feeds.size, MAX_IDLE_FEEDS + 1)
  await clock.pass(31_000)
  assert.equal(feeds.size, 1)
  used.release()
  feeds.close()
  assert.equal(feeds.size, 0)
})
