// What a queue has to do, by command: each job is counted by its own command, or the number is left out.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { RedisQueue } from '../../src/index.ts'
import { MAX_LOAD_COMMANDS, MAX_LOAD_JOBS } from '../../src/queue/store/load.ts'
import { onBothStores, onRedis } from '../support/stores.ts'

const LATER = { delay: 3_600_000, dedupe: false } as const

/** Of each command, in their order: what waits, is delayed, runs, has failed. */
async function countsOf(queue: RedisQueue): Promise<Record<string, (number | undefined)[]>> {
  const { commands } = await queue.load()
  return Object.fromEntries(
    commands.map(({ command, waiting, delayed, active, failed }) => [
      command,
      [waiting, delayed, active, failed],
    ]),
  )
}

function jobs(count: number, command: string, options: object = LATER) {
  return Array.from({ length: count }, () => ({ command, options }))
}

async function fail(queue: RedisQueue, command: string): Promise<void> {
  await queue.enqueue(command, 'to fail', { attempts: 1 })
  await (await queue.take(command))?.fail(new Error('no'))
}

onBothStores('load - jobs are not counted for the only command that is known', async (w) => {
  const queue = w.open()
  await queue.enqueue('known', 1)
  await queue.enqueueMany(jobs(3, 'other'))
  assert.deepEqual(await countsOf(queue), { known: [1, 0, 0, 0], other: [0, 3, 0, 0] })
  await queue.enqueue('other', 'now')
  await queue.take('other')
  await fail(queue, 'other')
  assert.deepEqual(await countsOf(queue), { known: [1, 0, 0, 0], other: [0, 3, 1, 1] })
  assert.equal((await queue.load()).complete, true)
})

test('load - jobs of a command that is not known any more are counted by their own', async () => {
  await using w = await onRedis()
  const queue = w.open()
  await fail(queue, 'other')
  await queue.enqueue('other', 'now')
  await queue.take('other')
  await (await w.t.client()).del('soloflight:1:{queue}q')
  await queue.enqueue('known', 1)
  assert.deepEqual(await countsOf(queue), { known: [1, 0, 0, 0], other: [0, 0, 1, 1] })
})

onBothStores('load - a number is left out if there are too many jobs to count', async (w) => {
  const queue = w.open()
  await queue.enqueue('a', 1)
  await queue.enqueueMany(jobs(MAX_LOAD_JOBS - 1, 'a'))
  await fail(queue, 'a')
  await queue.enqueue('b', 1)
  await queue.take('b')
  assert.deepEqual(await countsOf(queue), { a: [1, MAX_LOAD_JOBS - 1, 0, 1], b: [0, 0, 1, 0] })
  assert.equal((await queue.load()).complete, true)
  // One more with a deadline: those that run are not counted any more; then another, and those that are delayed are not.
  await queue.enqueueMany(jobs(1, 'b'))
  assert.deepEqual(await countsOf(queue), {
    a: [1, MAX_LOAD_JOBS - 1, undefined, 1],
    b: [0, 1, undefined, 0],
  })
  await queue.enqueueMany(jobs(1, 'b'))
  const left = [undefined, undefined] as const
  assert.deepEqual(await countsOf(queue), { a: [1, ...left, 1], b: [0, ...left, 0] })
  assert.equal((await queue.load()).complete, false)
})

onBothStores('load - of too many commands, those with jobs come first', async (w) => {
  const queue = w.open()
  for (let n = 0; n < MAX_LOAD_COMMANDS; n++) await queue.pause(`idle ${n}`)
  await queue.enqueueMany(jobs(2, 'delayed'))
  await queue.enqueue('ready', 1)
  const found = await countsOf(queue)
  assert.deepEqual(
    [found['ready'], found['delayed']],
    [
      [1, 0, 0, 0],
      [0, 2, 0, 0],
    ],
  )
  assert.equal(Object.keys(found).length, MAX_LOAD_COMMANDS)
  assert.equal((await queue.load()).complete, false)
})
