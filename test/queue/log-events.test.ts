// Lines of logs that watchers are told.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { FeedEvent } from '../../src/index.ts'
import { onRedis, subscribed } from '../support/stores.ts'
import { until } from '../support/wait.ts'

const LINE = 'x'.repeat(60_000)
const JOBS = 50
const MOST_BYTES = 1024 * 1024

type LogEvent = Extract<FeedEvent, { event: 'log' }>

test('log events - a process tells a mebibyte of lines in a second, and how many it leaves out', async () => {
  await using w = await onRedis()
  const [here, there] = [w.open(), w.open()]
  await subscribed(here)
  const told: LogEvent[] = []
  const stop = await there.watch((event) => {
    if (event.event === 'log') told.push(event)
  })
  for (let n = 0; n < JOBS; n++) await here.enqueue('work', n)
  const jobs = await Promise.all(Array.from({ length: JOBS }, () => here.take('work', { lease: 60_000 })))
  await Promise.all(jobs.map((job) => job?.log(LINE)))
  await until(() => told.length === JOBS, { what: 'all events' })
  const lines = told.flatMap((event) => event.lines)
  const skipped = told.reduce((sum, event) => sum + event.skipped, 0)
  assert.equal(lines.length + skipped, JOBS)
  assert.ok(lines.length > 1 && lines.length * LINE.length <= MOST_BYTES, `${lines.length} lines`)
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  await jobs[0]?.log('once more')
  await until(() => told.length === JOBS + 1, { what: 'one more event' })
  assert.deepEqual(told.at(-1)?.lines, ['once more'])
  stop()
})
