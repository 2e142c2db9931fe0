import { crewMember, type QueueChild } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import { figure, heading, table } from '../report.ts'
import { endChildren, rotated, type Stage } from '../stage.ts'
import { median } from '../statistics.ts'
import { KINDS, type Kind } from './trips.ts'

const NAMES: readonly QueueName[] = ['soloflight', 'BullMQ', 'bee-queue']
const QUICK: readonly QueueName[] = ['soloflight', 'BullMQ']

/** Jobs in one call. */
const SIZE = 1_000

interface Line {
  name: QueueName
  kind: Kind
  queue: string
  producer: QueueChild
  rates: number[]
}

/** Many jobs in one call, which wait: nobody works. */
export async function queueBulk(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 10
  const calls = stage.quick ? 2 : 5
  heading(`queue-bulk: ${SIZE} jobs in a call, no worker, ${rounds} rounds of ${calls} calls`)
  const lines: Line[] = []
  try {
    for (const name of stage.quick ? QUICK : NAMES) lines.push(...(await openLines(name, stage)))
    for (const { producer, queue } of lines) await producer.call('bulk', queue, calls, SIZE)
    for (let round = 0; round < rounds; round++) {
      for (const { producer, queue, rates } of rotated(lines, round)) {
        rates.push(await producer.call('bulk', queue, calls, SIZE))
      }
    }
    for (const { name, producer, queue } of lines) {
      const wanted = (rounds + 1) * calls * SIZE
      const waiting = await producer.call('waiting', queue)
      if (waiting !== wanted) throw new Error(`Expected ${wanted} jobs of ${name} to wait, got ${waiting}`)
    }
  } finally {
    await endChildren(lines.map(({ producer }) => producer))
    await stage.server.call('FLUSHALL')
  }
  report(lines)
}

async function openLines(name: QueueName, { server }: Stage): Promise<Line[]> {
  const terms = KINDS.map((kind) => ({
    queue: `bulk-${kind}.${name}`,
    submits: true,
    works: false,
    deduplicated: kind === 'deduplicated',
  }))
  const producer = await crewMember(name, server, terms)
  return KINDS.map((kind) => ({ name, kind, queue: `bulk-${kind}.${name}`, producer, rates: [] }))
}

function report(lines: readonly Line[]): void {
  const rate = (name: QueueName, kind: Kind) =>
    median(lines.find((line) => line.name === name && line.kind === kind)?.rates ?? [])
  table(
    ['jobs enqueued', '/s', 'of BullMQ'],
    lines.map(({ name, kind }) => [
      kind === 'plain' ? name : `${name}, deduplicated`,
      rate(name, kind).toFixed(0),
      (rate(name, kind) / rate('BullMQ', 'plain')).toFixed(2),
    ]),
  )
  const share = rate('soloflight', 'plain') / rate('BullMQ', 'plain')
  figure({
    what: `enqueueMany of ${SIZE} jobs, of BullMQ's addBulk`,
    wanted: 'at least 2, goal 4',
    measured: share.toFixed(2),
    reached: share >= 2,
    kind: 'time',
  })
}
