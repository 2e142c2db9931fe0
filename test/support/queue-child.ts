// A process that has a RedisQueue on a given Redis, does with it as it is told, and tells what happens.

import { setTimeout as sleep } from 'node:timers/promises'
import pDefer, { type DeferredPromise } from 'p-defer'
import {
  type Job,
  type QueueStats,
  RedisQueue,
  RemoteError,
  type RunningJob,
  SoloflightError,
  type SubmitOptions,
} from '../../src/index.ts'
import { emit, serve } from './process-child.ts'
import { produce } from './queue-producer.ts'
import type {
  ChildQueueOptions,
  ChildSubmitOptions,
  Handed,
  QueueEntry,
  Task,
  What,
} from './queue-protocol.ts'

let opened: RedisQueue | undefined
let said: ChildQueueOptions | undefined
let lastOp = 0
/** Handlers that wait for `finish`, by task. */
const works = new Map<string, Set<DeferredPromise<void>>>()
/** Those who wait here, by task. */
const leaving = new Map<string, AbortController[]>()
const names = new Map<string, string>()
/** What was handed in, by operation. */
const jobs = new Map<string, Job>()

/** Monotonic, and the same in every process of this machine. */
function now(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

function note(
  what: What,
  job: string,
  more: Omit<QueueEntry, 'at' | 'pid' | 'what' | 'job'> = {},
): QueueEntry {
  const entry = { at: now(), pid: process.pid, what, job, ...more }
  emit(what, entry)
  return entry
}

function queue(): RedisQueue {
  if (!opened) throw new Error('Expected `open` before other calls')
  return opened
}

function codeOf(error: unknown): string {
  if (error instanceof RemoteError) return String(error.remote.code ?? 'none')
  return error instanceof SoloflightError ? error.code : String(error)
}

function stand(ms: number): void {
  for (const end = now() + ms; now() < end; );
}

async function work(task: Task, job: RunningJob): Promise<unknown> {
  const { id, fence, attempt, stalls, signal } = job
  const { name, ms, fails = 0, blocks, echo = `${process.pid}/${fence}` } = task
  const tell: typeof note = (...entry) => (said?.quiet ? (undefined as never) : note(...entry))
  names.set(id, name)
  tell('begun', name, { id, fence, attempt, stalls })
  signal.addEventListener('abort', () => tell('fired', name, { id, fence, code: codeOf(signal.reason) }))
  if (task.dies) process.kill(process.pid, 'SIGKILL')
  if (blocks !== undefined && stalls === 0) stand(blocks)
  else if (ms !== undefined) await sleep(ms)
  else await finished(name)
  if (task.tells) {
    job.progress(echo)
    job.log(String(echo))
  }
  const failed = attempt <= fails
  tell('ended', name, { id, fence, value: echo, ...(failed ? { code: 'E_CHILD' } : {}) })
  if (failed) throw Object.assign(new Error(String(echo)), { code: 'E_CHILD' })
  return echo
}

function finished(name: string): Promise<void> {
  const deferred = pDefer<void>()
  const waiting = works.get(name) ?? new Set()
  works.set(name, waiting.add(deferred))
  return deferred.promise
}

/** Tells what the queue itself says of attempts. */
function listen(opened: RedisQueue): void {
  const jobOf = (id: string) => names.get(id) ?? id
  const accepted = (kind: 'value' | 'error' | 'retry') => (event: { id: string; fence: number }) =>
    note('accepted', jobOf(event.id), { id: event.id, fence: event.fence, kind })
  opened.on('completed', accepted('value'))
  opened.on('failed', accepted('error'))
  opened.on('retrying', accepted('retry'))
  opened.on('lost', ({ id, fence, code }) => note('lost', jobOf(id), { id, fence, code }))
  opened.on('stalled', ({ id, failed }) => note('stalled', jobOf(id), { id, done: failed }))
}

function asked(task: Task, options: ChildSubmitOptions, waits: boolean): string {
  lastOp += 1
  const op = `${process.pid}.${lastOp}`
  note('asked', task.name, { op, single: options.dedupe === false, waits })
  return op
}

/** Waits for an outcome, and notes it. Never rejects. */
async function settled(
  name: string,
  op: string,
  more: { id?: string; generation?: number },
  wait: (options: Pick<SubmitOptions, 'signal' | 'onProgress'>) => Promise<unknown>,
): Promise<QueueEntry> {
  const leaves = new AbortController()
  leaving.set(name, [...(leaving.get(name) ?? []), leaves])
  const onProgress = (value: unknown) => note('progress', name, { op, value })
  try {
    const value = await wait({ signal: leaves.signal, onProgress })
    return note('settled', name, { op, ...more, kind: 'value', value })
  } catch (error) {
    const kind = error instanceof RemoteError ? { kind: 'error' as const } : {}
    const value = error instanceof Error ? error.message : String(error)
    return note('settled', name, { op, ...more, ...kind, value, code: codeOf(error) })
  }
}

const handlers = {
  open: (name: string, options: ChildQueueOptions): void => {
    const { concurrency, grace: _grace, quiet = false, ...rest } = options
    said = options
    opened = new RedisQueue(name, rest)
    if (!quiet) listen(opened)
    if (concurrency !== undefined) opened.process('work', work, { concurrency })
  },
  /** Resolves with what became of it, a failure too. */
  submit: (task: Task, options: ChildSubmitOptions = {}): Promise<QueueEntry> => {
    const op = asked(task, options, true)
    return settled(task.name, op, {}, (more) => queue().submit('work', task, { ...options, ...more }))
  },
  enqueue: async (task: Task, options: ChildSubmitOptions = {}, waits = false): Promise<Handed> => {
    const op = asked(task, options, waits)
    try {
      const job = await queue().enqueue('work', task, options)
      const { id, generation, disposition } = job
      jobs.set(op, job)
      const handed = { id, op, generation, disposition }
      note('acknowledged', task.name, { id, op, generation, ...(disposition ? { disposition } : {}) })
      return handed
    } catch (error) {
      note('refused', task.name, { op, code: codeOf(error) })
      throw error
    }
  },
  /** Waits for what was handed in before. */
  result: (name: string, { id, op, generation }: Handed): Promise<QueueEntry> =>
    settled(name, op, { id, generation }, async (options) => jobs.get(op)?.result(options)),
  /** So many submissions of one task, spread over a while. */
  crowd: async (task: Task, count: number, over: number, options: ChildSubmitOptions = {}) => {
    const asking = Array.from({ length: count }, async (_, index) => {
      await sleep((index * over) / count)
      return handlers.submit(task, options)
    })
    return Promise.all(asking)
  },
  /** So many jobs, each with a result of its own; when some are back, the event loop stands still. Returns what is wrong. */
  flood: async (count: number, standing: number): Promise<{ right: number; wrong: string[] }> => {
    let [right, back] = [0, 0]
    const wrong: string[] = []
    const one = async (echo: number) => {
      const result = await queue().submit('work', { name: `${echo}`, ms: 0, echo }, { dedupe: false })
      back += 1
      if (back === 100) stand(standing)
      if (result === echo) right += 1
      else wrong.push(`${echo}: ${result}`)
    }
    const all = Array.from({ length: count }, (_, index) => one(index))
    for (const { reason } of (await Promise.allSettled(all)).filter(
      ({ status }) => status === 'rejected',
    ) as {
      reason?: unknown
    }[])
      wrong.push(codeOf(reason))
    return { right, wrong }
  },
  /** Those who wait for a task here leave: the earliest, or all. */
  leave: (name: string, all = true): void => {
    for (const leaves of (leaving.get(name) ?? []).splice(0, all ? Number.POSITIVE_INFINITY : 1))
      leaves.abort()
  },
  cancel: async (name: string, id: string): Promise<boolean | undefined> => {
    note('cancelling', name, { id })
    try {
      const done = await queue().cancel(id)
      note('cancelled', name, { id, done })
      return done
    } catch {
      return undefined
    }
  },
  /** Ends the handlers of a task. */
  finish: (name: string): void => {
    for (const deferred of works.get(name) ?? []) deferred.resolve()
    works.delete(name)
  },
  /** Keeps the event loop from turning. */
  block: (ms: number): void => {
    note('paused', '')
    stand(ms)
    note('resumed', '')
  },
  /** Hands in all kinds of jobs for so long, and returns when all are settled. */
  produce: (seed: number, ms: number): Promise<void> => produce(handlers, seed, ms),
  stats: (): QueueStats => queue().stats(),
  close: async (grace: number): Promise<void> => {
    await opened?.close({ grace })
  },
}

export type QueueHandlers = typeof handlers

process.once('SIGTERM', async () => {
  await opened?.close({ grace: said?.grace ?? 0 })
  // What was told of the end is on its way to the parent, and goes with the process unless it is let through.
  process.disconnect()
})

serve(handlers)
