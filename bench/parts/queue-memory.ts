import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/wait.ts'
import { crewMember } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import { atMost, heading, table } from '../report.ts'
import type { Stage } from '../stage.ts'
import { KINDS, type Kind } from './trips.ts'

const NAMES: readonly QueueName[] = ['soloflight', 'BullMQ', 'bee-queue']
const QUICK: readonly QueueName[] = ['soloflight']

const JOBS = 10_000

/** Of a payload as JSON. */
const BYTES = 100

interface Case {
  name: QueueName
  kind: Kind
  /** Whether the results are awaited in a process that has the queue open. */
  awaited: boolean
}

/** What a job that waits for a worker takes of Redis. */
export async function queueMemory(stage: Stage): Promise<void> {
  heading(`queue-memory: used_memory a job, ${JOBS} jobs of ${BYTES} B of payload that wait`)
  const cases: Case[] = (stage.quick ? QUICK : NAMES).flatMap((name) =>
    KINDS.map((kind) => ({ name, kind, awaited: false })),
  )
  cases.push({ name: 'soloflight', kind: 'deduplicated', awaited: true })
  const rows: (string | number)[][] = []
  for (const each of cases) {
    const bytes = await bytesPerJob(each, stage)
    const { name, kind, awaited } = each
    rows.push([
      `${name}${kind === 'plain' ? '' : ', deduplicated'}${awaited ? ', awaited' : ''}`,
      bytes.toFixed(0),
    ])
    if (name !== 'soloflight' || kind !== 'deduplicated' || awaited) continue
    atMost(`bytes in Redis a waiting job of ${BYTES} B, deduplicated`, bytes, 500, {
      goal: 350,
      kind: 'count',
    })
  }
  table([`waiting job of ${BYTES} B of payload`, 'bytes'], rows)
}

/**
 * Measured while no client is connected, before and after, as their buffers are part of used_memory. The scripts are
 * loaded before, by another process.
 */
async function bytesPerJob(each: Case, stage: Stage): Promise<number> {
  await fill(each, stage, 10)
  await stage.server.call('FLUSHALL')
  const before = await usedMemory(stage)
  await fill(each, stage, JOBS)
  const after = await usedMemory(stage)
  await stage.server.call('FLUSHALL')
  return (after - before) / JOBS
}

async function fill({ name, kind, awaited }: Case, { server }: Stage, count: number): Promise<void> {
  const queue = `memory.${name}`
  const terms = { queue, submits: true, works: false, deduplicated: kind === 'deduplicated' }
  const before = (await server.connectedClients()).length
  {
    await using producer = await crewMember(name, server, [terms])
    if (awaited) await producer.call('submit', queue, count, BYTES)
    else await producer.call('fill', queue, count, BYTES)
    await producer.call('allWait', queue, count)
  }
  await until(async () => (await server.connectedClients()).length === before, {
    what: 'the connections to close',
  })
}

/** Once it stands still: tables that grew are moved to their new place bit by bit. */
async function usedMemory({ server }: Stage): Promise<number> {
  let seen = Number.NaN
  for (;;) {
    const info = String(await server.call('INFO', 'memory'))
    const used = Number(/^used_memory:(\d+)/m.exec(info)?.[1])
    if (Math.abs(used - seen) < JOBS / 10) return used
    seen = used
    await sleep(250)
  }
}
