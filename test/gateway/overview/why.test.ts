// The sentences that say why something waits: one for each case.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type CommandSituation,
  type JobSituation,
  type KeySituation,
  type QueueSituation,
  whyCommand,
  whyJob,
  whyKey,
  whyQueue,
} from '../../../src/gateway/overview/why.ts'

const NOON = Date.UTC(2026, 10, 30, 12)
const PLACE = { process: 'p', host: 'a', pid: 12 }

const idle: CommandSituation = {
  ...{ command: 'x', queuePaused: false, commandPaused: false, complete: true },
  ...{ workers: 1, capacity: 1, busy: 0 },
}

const COMMANDS: readonly [situation: Partial<CommandSituation>, why: string][] = [
  [{}, 'It is about to start: a worker has a free slot.'],
  [{ queuePaused: true, commandPaused: true, workers: 0 }, 'The queue is paused.'],
  [{ commandPaused: true, workers: 0 }, 'The command `x` is paused.'],
  [{ workers: 0, capacity: 0 }, 'No worker is connected for command `x`.'],
  [
    { workers: 0, capacity: 0, complete: false },
    'No worker is known for command `x`: not every process has answered.',
  ],
  [{ busy: 1 }, 'The only slot of its worker is taken.'],
  [{ capacity: 3, busy: 3 }, 'All 3 slots of its worker are taken.'],
  [{ workers: 2, capacity: 4, busy: 4 }, 'All 4 slots of its 2 workers are taken.'],
  [{ workers: 2, capacity: 4, busy: 5 }, 'All 4 slots of its 2 workers are taken.'],
  [{ workers: 2, capacity: 4, busy: 3 }, 'It is about to start: a worker has a free slot.'],
  // A name is hostile: it may be long, and may hold credentials.
  [
    { command: `https://user:pass@host/${'x'.repeat(300)}`, commandPaused: true },
    `The command \`https://***@host/${'x'.repeat(80 - 'https://***@host/'.length)}\` is paused.`,
  ],
]

test('why - a command', () => {
  for (const [situation, why] of COMMANDS) assert.equal(whyCommand({ ...idle, ...situation }), why)
})

const QUEUES: readonly [situation: Partial<QueueSituation>, why: string | null][] = [
  [{}, null],
  [{ dueIn: 3_000 }, 'Delayed until 12:00:03 UTC.'],
  [{ dueIn: 2_001 }, 'Delayed until 12:00:03 UTC.'],
  [{ dueIn: 12 * 3_600_000 }, 'Delayed until 2026-12-01 00:00:00 UTC.'],
  [{ dueIn: 3_000, first: { ...idle, queuePaused: true } }, 'The queue is paused.'],
]

test('why - a queue', () => {
  const empty = { first: undefined, dueIn: undefined, now: NOON }
  for (const [situation, why] of QUEUES) assert.equal(whyQueue({ ...empty, ...situation }), why)
})

const delayed = { state: 'delayed', until: NOON + 3_000, now: NOON, retries: 0 } as const
const running = { state: 'active', complete: true } as const

const JOBS: readonly [situation: JobSituation, why: string][] = [
  [{ state: 'waiting', command: { ...idle, busy: 1 } }, 'The only slot of its worker is taken.'],
  [delayed, 'Delayed until 12:00:03 UTC.'],
  [{ ...delayed, retries: 1 }, 'Delayed until 12:00:03 UTC, after an attempt has failed.'],
  [{ ...delayed, retries: 3 }, 'Delayed until 12:00:03 UTC, after 3 attempts have failed.'],
  [
    { ...running, holder: { kind: 'process', process: PLACE, age: 3_000 } },
    'It has run in pid 12 on host a for 3 s.',
  ],
  [
    { ...running, holder: { kind: 'client', worker: 'w', age: 400, left: 7_400 } },
    'It has been with the worker `w` for 0.4 s; the lease ends in 7 s.',
  ],
  [
    { ...running, holder: { kind: 'client', worker: undefined, age: 150_000, left: undefined } },
    'It has been with a client of a gateway for 3 min.',
  ],
  [
    { ...running, holder: { kind: 'unknown' } },
    'No process says that it runs it: unless it has just begun, another worker gets it when its lease ends.',
  ],
  [
    { ...running, complete: false, holder: { kind: 'unknown' } },
    'It runs in a process that has not answered.',
  ],
  [{ state: 'completed' }, 'It is done.'],
  [{ state: 'failed' }, 'It has failed, and is not tried again.'],
  [{ state: 'removed' }, 'It was removed.'],
]

test('why - a job', () => {
  for (const [situation, why] of JOBS) assert.equal(whyJob(situation), why)
})

const held: KeySituation = {
  ...{ key: 'k', age: 3_000, left: 7_000, waiters: 1 },
  holder: { kind: 'process', process: PLACE },
}

const KEYS: readonly [situation: Partial<KeySituation>, why: string][] = [
  [{}, 'Key `k` is held by pid 12 on host a for 3 s; its lease ends in 7 s.'],
  [{ left: undefined }, 'Key `k` is held by pid 12 on host a for 3 s; its lease is lost.'],
  [{ age: 8 * 3_600_000 }, 'Key `k` is held by pid 12 on host a for 8 h; its lease ends in 7 s.'],
  [
    { holder: { kind: 'client', process: PLACE } },
    'Key `k` is held by a client of the gateway of pid 12 on host a for 3 s; its lease ends in 7 s.',
  ],
  [
    { holder: { kind: 'alone', process: PLACE }, left: undefined },
    'Key `k` has been computed by pid 12 on host a for 3 s, for that process alone.',
  ],
  [
    { holder: { kind: 'silent', process: PLACE } },
    'Key `k` is held by pid 12 on host a, which does not answer; its lease ends in 7 s, and a waiter replaces it then.',
  ],
  [{ holder: { kind: 'none' } }, 'Key `k` is held by nobody: one caller waits until somebody computes it.'],
  [
    { holder: { kind: 'none' }, waiters: 3 },
    'Key `k` is held by nobody: 3 callers wait until somebody computes it.',
  ],
]

test('why - a key', () => {
  for (const [situation, why] of KEYS) assert.equal(whyKey({ ...held, ...situation }), why)
})
