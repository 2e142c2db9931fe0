// TransientMap, TransientSet and Fifo behave like Map, Set and an array.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fifo, SortedIds, TransientMap, TransientSet } from '../../src/kernel/collections.ts'

/** Few keys and many steps: each run rebuilds the collection several times. */
const STEPS = { minLength: 600, maxLength: 1500 }

test('collections - a TransientMap behaves like a Map, however often it is rebuilt', () => {
  const step = fc.tuple(fc.boolean(), fc.nat(40))
  fc.assert(
    fc.property(fc.array(step, STEPS), (steps) => {
      const [map, model] = [new TransientMap<number, number>(), new Map<number, number>()]
      for (const [at, [adds, key]] of steps.entries()) {
        if (adds) {
          map.set(key, at)
          model.set(key, at)
        } else assert.equal(map.delete(key), model.delete(key))
        assert.deepEqual([map.size, map.get(key), map.has(key)], [model.size, model.get(key), model.has(key)])
      }
      assert.deepEqual([...map.values()], [...model.values()])
    }),
    { numRuns: 30 },
  )
})

test('collections - an iteration sees additions and deletions, and may end by break', () => {
  const [set, model] = [new TransientSet<number>(), new Set<number>()]
  for (const each of [set, model]) for (let n = 0; n < 100; n++) each.add(n)
  const visit = (each: TransientSet<number> | Set<number>): number[] => {
    const seen: number[] = []
    for (const n of each) {
      seen.push(n)
      // Enough to rebuild it, if the iteration did not defer that.
      for (let more = 0; more < 300; more++) {
        each.add(-1)
        each.delete(-1)
      }
      each.delete(n + 2)
      if (n < 100) each.add(1000 + n)
      if (n === 1090) break
    }
    return seen
  }
  assert.deepEqual(visit(set), visit(model))
  assert.deepEqual([...set], [...model])
  for (const each of [set, model]) for (let n = 0; n < 1000; n++) each.add(5000 + n)
  assert.deepEqual([...set], [...model])
})

test('collections - a queue is first in, first out', () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { maxLength: 200 }), (steps) => {
      const [queue, model] = [new Fifo<number>(), [] as number[]]
      for (const [at, adds] of steps.entries()) {
        if (adds) {
          queue.push(at)
          model.push(at)
        } else assert.equal(queue.shift(), model.shift())
        assert.deepEqual([queue.size, queue.first], [model.length, model[0]])
      }
    }),
  )
})

test('collections - sorted ids are what a sorted Set is', () => {
  const ids = new SortedIds()
  const expected = new Set<number>()
  for (let step = 0; step < 2000; step++) {
    const id = (step * 7919) % 101
    if (step % 3 === 0) assert.equal(ids.delete(id), expected.delete(id))
    else {
      ids.add(id)
      expected.add(id)
    }
    const sorted = [...expected].sort((one, other) => one - other)
    assert.deepEqual([...ids], sorted)
    assert.equal(ids.first, sorted[0])
    assert.equal(ids.size, sorted.length)
  }
  ids.clear()
  assert.equal(ids.first, undefined)
})
