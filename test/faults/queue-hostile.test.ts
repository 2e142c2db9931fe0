// Hostile payloads, names and keys.

import assert from 'node:assert/strict'
import { CodecError, type RedisQueue, TooLargeError } from '../../src/index.ts'
import { onBothStores, outcomeOf } from '../support/stores.ts'

/** The register of queues belongs to none of them. */
const REGISTER = 'soloflight:1:queues'

const cycle: Record<string, unknown> = { a: [{}] }
;(cycle['a'] as object[])[0] = cycle

function nested(depth: number): unknown {
  let value: unknown = 'end'
  for (let level = 0; level < depth; level++) value = level % 2 ? [value] : { a: value }
  return value
}

class Money {
  amount = 5
}

/** Values that JSON would change or cannot represent, with the path that the error names. */
const REFUSED: [unknown, RegExp][] = [
  [Number.NaN, /NaN at \$ /],
  [{ a: { b: Number.POSITIVE_INFINITY } }, /Infinity at \$\.a\.b /],
  [JSON.parse('{"n":1e400}'), /Infinity at \$\.n /],
  [[1, 5n], /bigint at \$\[1\] /],
  [cycle, /cycle at \$\.a\[0\] /],
  ['\ud800', /lone surrogate at \$ /],
  [{ deep: ['x\udc00y'] }, /lone surrogate at \$\.deep\[0\] /],
  [{ '\ud800': 1 }, /lone surrogate at \$ /],
  [() => 1, /function at \$ /],
  [{ 'odd name': Symbol('x') }, /symbol at \$\["odd name"\] /],
  [{ [Symbol('x')]: 1 }, /symbol as key at \$ /],
  [{ at: new Date(0) }, /Date.* at \$\.at /],
  [{ m: new Map([[1, 2]]) }, /Map at \$\.m /],
  [new Set(), /Set at \$ /],
  [{ money: new Money() }, /Money at \$\.money /],
  [{ price: { toJSON: () => 5 } }, /at \$\.price/],
  [{ bytes: Buffer.from('x') }, /binary value at \$\.bytes /],
  [[undefined], /undefined at \$\[0\] /],
  [new Array(2), /array with holes/],
  [new Error('x'), /Error at \$ /],
  [nested(200_000), /Nesting deeper than 1000 at \$\[0\]\.a\[0\]/],
  [nested(1001), /Nesting deeper than 1000/],
]

onBothStores('hostile - a payload that JSON would change is refused, with the path to it', async (w) => {
  const queue = w.open()
  for (const [payload, message] of REFUSED) {
    for (const ask of [
      () => queue.submit('work', payload),
      () => queue.enqueue('work', payload, { dedupe: 'key' }),
      () => queue.enqueueMany([{ command: 'work', payload }]),
    ]) {
      const { error } = await outcomeOf(ask())
      assert.ok(error instanceof CodecError && error.code === 'E_CODEC', `${message}: ${error}`)
      assert.match(error.message, message)
    }
  }
  assert.equal((await queue.counts()).waiting, 0)
})

onBothStores('hostile - a payload that lies or throws while it is read is refused', async (w) => {
  const queue = w.open()
  const throwing = {
    get a(): never {
      throw new Error('no')
    },
  }
  let reads = 0
  const changing = {
    get a(): unknown {
      return ++reads > 1 ? 5n : 1
    },
  }
  for (const payload of [throwing, changing]) {
    const { error } = await outcomeOf(queue.submit('work', payload))
    assert.ok(error instanceof Error, `${error}`)
  }
  assert.equal((await queue.counts()).waiting, 0)
})

onBothStores('hostile - fields of every name are ordinary fields, and change nothing', async (w) => {
  const [here, there] = [w.open(), w.open()]
  const payloads = [
    JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}'),
    JSON.parse('{"a":[{"__proto__":null}]}'),
    JSON.parse('{"hasOwnProperty":1,"toString":"x","valueOf":null,"then":"x","length":-1,"toJSON":"x"}'),
    { $: 1, $$: { $: ['b', 'AA=='] } },
    'a\r\n$5\r\nhello\r\n\0',
    { '': { ' ': '\u2028', '\r\n': '\ufffd' } },
    nested(1000),
    9007199254740994,
    [1e-320, 1.7976931348623157e308, 0.1, -1e21],
  ]
  const seen: unknown[] = []
  here.process('echo', (payload) => {
    seen.push(payload)
    return payload
  })
  for (const payload of payloads) {
    assert.deepStrictEqual(await there.submit('echo', payload), payload)
    assert.deepStrictEqual(seen.at(-1), payload)
    const { id } = await there.enqueue('echo', payload)
    assert.deepStrictEqual((await there.status(id))?.payload, payload)
  }
  assert.equal('polluted' in {}, false)
  assert.equal(await there.submit('echo', JSON.parse('9007199254740993')), 2 ** 53)
})

onBothStores('hostile - a payload above maxPayload is refused, in bytes of JSON', async (w) => {
  const [small, usual] = [w.open({ maxPayload: 10 }), w.open()]
  small.process('length', (text: string) => text.length)
  assert.equal(await small.submit('length', 'x'.repeat(8)), 8)
  assert.equal(await small.submit('length', 'é'.repeat(4)), 4)
  const large = ['x'.repeat(9), 'é'.repeat(5), { abcdef: 1 }]
  for (const payload of large) {
    const { error } = await outcomeOf(small.submit('length', payload))
    assert.ok(error instanceof TooLargeError && error.code === 'E_TOO_LARGE', `${error}`)
    assert.match(error.message, /has 1[12] bytes; `maxPayload` is 10/)
  }
  assert.equal(await usual.submit('length', 'x'.repeat(2 ** 20 - 2)), 2 ** 20 - 2)
  await assert.rejects(usual.submit('length', 'x'.repeat(2 ** 20 - 1)), TooLargeError)
})

const NAMES = [
  ...['a', '__proto__', 'constructor', 'hasOwnProperty', ' ', '  ', '{}', '{', '}', '{tag}x', '{a}'],
  ...['a\r\nSET x 1\r\n', 'a\0b', '\ud800', '\udc00', 'a\ud801', '\ufffd', '*', 'h?ll[o]', 'a\\b', '%s %d'],
  ...[
    "']] redis.call('FLUSHALL') --",
    '😀',
    '\u00e9',
    'e\u0301',
    'a:b',
    'a/b',
    'j/x',
    '/',
    'w/a',
    ':1:{queue}t',
  ],
  ...['x'.repeat(64), 'x'.repeat(65), 'x'.repeat(256), 'é'.repeat(256), 'null', 'undefined', '0', '!', 'P'],
]
/** A lone surrogate has no UTF-8 form, so it may be in a key, but not in a name. */
const names = NAMES.filter((name) => name.isWellFormed())

onBothStores(
  'hostile - any string is a name of a command: none breaks anything, and no two collide',
  async (w) => {
    const [here, there] = [w.open(), w.open()]
    for (const name of names) here.process(name, (_, job) => [name, job.command])
    for (const name of names) {
      assert.deepStrictEqual(await there.submit(name, 'same payload'), [name, name])
      const { id } = await there.enqueue(name, 'same payload')
      assert.equal((await there.status(id))?.command, name)
    }
    for (const name of names) {
      await there.pause(name)
      assert.deepEqual(await there.paused(), [name])
      const job = await there.enqueue(name, 'paused', { priority: 1 })
      assert.equal((await there.counts()).waiting, 1, JSON.stringify(name))
      await there.resume(name)
      assert.deepStrictEqual(await job.result(), [name, name])
    }
    const keys = ((await w.t?.server.call('KEYS', '*')) ?? []) as string[]
    for (const key of keys.filter((each) => each !== REGISTER))
      assert.ok(key.startsWith('soloflight:1:{queue}') && key.length < 200, key)
  },
)

onBothStores('hostile - names of queues too', async (w) => {
  const queues: RedisQueue[] = []
  for (const name of names) {
    const queue = w.open({}, name)
    queue.process('work', (_, job) => job.queue)
    queues.push(queue)
  }
  for (const [index, queue] of queues.entries()) assert.equal(await queue.submit('work'), names[index])
  const keys = ((await w.t?.server.call('KEYS', '*')) ?? []) as string[]
  if (!w.t) return
  const tags = new Set(
    keys.filter((key) => key !== REGISTER).map((key) => /^soloflight:1:\{([^{}]+)\}/.exec(key)?.[1]),
  )
  assert.equal(tags.size, names.length, 'a hash tag of its own for each')
  assert.ok(!tags.has(undefined), `${keys}`)
})

onBothStores('hostile - dedupe keys are keys: none breaks anything, and none is another', async (w) => {
  const [here, there] = [w.open(), w.open()]
  here.process('work', (payload) => payload)
  const long = 'x'.repeat(2 ** 20)
  const all = [...NAMES, long, `${long.slice(1)}y`, `${long}x`]
  for (const [index, dedupe] of all.entries()) {
    assert.equal(await there.submit('work', index, { dedupe }), index, JSON.stringify(dedupe.slice(0, 50)))
  }
  for (const [index, dedupe] of all.entries()) {
    assert.equal((await there.enqueue('work', index, { dedupe })).disposition, 'cached')
  }
  // Names that would collide if key parts were joined without escaping.
  const pairs: [string, unknown, string | undefined][] = [
    ['a', undefined, 'bc'],
    ['ab', undefined, 'c'],
    ['a', 'bc', undefined],
    ['ab', 'c', undefined],
    ['a', undefined, '"bc"'],
    ['key 1 a', undefined, 'bc'],
    ['a', undefined, 'key 1 abc'],
    ['a', undefined, 'a\0'],
    ['a\0', undefined, 'a'],
  ]
  const jobs = await there.enqueueMany(
    pairs.map(([command, payload, dedupe]) => ({ command, payload, options: { dedupe } })),
  )
  assert.equal(new Set(jobs.map(({ id }) => id)).size, pairs.length)
})

onBothStores('hostile - a name with half a character is refused', async (w) => {
  const queue = w.open()
  const half = /^TypeError: Expected `(name|command)` to be .*, got one with a lone surrogate$/
  for (const name of ['\ud800', 'a\udc00b']) {
    assert.throws(() => w.open({}, name), half)
    assert.throws(() => queue.process(name, () => 1), half)
    for (const ask of [queue.submit(name), queue.enqueue(name), queue.pause(name)])
      await assert.rejects(ask, half)
  }
})
