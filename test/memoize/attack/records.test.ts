// Another client of the same Redis changes records or sends messages. A record that the cache did not write counts as none. A
// message is a hint: a forged one costs at most a stored response. A client that may write keys can also write whole, valid
// records: see docs/threat-model.md.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { describe, test } from 'node:test'
import type { Redis } from 'ioredis'
import pDefer from 'p-defer'
import { type App, reflecting, Site } from '../../support/attack-scene.ts'
import { type Setup, setup } from '../../support/setup.ts'
import { until } from '../../support/wait.ts'

const FULL = process.env['ATTACK'] === 'full'

const PAGE = 'GET /page of shop.example for nobody'
/** As long as the genuine body. */
const EVIL = 'evil'.repeat(9)

/** A page that one process has stored, and that another process requests, which has no in-process cache. */
class Kept implements AsyncDisposable {
  readonly t: Setup
  readonly site: Site
  readonly client: Redis
  /** The record, and the value that the cache wrote. */
  key = ''
  value: Buffer = Buffer.alloc(0)

  private constructor(t: Setup, site: Site, client: Redis) {
    this.t = t
    this.site = site
    this.client = client
  }

  static async start(app?: App): Promise<Kept> {
    const t = await setup()
    const kept = new Kept(t, new Site(app), await t.client())
    for (let i = 0; i < 2; i++) await kept.site.open('node', { redis: t.redis, cache: false })
    await kept.site.ask('GET /page')
    kept.key = (await kept.client.keys('*')).find((key) => /:wh?\//.test(key)) ?? ''
    kept.value = (await kept.client.hgetBuffer(kept.key, 'v')) ?? Buffer.alloc(0)
    assert.ok(kept.value.includes('{"kind":"response"'), 'the record has a response')
    return kept
  }

  /** Writes a value into the record. Returns the body that the next request gets. */
  async tamper(value: Buffer, what: string, status?: number): Promise<string> {
    await this.client.hset(this.key, 'v', value)
    const answer = await this.site.ask('GET /page')
    answer.check(status === undefined ? {} : { status }, what)
    assert.ok(answer.status >= 200 && answer.whole, `${what}: ${answer.text}`)
    return answer.body
  }

  /** Whether a process waits for a page that another makes. */
  async parked(): Promise<boolean> {
    const fields = (await this.client.keys('*:w*')).map((key) => this.client.hkeys(key))
    return (await Promise.all(fields)).flat().some((field) => field.startsWith('@'))
  }

  /** The value with another header, JSON or not. */
  withHead(head: string | object, body = EVIL): Buffer {
    const text = Buffer.from(typeof head === 'string' ? head : JSON.stringify(head))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(text.length)
    const before = this.value.subarray(0, this.value.indexOf('{"kind"') - 4)
    return Buffer.concat([before, length, text, Buffer.from(body)])
  }

  /** The header of the genuine value. */
  get head(): { fields: string[]; plan: object } & Record<string, unknown> {
    const start = this.value.indexOf('{"kind"')
    return JSON.parse(this.value.toString('utf8', start, start + this.value.readUInt32BE(start - 4)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.site[Symbol.asyncDispose]()
    await this.t[Symbol.asyncDispose]()
  }
}

describe('records', () => {
  test('truncated at any byte: the page is made again', async () => {
    await using kept = await Kept.start()
    for (let length = 0; length < kept.value.length; length++)
      assert.equal(await kept.tamper(kept.value.subarray(0, length), `${length} bytes`, 200), PAGE)
  })

  test('with trailing bytes: the page is made again', async () => {
    await using kept = await Kept.start()
    for (const more of ['e', '\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil', '\0'.repeat(70_000)])
      assert.equal(
        await kept.tamper(Buffer.concat([kept.value, Buffer.from(more)]), more.slice(0, 9), 200),
        PAGE,
      )
  })

  test('with any bit flipped: one response of one length', async () => {
    await using kept = await Kept.start()
    const step = FULL ? 1 : 5
    for (let at = 0; at < kept.value.length; at += step) {
      const changed = Buffer.from(kept.value)
      changed[at] = (changed[at] as number) ^ (1 << (at % 8))
      await kept.tamper(changed, `byte ${at}`)
    }
  })

  test('of random bytes', async () => {
    await using kept = await Kept.start()
    for (let length = 0; length < 300; length += 7)
      assert.equal(await kept.tamper(randomBytes(length), `${length} random bytes`, 200), PAGE)
  })

  test('with an invalid header: the page is made again', async () => {
    await using kept = await Kept.start()
    const { head } = kept
    const field = (...fields: unknown[]) => ({ ...head, fields: [...head.fields.slice(0, 4), ...fields] })
    const heads: [string, string | object][] = [
      ['no JSON', 'evil'],
      ['nothing', ''],
      ['null', 'null'],
      ['an array', '[]'],
      ['a number', '1e999'],
      ['depth', '['.repeat(100_000)],
      ['another kind', { ...head, kind: '__proto__' }],
      ['no kind', { ...head, kind: undefined }],
      ['status of 1xx', { ...head, status: 101 }],
      ['status 600', { ...head, status: 600 }],
      ['status as text', { ...head, status: '200' }],
      ['status 200.5', { ...head, status: 200.5 }],
      ['a reason of two lines', { ...head, text: 'OK\r\nX-Evil: 1' }],
      ['a field of two lines', field('x-evil', 'a\r\nset-cookie: evil=1')],
      ['a name of two lines', field('x-evil\r\nset-cookie', 'evil=1')],
      ['a name with a blank', field('x evil', '1')],
      ['an empty name', field('', '1')],
      ['a field that is no text', field('x-evil', { a: 1 })],
      ['a NUL', field('x-evil', '\0')],
      ['characters beyond Latin-1', field('x-evil', '\u{1F600}')],
      ['a length that is not that of the body', field('content-length', '5')],
      ['two lengths', field('content-length', '36', 'content-length', '5')],
      ['a length that is none', field('content-length', 'evil')],
      ['an age that is none', { ...head, plan: { ...head.plan, age: 'x' } }],
      ['a negative lifetime', { ...head, plan: { ...head.plan, lifetime: -1 } }],
      ['a lifetime of null', { ...head, plan: { ...head.plan, lifetime: null } }],
      ['no plan', { ...head, plan: undefined }],
      ['an index without names', { kind: 'index', index: { id: 'i' } }],
      ['an index whose names are a text', { kind: 'index', index: { names: 'evil', id: 'i' } }],
      ['an index without an id', { kind: 'index', index: { names: [] } }],
    ]
    for (const [what, forged] of heads)
      assert.equal(await kept.tamper(kept.withHead(forged), what, 200), PAGE, what)
  })

  test('with a well-formed header that this cache does not write: nothing breaks', async () => {
    await using kept = await Kept.start()
    const { head } = kept
    const names = (list: string[]) => ({ kind: 'index', index: { names: list, id: 'i' } })
    for (const [what, forged] of [
      ['an index of prototypes', names(['__proto__', 'constructor', 'toString'])],
      ['an index of names that are none', names(['', ' ', '\r\n', '*', 'X-AUTH'])],
      ['an index of many names', names(Array.from({ length: 20_000 }, (_, i) => `x-${i}`))],
      ['for one alone', { kind: 'alone' }],
      [
        'fields of a connection',
        { ...head, fields: ['transfer-encoding', 'chunked', 'connection', 'x', 'trailer', 'x'] },
      ],
      [
        'prototypes',
        JSON.stringify(head).replace(
          '{',
          '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},',
        ),
      ],
      ['fields named like prototypes', { ...head, fields: ['__proto__', 'x', 'constructor', 'y'] }],
      ['an odd number of fields', { ...head, fields: ['x-a', 'b', 'x-c'] }],
      ['an enormous lifetime', { ...head, plan: { ...head.plan, lifetime: 1e308, age: 1e308 } }],
    ] as const) {
      const body = await kept.tamper(kept.withHead(forged, PAGE), what, 200)
      assert.equal(body, PAGE, what)
    }
    assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
  })

  test('of another type, or with other fields: the request is answered, and so is the next', async () => {
    for (const [what, change] of [
      ['a string', (client: Redis, key: string) => client.set(key, 'evil')],
      ['a list', (client: Redis, key: string) => client.rpush(key, 'evil')],
      ['no value', (client: Redis, key: string) => client.hset(key, 'x', 'evil')],
      [
        'every field evil',
        (client: Redis, key: string) =>
          client.hset(key, { v: 'evil', f: 'evil', k: 'evil', vu: 'evil', s: 'evil', vf: 'evil' }),
      ],
      [
        'a fence without end',
        (client: Redis, key: string) => client.hset(key, { f: '9'.repeat(400), s: '9'.repeat(400) }),
      ],
    ] as const) {
      await using kept = await Kept.start()
      await kept.client.del(kept.key)
      await change(kept.client, kept.key)
      const answer = await kept.site.ask('GET /page')
      assert.ok([200, 500, 503].includes(answer.status), `${what}: ${answer.text}`)
      assert.ok(!answer.text.includes('evil'), `${what}: ${answer.text}`)
      const other = await kept.site.ask('GET /other')
      other.check({ status: 200, has: '/other of shop.example' }, what)
    }
  })
})

describe('messages', () => {
  /** All messages that are published while `during` runs. */
  async function overheard(
    t: Setup,
    during: () => Promise<unknown>,
  ): Promise<[channel: string, message: Buffer][]> {
    const listener = await t.client()
    const heard: [string, Buffer][] = []
    listener.on('pmessageBuffer', (_pattern: Buffer, channel: Buffer, message: Buffer) =>
      heard.push([channel.toString(), message]),
    )
    await listener.psubscribe('*')
    await during()
    await listener.ping()
    listener.disconnect()
    return heard
  }

  test('recorded, and replayed with another text: no waiting request gets it', async () => {
    let gate = pDefer<void>()
    let slow = false
    let running = 0
    await using kept = await Kept.start(async (seen) => {
      running++
      if (slow) await gate.promise
      return reflecting(seen)
    })
    slow = true
    const crowd = (path: string) => Promise.all(Array.from({ length: 4 }, () => kept.site.ask(`GET ${path}`)))
    const heard = await overheard(kept.t, async () => {
      const before = running
      const waiting = crowd('/slow')
      await until(() => running > before, { what: 'the page to be made' })
      await until(() => kept.parked(), { what: 'the other process to wait for it' })
      gate.resolve()
      await waiting
    })
    assert.ok(heard.length > 0, 'messages were heard')
    gate = pDefer()
    const before = running
    const waiting = crowd('/next')
    await until(() => running > before, { what: 'the next page to be made' })
    await until(() => kept.parked(), { what: 'the other process to wait for that' })
    for (const [channel, message] of heard) {
      const line = message.indexOf('\n')
      const head = message.subarray(0, line + 1)
      const texts = [
        message,
        message.subarray(0, 20),
        Buffer.concat([head, Buffer.from('evil')]),
        kept.withHead(kept.head),
      ]
      for (const text of [...texts, Buffer.concat([head, kept.withHead(kept.head)])])
        await kept.client.publish(channel, text)
    }
    gate.resolve()
    for (const answer of await waiting)
      answer.check({ status: 200, has: '/next of shop.example', lacks: 'evil' }, 'who waited')
  })

  test('forged: they cost at most a stored response', async () => {
    await using kept = await Kept.start()
    const { key, client } = kept
    const channels = (await client.pubsub('CHANNELS', '*')) as string[]
    assert.ok(channels.length > 1, `${channels}`)
    const texts = [
      '',
      '1',
      '1*',
      '1*22:',
      `1*99999999999:`,
      `1${'A'.repeat(22)}v 1 60000 0\nevil`,
      `1t9999999999999999 ${key}`,
      `19999999999999999 ${key}`,
      `1t1 \0w/page`,
      `1${key}`,
      '\0'.repeat(1_000),
      '1 '.repeat(50_000),
    ]
    for (const channel of channels) for (const text of texts) await client.publish(channel, text)
    for (let i = 0; i < 4; i++)
      (await kept.site.ask('GET /page')).check(
        { status: 200, has: PAGE, lacks: 'evil' },
        'after the messages',
      )
  })
})
