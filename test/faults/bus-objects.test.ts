// Persisted objects of a bus while connections are cut, and while the server is restarted and emptied.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bus } from '../../src/bus/index.ts'
import { UnavailableError } from '../../src/errors.ts'
import { setup } from '../support/setup.ts'
import { rejectionOf, until } from '../support/wait.ts'

test('connections that end while objects are saved: no save is lost, doubled, or taken for that of another', async () => {
  await using t = await setup()
  await using bus = new Bus({ redis: t.redis })
  const object = bus.persistify('o', { n: 0 }, ['n'])
  for (let n = 1; n <= 200; n++) {
    object.n = n
    const saving = until(() => object.save(), { what: `save ${n}`, timeout: 10_000 })
    if (n % 10 === 0) await t.server.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await saving
  }
  await using other = new Bus({ redis: t.redis })
  const loaded = other.persistify('o', { n: 0 }, ['n'])
  assert.equal(await loaded.load(), true)
  assert.equal(loaded.n, 200)
})

test('a save while the server is frozen rejects; the next one finds out what has become of it', async () => {
  await using t = await setup()
  await using bus = new Bus({ redis: t.redis, unavailableAfter: 300 })
  const object = bus.persistify('o', { n: 1 }, ['n'])
  assert.equal(await object.save(), true)
  await t.server.freeze()
  object.n = 2
  assert.ok((await rejectionOf(object.save())) instanceof UnavailableError)
  t.server.thaw()
  object.n = 3
  const outcome = await until(async () => ({ saved: await object.save() }), { what: 'a reply' })
  assert.equal(outcome.saved, true)
  await using other = new Bus({ redis: t.redis })
  const loaded = other.persistify('o', { n: 0 }, ['n'])
  await loaded.load()
  assert.equal(loaded.n, 3)
})

test('an object that was lost with its server, or by FLUSHALL: save is false, load too, and then save creates it', async () => {
  await using t = await setup()
  await using bus = new Bus({ redis: t.redis })
  const object = bus.persistify('o', { n: 1, text: 'x' }, ['n', 'text'])
  object.persist(60_000)
  for (const lose of [() => t.server.restart(), () => t.server.call('FLUSHALL')]) {
    assert.equal(await object.save(), true)
    await lose()
    object.n++
    const { saved } = await until(async () => ({ saved: await object.save() }), { what: 'a reply' })
    assert.equal(saved, false)
    assert.equal(await object.load(), false)
    assert.equal(await object.save(), true)
    await using other = new Bus({ redis: t.redis })
    const loaded = other.persistify('o', { n: 0, text: '' }, ['n', 'text'])
    assert.equal(await loaded.load(), true)
    assert.deepEqual({ ...loaded }, { ...object })
  }
  object.unpersist()
})

test('persist keeps an object on the server, and it expires after unpersist', async () => {
  await using t = await setup()
  await using bus = new Bus({ redis: t.redis })
  await using other = new Bus({ redis: t.redis })
  const object = bus.persistify('o', { n: 1 }, ['n'])
  const loaded = other.persistify('o', { n: 0 }, ['n'])
  object.persist(1000)
  await object.save()
  const start = performance.now()
  while (performance.now() - start < 3000) assert.equal(await loaded.load(), true)
  object.unpersist()
  await until(async () => !(await loaded.load()), { what: 'the expiry' })
})
