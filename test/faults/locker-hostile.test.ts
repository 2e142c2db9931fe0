// Hostile keys, values, messages and records.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Locker, MemoryStore, SoloflightError, UnavailableError } from '../../src/index.ts'
import { recordKey } from '../../src/kernel/keys.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** A server, lockers that stand for processes, and all unhandled rejections and exceptions. */
async function world(count = 2) {
  const t = await setup()
  const lockers = Array.from(
    { length: count },
    () => new Locker({ redis: t.redis, cache: false, timeout: 3000 }),
  )
  for (const locker of lockers) {
    await locker.run('warm', () => 1)
    await until(() => locker.stats().subscribed, { what: 'the subscription' })
  }
  const [one, other] = lockers as [Locker, Locker]
  return {
    ...t,
    one,
    other,
    async [Symbol.asyncDispose]() {
      await Promise.all(lockers.map((locker) => locker.close({ grace: 0 })))
      await t[Symbol.asyncDispose]()
    },
  }
}

const KEYS: Record<string, string> = {
  proto: '__proto__',
  constructor: 'constructor',
  hasOwnProperty: 'hasOwnProperty',
  'CR LF': 'a\r\nSET x 1\r\n',
  NUL: 'a\0b',
  'a lone high surrogate': 'a\ud800',
  'a lone low surrogate': '\udc00a',
  'another lone surrogate': 'a\ud801',
  'the replacement of both': 'a\ufffd',
  braces: '{}',
  'a hash tag': '{tag}x',
  'an open brace': '{',
  'a pattern': '*',
  'another pattern': 'h?ll[o]',
  'a backslash': 'a\\b',
  quotes: `'"\``,
  Lua: `']] redis.call('FLUSHALL') --`,
  'a format': '%s %d %.0f',
  emoji: '🏳️‍🌈',
  'a composed letter': '\u00e9',
  'a decomposed letter': 'e\u0301',
  blank: ' ',
  'one MiB': 'x'.repeat(2 ** 20),
  'almost that': 'x'.repeat(2 ** 20 - 1),
  'a record name': recordKey('soloflight', 'other'),
  'a hashed record name': recordKey('soloflight', '{}'),
  'the imitation of a hash': 'h/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA',
}

test('hostile - any string is a key: nothing breaks, and no two collide', async () => {
  await using w = await world()
  const names = Object.keys(KEYS)
  await Promise.all(
    names.map((name) => w.one.run(KEYS[name] ?? '', ({ key }) => ({ name, length: key.length }))),
  )
  for (const name of names) {
    const key = KEYS[name] ?? ''
    assert.deepEqual(await w.other.run(key, () => 'another'), { name, length: key.length }, name)
    assert.equal((await w.other.peek(key)).status, 'done', name)
  }
  const stored = (await w.server.call('KEYS', '*')) as string[]
  assert.equal(stored.length, names.length + 1)
  for (const key of stored) assert.ok(key.startsWith('soloflight:1:') && key.length <= 200, key.slice(0, 300))
  await w.one.invalidate(...Object.values(KEYS))
  for (const name of names) assert.equal((await w.other.peek(KEYS[name] ?? '')).status, 'free', name)
  const error = await w.one
    .run(KEYS['CR LF'] ?? '', () => Promise.reject(new Error('x')))
    .catch((error) => error)
  assert.equal(error.key, KEYS['CR LF'])
})

test('hostile - waiting for such keys works', async () => {
  await using w = await world()
  for (const key of Object.values(KEYS)) {
    const gate = pDefer<string>()
    const first = w.one.run(key, () => gate.promise)
    await until(async () => (await w.one.peek(key)).status === 'locked', { what: 'the claim' })
    const second = w.other.run(key, () => 'x')
    await until(async () => (await w.one.peek(key)).lock?.parked === 1, { what: 'the park' })
    gate.resolve('done')
    assert.deepEqual(await Promise.all([first, second]), ['done', 'done'])
  }
})

test('hostile - values pass unchanged, and pollute no prototype', async () => {
  await using w = await world()
  const values = [
    JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}'),
    { $: 1, $$: { $: ['b', 'AA=='] } },
    'a\r\n$5\r\nhello\r\n',
    '\ud800 \udfff \0',
    Buffer.from([0, 255, 10, 13, 0]),
    { huge: 'x'.repeat(200_000), deep: JSON.parse('['.repeat(900) + ']'.repeat(900)) },
    2 ** 53 + 2,
    Object.fromEntries([
      ['toJSON', 'text'],
      ['then', 'no promise'],
      ['length', -1],
    ]),
  ]
  for (const [index, value] of values.entries()) {
    const gate = pDefer()
    const first = w.one.run(`key${index}`, async () => {
      await gate.promise
      return value
    })
    await until(async () => (await w.one.peek(`key${index}`)).status === 'locked', { what: 'the claim' })
    const second = w.other.run(`key${index}`, () => 'x')
    await until(async () => (await w.one.peek(`key${index}`)).lock?.parked === 1, { what: 'the park' })
    gate.resolve()
    for (const result of await Promise.all([first, second, w.other.run(`key${index}`, () => 'x')])) {
      assert.deepStrictEqual(result, value)
    }
  }
  assert.equal('polluted' in {}, false)
})

/** The park of a waiter on a key, which only Redis and its process know. */
async function placeOf(w: Setup, key: string): Promise<{ inbox: string; nonce: string }> {
  const fields = (await w.server.call('HKEYS', recordKey('soloflight', key))) as string[]
  const park = fields.find((field) => field.startsWith('@')) ?? assert.fail('no waiter is parked')
  return { inbox: park.slice(1, 23), nonce: park.slice(23) }
}

test('S3 hostile - forged and malformed messages settle nothing and break nothing', async () => {
  await using w = await world()
  const gate = pDefer<string>()
  const first = w.one.run('key', () => gate.promise)
  await until(async () => (await w.one.peek('key')).status === 'locked', { what: 'the claim' })
  const seen: unknown[] = []
  const second = w.other.run('key', () => 'x', { onProgress: (value) => seen.push(value) })
  await until(async () => (await w.one.peek('key')).lock?.parked === 1, { what: 'the park' })
  const { inbox, nonce } = await placeOf(w, 'key')
  const stranger = 'A'.repeat(22)
  const forged = [
    ...Array.from({ length: 200 }, (_, length) => randomBytes(length)),
    ...['', '1', '1'.repeat(23), '\n', ' ', '\0'].map((text) => Buffer.from(text)),
    // Well-formed, but for an unknown nonce or one that is not parked.
    ...[stranger, inbox, nonce.toLowerCase() === nonce ? stranger : nonce.toLowerCase()].map((other) =>
      Buffer.from(`1${other}v 9007199254740991 60000 0\nj"forged"`),
    ),
    // The right nonce, in another version or with a malformed header.
    ...[
      `2${nonce}v 9007199254740991 60000 0\nj"forged"`,
      `0${nonce}f`,
      `1${nonce}`,
      `1${nonce}v`,
      `1${nonce}v\nj"forged"`,
      `1${nonce}v x y z\nj"forged"`,
      `1${nonce}v -1 5 0\nj"forged"`,
      `1${nonce}v 1e9 5 0\nj"forged"`,
      `1${nonce}v 99999999999999999999 5 0\nj"forged"`,
      `1${nonce}e 5\nj{}`,
      `1${nonce}v 5 Infinity 0\nj"forged"`,
      `1${nonce}v 0 60000 0\nj"forged"`,
      `1${nonce}?`,
      `1${nonce}\u0000`,
      `1${nonce}z 1 2 3\nj1`,
      // Well-formed hints that are false: the waiter reads the record, and goes on waiting.
      `1${nonce}m`,
      `1${nonce}f`,
      `1${nonce}p\n`,
      `1${nonce}p\nnot what a codec wrote`,
      `1${nonce}p\nx{"$":["?","AA=="]}`,
    ].map((text) => Buffer.from(text)),
  ]
  const publisher = await w.client()
  const receivers = forged.flatMap((message) => [
    publisher.publish(`soloflight:1:inbox:${inbox}`, message),
    publisher.publish('soloflight:1:all', message),
  ])
  assert.deepEqual(
    await Promise.all(receivers),
    forged.flatMap(() => [1, 2]),
  )
  for (const broadcast of [
    '1',
    '15 ',
    `1999999999999999999999 ${recordKey('soloflight', 'key')}`,
    '1x y',
    '15 nobody',
    '2',
    '1-5 k',
  ]) {
    await publisher.publish('soloflight:1:all', broadcast)
  }
  const settled = await Promise.race([second.then(() => true), w.other.run('later', () => false)])
  assert.equal(settled, false, 'it still waits')
  gate.resolve('true')
  assert.deepEqual(await Promise.all([first, second]), ['true', 'true'])
  assert.deepEqual(seen, [])
  assert.equal(await w.other.run('key', () => 'x'), 'true')
})

test('S4 hostile - a forged broadcast costs a cached result, and nothing else', async () => {
  await using t = await setup()
  await using locker = new Locker({ redis: t.redis })
  await locker.run('warm', () => 1)
  await until(() => locker.stats().subscribed, { what: 'the subscription' })
  const { cached } = locker.stats()
  await locker.run('key', () => 'value')
  assert.equal(locker.stats().cached, cached + 1)
  await (await t.client()).publish('soloflight:1:all', `19007199254740991 ${recordKey('soloflight', 'key')}`)
  await until(() => locker.stats().cached === cached, { what: 'the drop' })
  assert.equal(await locker.run('key', () => 'unused'), 'value')
})

test('L1 hostile - a record of another Redis type is a typed error, for that key only', async () => {
  await using w = await world()
  const makers: Record<string, (key: string) => Promise<unknown>> = {
    list: (key) => w.server.call('RPUSH', key, 'x'),
    string: (key) => w.server.call('SET', key, 'x'),
    set: (key) => w.server.call('SADD', key, 'x'),
    stream: (key) => w.server.call('XADD', key, '*', 'a', 'b'),
  }
  for (const [type, make] of Object.entries(makers)) {
    await make(recordKey('soloflight', type))
    const asks: Record<string, () => Promise<unknown>> = {
      run: () => w.one.run(type, () => 1),
      refresh: () => w.one.run(type, () => 1, { refresh: true }),
      request: () => w.one.request(type),
      peek: () => w.one.peek(type),
      invalidate: () => w.one.invalidate(type),
    }
    for (const [name, ask] of Object.entries(asks)) {
      await assert.rejects(ask(), (error: Error) => {
        assert.ok(error instanceof UnavailableError, `${name}: ${error}`)
        assert.match(error.message, /WRONGTYPE/)
        return true
      })
    }
    assert.equal(await w.server.call('TYPE', recordKey('soloflight', type)), type)
  }
  const mixed = ['list', 'good', 'set', 'better'].map((key) => w.other.run(key, () => key))
  const statuses = (await Promise.allSettled(mixed)).map(({ status }) => status)
  assert.deepEqual(statuses, ['rejected', 'fulfilled', 'rejected', 'fulfilled'])
})

const GARBAGE = [
  '',
  'abc',
  '-1',
  '0x10',
  'nan',
  'inf',
  '-inf',
  '1e300',
  '99999999999999999999',
  '1.5',
  ' 7 ',
  '\0',
  '9007199254740993',
  '{"a":1}',
]
const FIELDS = [
  'v',
  'vf',
  'vu',
  'va',
  'o',
  'u',
  'l',
  'h',
  'c',
  'g',
  's',
  'k',
  'su',
  'e',
  'eu',
  'n',
  'f',
  'd',
  '@',
  '@short',
]

test('L1 hostile - with corrupt records every waiter ends in time, with a result or a typed error', async () => {
  await using w = await world()
  const client = await w.client()
  const key = recordKey('soloflight', 'key')
  const far = String(Date.now() + 60_000)
  const valid = { f: '5', v: 'j1', vf: '5', vu: far, va: '1', s: '5', k: 'v', su: far, n: '0' }
  const leased = { f: '5', o: 'somebody', u: String(Date.now() + 60_000), l: '100', h: 'host:1', n: '0' }
  for (const field of FIELDS) {
    await Promise.all(
      GARBAGE.map(async (text, index) => {
        // The largest fence has its own test below.
        if (field === 'f' && Number(text) >= Number.MAX_SAFE_INTEGER) return
        for (const [name, base] of Object.entries({ valid, leased })) {
          const own = `${field} ${index} ${name}`
          const record = recordKey('soloflight', own)
          await client.hset(record, { ...base, [field]: text })
          const options = { timeout: 150, onProgress() {} }
          const asks = [
            w.one.run(own, () => 'anew', options),
            w.other.run(own, () => 'anew', { ...options, refresh: true }),
            w.one.peek(own),
            w.one.invalidate(own),
          ]
          for (const outcome of await Promise.allSettled(asks)) {
            if (outcome.status === 'fulfilled') continue
            assert.ok(outcome.reason instanceof SoloflightError, `${own}: ${outcome.reason}`)
          }
        }
      }),
    )
  }
  await client.del(key)
  assert.equal(await w.one.run('key', () => 'healthy'), 'healthy')
  assert.deepEqual([w.one.stats().waiters, w.other.stats().waiters], [0, 0])
})

test('L1 hostile - with the largest possible fence, waiters end in time, and close resolves', async () => {
  const store = new MemoryStore()
  const locker = new Locker({ store, cache: false, timeout: 500 })
  const record = recordKey('soloflight', 'key')
  store.apply(record, (found, at) => {
    found.fence = 2 ** 53
    const shown = { holder: '', trace: '', progress: undefined }
    found.lease = { token: 'x', expiresAt: at.now + 100, length: 100, ...shown, notifyUnwanted: false }
    found.expiresAt = at.now + 60_000
  })
  const refresh = locker.run('key', () => 'anew', { refresh: true })
  await locker.invalidate('key')
  await refresh.catch((error) =>
    assert.ok(error instanceof SoloflightError, 'error instanceof SoloflightError'),
  )
  assert.equal(locker.stats().waiters, 0)
  const closed = locker.close({ grace: 0 }).then(() => true)
  const tooLong = new Promise((resolve) => setTimeout(resolve, 2000, false))
  assert.equal(await Promise.race([closed, tooLong]), true, 'close has not ended after 2 s')
})

test('L1 hostile - a corrupt value is a miss: it is computed again, and replaced', async () => {
  await using w = await world()
  const client = await w.client()
  const record = recordKey('soloflight', 'key')
  await w.one.run('key', () => 'good')
  for (const bytes of ['', 'j{', 'x{"$":["?",""]}', '\0', `j${'['.repeat(200_000)}`, 'td123']) {
    await client.hset(record, 'v', bytes)
    assert.equal(
      await w.other.run('key', () => `instead of ${bytes.slice(0, 9)}`),
      `instead of ${bytes.slice(0, 9)}`,
    )
    assert.equal(await w.one.run('key', () => 'unused'), `instead of ${bytes.slice(0, 9)}`)
  }
  assert.equal(w.other.stats().undecodable, 6)
})

test('hostile - a corrupt failure is still a RemoteError', async () => {
  await using w = await world()
  const client = await w.client()
  const record = recordKey('soloflight', 'key')
  const hostile = [
    '',
    'x',
    'j[]',
    'jnull',
    'j{"name":{"a":1},"message":[1],"fields":7,"cause":3}',
    `j${'{"cause":'.repeat(5000)}1${'}'.repeat(5000)}`,
  ]
  for (const bytes of hostile) {
    await w.one
      .run('key', () => Promise.reject(new Error('x')), { errorTtl: 60_000, refresh: true })
      .catch(() => {})
    await client.hset(record, 'e', bytes)
    const error = await w.other.run('key', () => 'unused').catch((error) => error)
    assert.equal(error.code, 'E_REMOTE', bytes.slice(0, 50))
    assert.equal(typeof error.message, 'string')
    assert.equal(typeof error.remote.name, 'string')
  }
  const proto = 'j{"name":"E","message":"m","fields":{"__proto__":{"polluted":1}},"__proto__":{"polluted":1}}'
  await client.hset(record, 'e', proto)
  const error = await w.other.run('key', () => 'unused').catch((error) => error)
  assert.equal(error.remote.polluted, undefined)
  assert.equal('polluted' in {}, false)
})

test('hostile - fields of an error that are named like prototype members are data', async () => {
  await using w = await world()
  const thrown = Object.defineProperty(
    Object.assign(new Error('x'), { constructor: 'c', toString: 1 }),
    '__proto__',
    {
      value: { polluted: 1 },
      enumerable: true,
    },
  )
  await w.one.run('key', () => Promise.reject(thrown), { errorTtl: 60_000 }).catch(() => {})
  const error = await w.other.run('key', () => 'unused').catch((error) => error)
  assert.deepEqual(Object.keys(error.remote.fields).sort(), ['__proto__', 'constructor', 'toString'])
  assert.equal(error.polluted, undefined)
  assert.equal('polluted' in {}, false)
})
