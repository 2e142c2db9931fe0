import { crewMember, type QueueChild } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import { atLeast, heading, table } from '../report.ts'
import { interleaved, type Rounds } from '../rounds.ts'
import { endChildren, type Stage } from '../stage.ts'
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
}

/** Many jobs in one call, which wait: nobody works. */
export async function queueBulk(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 10
  const calls = stage.quick ? 2 : 5
  heading(`queue-bulk: ${SIZE} jobs of 1 KB in a call, no worker, ${rounds} rounds of ${calls} calls`)
  const lines: Line[] = []
  const bulk = ({ producer, queue }: Line) => producer.call('bulk', queue, calls, SIZE)
  try {
    for (const name of stage.quick ? QUICK : NAMES) lines.push(...(await openLines(name, stage)))
    for (const line of lines) await bulk(line)
    const rates = await interleaved(lines, rounds, bulk)
    for (const { name, producer, queue } of lines) {
      const wanted = (rounds + 1) * calls * SIZE
      const waiting = await producer.call('waiting', queue)
      if (waiting !== wanted) throw new Error(`Expected ${wanted} jobs of ${name} to wait, got ${waiting}`)
    }
    report(lines, rates)
  } finally {
    await endChildren(lines.map(({ producer }) => producer))
    await stage.server.call('FLUSHALL')
  }
}

async function openLines(name: QueueName, { server }: Stage): Promise<Line[]> {
  const terms = KINDS.map((kind) => ({
    queue: `bulk-${kind}.${name}`,
    submits: true,
    works: false,
    deduplicated: kind === 'deduplicated',
  }))
  const producer = await crewMember(name, server, terms)
  return KINDS.map((kind) => ({ name, kind, queue: `bulk-${kind}.${name}`, producer }))
}

function report(lines: readonly Line[], rates: Rounds<Line, number>): void {
  const plain = (name: QueueName) => lines.find((line) => line.name === name && line.kind === 'plain')
  const [own, peer] = [plain('soloflight'), plain('BullMQ')]
  if (!own || !peer) throw new Error('Expected soloflight and BullMQ')
  const share = (line: Line) => rates.ratio(line, peer, (rate) => rate)
  table(
    ['jobs enqueued', '/s', 'of BullMQ'],
    lines.map((line) => [
      line.kind === 'plain' ? line.name : `${line.name}, deduplicated`,
      rates.median(line, (rate) => rate).toFixed(0),
      share(line).toFixed(2),
    ]),
  )
  atLeast(`enqueueMany of ${SIZE} jobs, of BullMQ's addBulk`, share(own), 2, { goal: 4 })
}
