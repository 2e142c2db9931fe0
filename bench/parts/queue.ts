import type { QueueName } from '../queues/entrant.ts'
import { figure, heading, table } from '../report.ts'
import { endChildren, rotated, type Stage } from '../stage.ts'
import { median, sum } from '../statistics.ts'
import { clientCommands, KINDS, type Kind, openPair, type Pair, type Trips, trips } from './trips.ts'

const NAMES: readonly QueueName[] = ['soloflight', 'bee-queue', 'BullMQ']
const QUICK: readonly QueueName[] = ['soloflight', 'bee-queue']

const LOADS = [50, 1] as const
type Load = (typeof LOADS)[number]

/** One contender under one load. */
interface Row {
  rounds: Trips[]
  /** Commands from clients, a round trip. */
  fromClients: number
}

type RowOf = (name: QueueName, kind: Kind, load: Load) => Row

/** A job is submitted in one process and run in another; its result is awaited in the first. */
export async function queue(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 3 : 8
  const ms = stage.quick ? 150 : 500
  heading(`queue: submit to result, one process submits and one works, ${rounds} rounds of ${ms} ms`)
  const rows = new Map<string, Row>()
  const rowOf: RowOf = (name, kind, load) => {
    const id = `${name} ${kind} ${load}`
    const row = rows.get(id) ?? { rounds: [], fromClients: Number.NaN }
    rows.set(id, row)
    return row
  }
  const pairs: Pair[] = []
  try {
    for (const name of names) pairs.push(await openPair(name, stage))
    // Long enough for all of them to be compiled.
    const warmUp = stage.quick ? 2 * ms : 5000
    for (const load of [50, 1]) {
      for (const pair of pairs) for (const kind of KINDS) await trips(pair, kind, load, stage, warmUp)
    }
    for (const load of LOADS) {
      for (const kind of KINDS) {
        for (let round = 0; round < rounds; round++) {
          for (const pair of rotated(pairs, round)) {
            rowOf(pair.name, kind, load).rounds.push(await trips(pair, kind, load, stage, ms))
          }
        }
        for (const pair of pairs) {
          rowOf(pair.name, kind, load).fromClients = await clientCommands(pair, kind, load, stage)
        }
      }
    }
  } finally {
    await endChildren(pairs.flatMap(({ producer, worker }) => [producer, worker]))
    await stage.server.call('FLUSHALL')
  }
  report(names, rowOf)
}

function report(names: readonly QueueName[], rowOf: RowOf): void {
  const middle = (name: QueueName, kind: Kind, load: Load, of: (trips: Trips) => number) =>
    median(rowOf(name, kind, load).rounds.map(of))
  const rate = (name: QueueName, kind: Kind) => middle(name, kind, 50, (trips) => trips.rate * 1000)
  const p50 = (name: QueueName, kind: Kind) => middle(name, kind, 1, (trips) => trips.p50)
  const all = names.flatMap((name) => KINDS.map((kind) => [name, kind] as const))
  const label = (name: QueueName, kind: Kind) => (kind === 'plain' ? name : `${name}, deduplicated`)
  table(
    [
      'submit to result',
      '50 in flight, /s',
      'of bee-queue',
      'p50 ms',
      'p99 ms',
      '1 in flight, p50 ms',
      'of bee-queue',
      'lost',
      'wrong',
    ],
    all.map(([name, kind]) => {
      const both = LOADS.flatMap((load) => rowOf(name, kind, load).rounds)
      return [
        label(name, kind),
        rate(name, kind).toFixed(0),
        (rate(name, kind) / rate('bee-queue', 'plain')).toFixed(2),
        middle(name, kind, 50, (trips) => trips.p50).toFixed(2),
        middle(name, kind, 50, (trips) => trips.p99).toFixed(2),
        p50(name, kind).toFixed(3),
        (p50(name, kind) / p50('bee-queue', 'plain')).toFixed(2),
        sum(both.map(({ lost }) => lost)),
        sum(both.map(({ wrong }) => wrong)),
      ]
    }),
  )
  console.log()
  table(
    [
      'a round trip costs',
      ...LOADS.flatMap((load) => [`${load} in flight: commands`, 'from clients']),
      '50 in flight: CPU µs of producer',
      'worker',
      'Redis',
    ],
    all.map(([name, kind]) => [
      label(name, kind),
      ...LOADS.flatMap((load) => [
        middle(name, kind, load, (trips) => trips.commands).toFixed(1),
        rowOf(name, kind, load).fromClients.toFixed(1),
      ]),
      middle(name, kind, 50, (trips) => trips.cpu).toFixed(0),
      middle(name, kind, 50, (trips) => trips.workerCpu).toFixed(0),
      middle(name, kind, 50, (trips) => trips.redisCpu).toFixed(0),
    ]),
  )
  const faults = sum(
    KINDS.flatMap((kind) => LOADS.flatMap((load) => rowOf('soloflight', kind, load).rounds)).map(
      ({ lost, wrong }) => lost + wrong,
    ),
  )
  figure({
    what: 'submit to result, lost or wrong',
    wanted: '0',
    measured: `${faults}`,
    reached: faults === 0,
    kind: 'count',
  })
  const faster = (kind: Kind, peer: QueueName, least: number, goal: string) => {
    if (!names.includes(peer)) return
    const share = rate('soloflight', kind) / rate(peer, 'plain')
    figure({
      what: `submit to result, 50 in flight, ${kind}, of ${peer}`,
      wanted: `at least ${least}${goal}`,
      measured: share.toFixed(2),
      reached: share >= least,
      kind: 'time',
    })
  }
  faster('plain', 'bee-queue', 1.3, ', goal 2')
  faster('plain', 'BullMQ', 4, '')
  faster('deduplicated', 'bee-queue', 1, ', goal 1.5')
  const longer = p50('soloflight', 'plain') / p50('bee-queue', 'plain')
  figure({
    what: 'submit to result, 1 in flight, p50, of bee-queue',
    wanted: 'at most 1.15',
    measured: longer.toFixed(3),
    reached: longer <= 1.15,
    kind: 'time',
  })
  for (const load of LOADS) {
    const most = (of: (kind: Kind) => number) => Math.max(...KINDS.map(of))
    const commands = most((kind) => middle('soloflight', kind, load, (trips) => trips.commands))
    const sent = most((kind) => rowOf('soloflight', kind, load).fromClients)
    figure({
      what: `Redis commands a round trip, inside scripts too; from clients; ${load} in flight`,
      wanted: 'at most 14; 4, goal 11; 2',
      measured: `${commands.toFixed(1)}; ${sent.toFixed(1)}`,
      // A look at what is due, every now and then, is no part of a trip.
      reached: Math.round(commands * 10) / 10 <= 14 && sent <= 4,
      kind: 'count',
    })
  }
}
