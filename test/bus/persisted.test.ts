// Persisted objects: what is written, who has saved, how long an object lives.

import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { MemoryBus } from '../../src/bus/index.ts'
import { ClosedError, CodecError, TooLargeError, UnavailableError } from '../../src/errors.ts'
import { onBothStores } from '../support/bus.ts'
import { disconnectFaultyBuses, FaultyBus, numbers, unavailable } from '../support/bus-client.ts'
import { ManualClock, settled } from '../support/manual-clock.ts'
import { rejectionOf, until } from '../support/wait.ts'

afterEach(disconnectFaultyBuses)

interface Thing {
  n?: number | undefined
  text?: string | undefined
  list?: unknown
}

const thing = (fields: Thing = {}): Thing => ({ n: undefined, text: undefined, list: undefined, ...fields })

const PROPERTIES: (keyof Thing & string)[] = ['n', 'text', 'list']

onBothStores('what one process saves another loads, with its types', async (w) => {
  const [one, other] = [w.open(), w.open()]
  const fields = { n: 1.5, text: '', list: [true, null, { a: Buffer.from([255]) }] }
  const saved = one.persistify('o', thing(fields), PROPERTIES)
  assert.equal(saved.persistId, 'o')
  assert.equal(await saved.save(), true)
  const loaded = other.persistify('o', thing({ n: 7 }), PROPERTIES)
  assert.equal(await loaded.load(), true)
  assert.deepEqual({ ...loaded }, fields)
  assert.equal(await other.persistify('p', thing(), PROPERTIES).load(), false)
})

onBothStores('only the listed properties are saved and loaded; load replaces all of them', async (w) => {
  const [one, other] = [w.open(), w.open()]
  const saved = one.persistify('o', { a: 1, b: 2, c: 3 }, ['a', 'b'])
  await saved.save()
  const loaded = other.persistify('o', { a: 0, b: 0, c: 0, d: 0 }, ['a', 'c', 'd'])
  assert.equal(await loaded.load(), true)
  assert.deepEqual({ ...loaded }, { a: 1, b: 0, c: undefined, d: undefined })
})

onBothStores('`undefined` is a value: it can be saved and loaded again', async (w) => {
  const [one, other] = [w.open(), w.open()]
  const saved = one.persistify('o', thing({ n: 1, text: 'x' }), PROPERTIES)
  await saved.save()
  saved.n = undefined
  assert.equal(await saved.save(), true)
  const loaded = other.persistify('o', thing({ n: 5 }), PROPERTIES)
  await loaded.load()
  assert.deepEqual({ ...loaded }, thing({ text: 'x' }))
  await other.persistify('empty', thing(), PROPERTIES).save()
  assert.equal(await one.persistify('empty', thing(), PROPERTIES).load(), true)
})

onBothStores('a change that is not assigned, but made inside a value, is saved', async (w) => {
  const [one, other] = [w.open(), w.open()]
  const list = [1]
  const saved = one.persistify('o', thing({ list }), PROPERTIES)
  await saved.save()
  list.push(2)
  await saved.save()
  const loaded = other.persistify('o', thing(), PROPERTIES)
  await loaded.load()
  assert.deepEqual(loaded.list, [1, 2])
})

onBothStores('save is false, and writes nothing, if somebody else has saved since', async (w) => {
  const [a, b] = [
    w.open().persistify('o', thing({ n: 1 }), PROPERTIES),
    w.open().persistify('o', thing(), PROPERTIES),
  ]
  await a.save()
  await b.load()
  a.n = 2
  assert.equal(await a.save(), true)
  b.text = 'lost'
  assert.equal(await b.save(), false)
  assert.equal(await b.save(), false)
  assert.equal(await b.load(), true)
  assert.deepEqual({ ...b }, thing({ n: 2 }))
  b.text = 'kept'
  assert.equal(await b.save(), true)
  assert.equal(await a.save(), false)
  await a.load()
  assert.deepEqual({ ...a }, thing({ n: 2, text: 'kept' }))
})

onBothStores('save is false if the object exists, and was never loaded here', async (w) => {
  const [a, b] = [
    w.open().persistify('o', thing({ n: 1 }), PROPERTIES),
    w.open().persistify('o', thing({ n: 2 }), PROPERTIES),
  ]
  const saved = await Promise.all([a.save(), b.save()])
  assert.deepEqual([...saved].sort(), [false, true])
  const [winner, loser] = saved[0] ? [a, b] : [b, a]
  await loser.load()
  assert.equal(loser.n, winner.n)
})

onBothStores(
  'of many that save at once one succeeds; those that load and save again all count',
  async (w) => {
    const counters = await Promise.all(
      numbers(1, 10).map(async () => w.open().persistify('counter', { n: 0 }, ['n'])),
    )
    await Promise.all(
      counters.map(async (counter) => {
        for (let done = 0; done < 5; ) {
          await counter.load()
          counter.n++
          if (await counter.save()) done++
        }
      }),
    )
    const [first] = counters
    await first?.load()
    assert.equal(first?.n, 50)
  },
)

onBothStores('1,000 objects at once', async (w) => {
  const [one, other] = [w.open(), w.open()]
  const saved = numbers(1, 1000).map((n) => one.persistify(`o${n}`, thing({ n }), PROPERTIES))
  const outcomes = await Promise.all(saved.map((object) => object.save()))
  assert.ok(outcomes.every(Boolean))
  for (const object of saved) object.persist(60_000)
  const loaded = numbers(1, 1000).map((n) => other.persistify(`o${n}`, thing(), PROPERTIES))
  await Promise.all(loaded.map((object) => object.load()))
  assert.deepEqual(
    loaded.map(({ n }) => n),
    numbers(1, 1000),
  )
  for (const object of saved) object.unpersist()
})

onBothStores('calls reject after disconnect', async (w) => {
  const bus = w.open()
  const object = bus.persistify('o', thing({ n: 1 }), PROPERTIES)
  object.persist(60_000)
  await object.save()
  await bus.disconnect()
  assert.ok((await rejectionOf(object.save())) instanceof ClosedError)
  assert.ok((await rejectionOf(object.load())) instanceof ClosedError)
  assert.throws(() => object.persist(1000), ClosedError)
  object.unpersist()
})

onBothStores('too large, or not encodable: refused, and nothing is written', async (w) => {
  const bus = w.open({ maxMessage: 1000 })
  const object = bus.persistify('o', thing({ text: 'x'.repeat(600) }), PROPERTIES)
  assert.equal(await object.save(), true)
  // All properties count, not only those that have changed.
  object.list = 'y'.repeat(600)
  assert.ok((await rejectionOf(object.save())) instanceof TooLargeError)
  object.list = new Map()
  assert.ok((await rejectionOf(object.save())) instanceof CodecError)
  object.list = 'z'
  assert.equal(await object.save(), true)
})

onBothStores('load rejects, and replaces nothing, if a property cannot be decoded', async (w) => {
  const plain = { encode: (value: unknown) => Buffer.from(String(value)), decode: String }
  const saved = w.open({ codec: plain }).persistify('o', { a: 'j1', b: '?' }, ['a', 'b'])
  await saved.save()
  const loaded = w.open().persistify('o', { a: 0, b: 0 }, ['a', 'b'])
  assert.ok((await rejectionOf(loaded.load())) instanceof CodecError)
  assert.deepEqual({ ...loaded }, { a: 0, b: 0 })
  loaded.a = 5
  assert.equal(await loaded.save(), false)
})

test('what collides with the methods, and what no name is, is refused', () => {
  const bus = new FaultyBus()
  const persistify = (object: object, properties: unknown, name: unknown = 'o') =>
    bus.persistify(name as string, object as { a: number }, properties as 'a'[])
  for (const method of ['save', 'load', 'persist', 'unpersist', 'persistId']) {
    assert.throws(() => persistify({ a: 1, [method]: 1 }, ['a']), TypeError)
    assert.throws(() => persistify({ a: 1 }, [method]), TypeError)
  }
  for (const properties of [
    [],
    undefined,
    'a',
    [1],
    [''],
    ['__proto__'],
    ['a'.repeat(257)],
    Array(1001).fill('a'),
  ])
    assert.throws(() => persistify({ a: 1 }, properties), TypeError)
  for (const name of ['', 5, 'x'.repeat(257)])
    assert.throws(() => persistify({ a: 1 }, ['a'], name), TypeError)
  assert.throws(() => persistify(5 as unknown as object, ['a']), TypeError)
  assert.throws(() => persistify(Object.freeze({ a: 1 }), ['a']), TypeError)
  const object = persistify({ a: 1 }, ['a', 'a'])
  assert.throws(() => persistify(object, ['a']), TypeError)
  assert.deepEqual(Object.keys(object), ['a'])
  for (const ttl of [0, 999, -1, Number.NaN, Number.POSITIVE_INFINITY, '1000'])
    assert.throws(() => object.persist(ttl as number), TypeError)
})

/** Records what is written. */
function scene(clock = new ManualClock()) {
  const store = new MemoryBus({ clock })
  const [here, there] = [new FaultyBus({ store }), new FaultyBus({ store })]
  const written: string[][] = []
  const { objects } = here.member.instance
  const save = objects.save.bind(objects)
  objects.save = (name, request, within) => {
    written.push([...request.properties.keys()])
    return save(name, request, within)
  }
  const persistify = (fields?: Thing) => here.persistify('o', thing(fields), PROPERTIES)
  const load = async (): Promise<Thing | undefined> => {
    const object = there.persistify('o', thing(), PROPERTIES)
    return (await object.load()) ? { ...object } : undefined
  }
  return { clock, store, here, written, persistify, load }
}

test('only what has changed is written; what has not changed is only compared', async () => {
  const { here, written, persistify, load } = scene()
  const object = persistify({ n: 1, text: 'x' })
  await object.save()
  object.n = 2
  await object.save()
  object.text = 'x'
  await object.save()
  assert.deepEqual(written, [['n', 'text'], ['n'], []])
  await object.load()
  await object.save()
  assert.deepEqual(written.at(-1), [])
  assert.deepEqual(await load(), thing({ n: 2, text: 'x' }))
  assert.equal(here.countOf('renew'), 2)
})

test('a change while save runs is not lost: the next one saves it', async () => {
  const { here, written, persistify, load } = scene()
  const object = persistify({ n: 1, text: 'x' })
  here.after = () => {
    if (object.n === 1) object.n = 2
  }
  assert.equal(await object.save(), true)
  assert.deepEqual(await load(), thing({ n: 1, text: 'x' }))
  assert.equal(await object.save(), true)
  assert.deepEqual(await load(), thing({ n: 2, text: 'x' }))
  assert.deepEqual(written.at(-1), ['n'])
})

test('calls of one object are done one after the other', async () => {
  const { written, persistify } = scene()
  const object = persistify({ n: 1 })
  const first = object.save()
  object.n = 2
  const second = object.save()
  const loading = object.load()
  assert.deepEqual(await Promise.all([first, second, loading]), [true, true, true])
  assert.equal(object.n, 2)
  assert.deepEqual(written, [['n'], []])
})

test('a save whose reply was lost is found out by the next one: the object is not taken for that of another', async () => {
  for (const isDone of [true, false]) {
    const { here, persistify, load } = scene()
    const object = persistify({ n: 1 })
    await object.save()
    object.n = 2
    const fail = () => Promise.reject(unavailable())
    if (isDone) here.after = fail
    else here.before = fail
    assert.ok((await rejectionOf(object.save())) instanceof UnavailableError)
    here.after = here.before = undefined
    object.text = 'y'
    assert.equal(await object.save(), true)
    assert.deepEqual(await load(), thing({ n: 2, text: 'y' }))
  }
})

test('an object lives for 60 s after the last save, also after one that changes nothing', async () => {
  const { clock, persistify, load } = scene()
  const object = persistify({ n: 1 })
  await object.save()
  await clock.pass(50_000)
  assert.equal(await object.save(), true)
  await clock.pass(59_000)
  assert.deepEqual(await load(), thing({ n: 1 }))
  await clock.pass(2_000)
  assert.equal(await load(), undefined)
  // It does not exist any more.
  assert.equal(await object.save(), false)
  assert.equal(await object.load(), false)
  assert.equal(object.n, 1)
  assert.equal(await object.save(), true)
  assert.deepEqual(await load(), thing({ n: 1 }))
})

test('persist keeps it until unpersist, with the given ttl, before or after the first save', async () => {
  for (const isBefore of [true, false]) {
    const { clock, here, persistify, load } = scene()
    const object = persistify({ n: 1 })
    if (isBefore) object.persist(200_000)
    await object.save()
    if (!isBefore) object.persist(200_000)
    await clock.pass(1_000_000)
    assert.deepEqual(await load(), thing({ n: 1 }))
    const renewals = here.countOf('renew')
    assert.ok(renewals >= 15 && renewals <= 16, `${renewals} renewals`)
    object.unpersist()
    await clock.pass(120_000)
    assert.deepEqual(await load(), thing({ n: 1 }))
    await clock.pass(90_000)
    assert.equal(await load(), undefined)
    assert.equal(here.countOf('renew'), renewals)
    assert.equal(here.watchers, 0)
    assert.equal(clock.pending, 0)
  }
})

test('persist again replaces the ttl; the first renewal is repeated while it fails', async () => {
  const { clock, here, persistify, load } = scene()
  const object = persistify({ n: 1 })
  await object.save()
  here.before = () => Promise.reject(unavailable())
  object.persist(10_000)
  object.persist(3_600_000)
  await clock.pass(30_000)
  here.before = undefined
  await clock.pass(1_000_000)
  assert.deepEqual(await load(), thing({ n: 1 }))
  object.unpersist()
  assert.equal(here.watchers, 0)
})

test('disconnect ends persist', async () => {
  const { clock, here, persistify } = scene()
  const object = persistify({ n: 1 })
  await object.save()
  object.persist(60_000)
  await settled()
  await here.disconnect()
  const renewals = here.countOf('renew')
  await clock.pass(100_000)
  assert.equal(here.countOf('renew'), renewals)
  await until(() => clock.pending === 0, { what: 'no timer' })
})
