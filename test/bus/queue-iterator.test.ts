import assert from 'node:assert/strict'
import { test } from 'node:test'
import { QueueIterator } from '../../src/bus/queue/queue-iterator.ts'
import { rejectionOf } from '../support/wait.ts'

const DONE = { done: true, value: undefined }

function open() {
  const told: string[] = []
  const iterator = new QueueIterator<number>({
    onWanted: () => told.push('wanted'),
    stop: async () => void told.push('stop'),
  })
  return { iterator, told }
}

test('queue iterator - messages go to the reads in order; only the first that waits asks for one', async () => {
  const { iterator, told } = open()
  assert.ok(!iterator.give(0))
  const reads = [iterator.next(), iterator.next()]
  assert.deepEqual([told, iterator.isReading], [['wanted'], true])
  assert.deepEqual([iterator.give(1), iterator.give(2), iterator.give(3)], [true, true, false])
  assert.deepEqual(await Promise.all(reads), [
    { done: false, value: 1 },
    { done: false, value: 2 },
  ])
  void iterator.next()
  assert.deepEqual(told, ['wanted', 'wanted'])
})

test('queue iterator - an error is told to one read; the others, and later ones, are done', async () => {
  const { iterator } = open()
  const reads = [iterator.next(), iterator.next()] as const
  const error = new Error('lost')
  const first = rejectionOf(reads[0])
  iterator.end(error)
  assert.equal(await first, error)
  assert.deepEqual([await reads[1], await iterator.next(), iterator.isOver], [DONE, DONE, true])
})

test('queue iterator - an error that no read waits for is told to the next one; a later end changes nothing', async () => {
  const { iterator } = open()
  const error = new Error('lost')
  iterator.end(error)
  iterator.end()
  assert.equal(await rejectionOf(iterator.next()), error)
  assert.deepEqual(await iterator.next(), DONE)
})

test('queue iterator - whoever leaves the loop stops, and is told no error', async () => {
  const { iterator, told } = open()
  const read = iterator.next()
  assert.deepEqual([await iterator.return(), await read], [DONE, DONE])
  iterator.end(new Error('late'))
  assert.deepEqual([await iterator.next(), told], [DONE, ['wanted', 'stop']])
})
