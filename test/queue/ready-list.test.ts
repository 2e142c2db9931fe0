// The ready jobs of a command, in memory: their order, and what a job with a priority costs in a long list.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ReadyList } from '../../src/queue/store/model/ready-list.ts'

/** A rank that counts how often it is compared. */
function countedRank(priority: number, micros: number, counts: { comparisons: number }) {
  return {
    get priority() {
      counts.comparisons++
      return priority
    },
    micros,
    batchIndex: 1,
  }
}

test('ready list - higher priorities come first, then earlier ones, whatever the order of arrival', () => {
  const list = new ReadyList()
  const jobs = Array.from({ length: 500 }, (_, n) => ({
    id: `job ${n}`,
    rank: { priority: (n * 7) % 5, micros: (n * 31) % 100, batchIndex: 1 + (n % 3) },
  }))
  for (const job of jobs) list.push(job, false)
  const sorted = jobs.toSorted(
    (a, b) =>
      b.rank.priority - a.rank.priority ||
      a.rank.micros - b.rank.micros ||
      a.rank.batchIndex - b.rank.batchIndex ||
      (a.id < b.id ? -1 : 1),
  )
  assert.deepEqual(
    list.ids(),
    sorted.map(({ id }) => id),
  )
})

test('ready list - a job with a priority is compared with a few of the others only', () => {
  const list = new ReadyList()
  const counts = { comparisons: 0 }
  const size = 4096
  for (let n = 0; n < size; n++)
    list.push({ id: `job ${n}`, rank: countedRank(1 + ((n * 31) % 97), n, counts) }, false)
  counts.comparisons = 0
  list.push({ id: 'one more', rank: countedRank(50, size, counts) }, false)
  // Each comparison reads two priorities.
  assert.ok(counts.comparisons <= 2 * (Math.log2(size) + 1), `${counts.comparisons} priorities read`)
})

test('ready list - a removed job takes its marker with it', () => {
  const list = new ReadyList()
  const rank = (priority: number) => ({ priority, micros: 1, batchIndex: 1 })
  list.push({ id: 'plain', rank: undefined }, false)
  list.push({ id: 'low', rank: rank(1) }, false)
  list.push({ id: 'high', rank: rank(2) }, false)
  list.push({ id: 'last in', rank: undefined }, true)
  list.requeueFirst('requeued')
  assert.deepEqual(list.ids(), ['requeued', 'high', 'low', 'last in', 'plain'])
  list.remove('high')
  assert.deepEqual(list.ids(), ['requeued', 'low', 'last in', 'plain'])
  assert.deepEqual(
    [list.shift(), list.shift(), list.shift(), list.shift(), list.shift()],
    [...['requeued', 'low', 'last in', 'plain'], undefined],
  )
})
