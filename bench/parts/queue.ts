import type { QueueName } from '../queues/entrant.ts'
import { atLeast, atMost, exactly, heading, table } from '../report.ts'
import { interleaved, type Rounds } from '../rounds.ts'
import { endChildren, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'
import type { Trips } from '../trips.ts'
import { clientCommands, KINDS, type Kind, openPair, type Pair, trips } from './trips.ts'

const NAMES: readonly QueueName[] = ['soloflight', 'bee-queue', 'BullMQ']
const QUICK: readonly QueueName[] = ['soloflight', 'bee-queue']

/** One contender, with or without deduplication. */
interface Line {
  pair: Pair
  kind: Kind
}

/** What came of one load, for all lines. */
interface Result {
  load: number
  rounds: Rounds<Line, Trips>
  /** Commands from clients, a round trip. */
  sent: ReadonlyMap<Line, number>
}

/** A job is submitted in one process and run in another; its result is awaited in the first. */
export async function queue(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 10
  const ms = stage.quick ? 150 : 500
  heading(`queue: submit to result, 1 KB, one process submits and one works, ${rounds} rounds of ${ms} ms`)
  const pairs: Pair[] = []
  try {
    for (const name of stage.quick ? QUICK : NAMES) pairs.push(await openPair(name, stage))
    const lines = pairs.flatMap((pair) => KINDS.map((kind) => ({ pair, kind })))
    // Long enough for all of them to be compiled.
    const warmUp = stage.quick ? 2 * ms : 5_000
    for (const load of [50, 1]) {
      for (const { pair, kind } of lines) await trips(pair, kind, load, stage, warmUp)
    }
    report(lines, await measure(50, lines, stage, rounds, ms), await measure(1, lines, stage, rounds, ms))
  } finally {
    await endChildren(pairs.flatMap(({ producer, worker }) => [producer, worker]))
    await stage.server.call('FLUSHALL')
  }
}

async function measure(
  load: number,
  lines: readonly Line[],
  stage: Stage,
  rounds: number,
  ms: number,
): Promise<Result> {
  const results = await interleaved(lines, rounds, ({ pair, kind }) => trips(pair, kind, load, stage, ms))
  const sent = new Map<Line, number>()
  for (const line of lines) sent.set(line, await clientCommands(line.pair, line.kind, load, stage))
  return { load, rounds: results, sent }
}

function report(lines: readonly Line[], many: Result, single: Result): void {
  const find = (name: QueueName, wanted: Kind): Line | undefined =>
    lines.find(({ pair, kind }) => pair.name === name && kind === wanted)
  const bee = { plain: find('bee-queue', 'plain'), deduplicated: find('bee-queue', 'deduplicated') }
  const speed = (line: Line, peer: Line | undefined) =>
    peer ? many.rounds.ratio(line, peer, ({ rate }) => rate) : Number.NaN
  const delay = (line: Line) =>
    bee.plain ? single.rounds.ratio(line, bee.plain, ({ p50 }) => p50) : Number.NaN
  const label = ({ pair, kind }: Line) => (kind === 'plain' ? pair.name : `${pair.name}, deduplicated`)
  table(
    [
      'submit to result',
      '50 in flight, /s',
      'of bee-queue',
      'deduplicated',
      'p50 ms',
      'p99 ms',
      '1 in flight, p50 ms',
      'of bee-queue',
      'lost',
      'wrong',
    ],
    lines.map((line) => [
      label(line),
      many.rounds.median(line, ({ rate }) => rate * 1000).toFixed(0),
      speed(line, bee.plain).toFixed(2),
      speed(line, bee.deduplicated).toFixed(2),
      many.rounds.median(line, ({ p50 }) => p50).toFixed(2),
      many.rounds.median(line, ({ p99 }) => p99).toFixed(2),
      single.rounds.median(line, ({ p50 }) => p50).toFixed(3),
      delay(line).toFixed(2),
      sum([many, single].flatMap(({ rounds }) => rounds.values(line, ({ lost }) => lost))),
      sum([many, single].flatMap(({ rounds }) => rounds.values(line, ({ wrong }) => wrong))),
    ]),
  )
  console.log()
  table(
    [
      'a round trip costs',
      ...[many, single].flatMap(({ load }) => [`${load} in flight: commands`, 'from clients']),
      '50 in flight: CPU µs of producer',
      'worker',
      'Redis',
    ],
    lines.map((line) => [
      label(line),
      ...[many, single].flatMap(({ rounds, sent }) => [
        rounds.median(line, ({ commands }) => commands).toFixed(1),
        (sent.get(line) ?? Number.NaN).toFixed(1),
      ]),
      many.rounds.median(line, ({ cpu }) => cpu).toFixed(0),
      many.rounds.median(line, ({ workerCpu }) => workerCpu).toFixed(0),
      many.rounds.median(line, ({ redisCpu }) => redisCpu).toFixed(0),
    ]),
  )
  judge(
    lines.filter(({ pair }) => pair.name === 'soloflight'),
    [many, single],
  )
  const [own, shared, bull] = [
    find('soloflight', 'plain'),
    find('soloflight', 'deduplicated'),
    find('BullMQ', 'plain'),
  ]
  if (!own || !shared) return
  atLeast('submit to result, 50 in flight, dedupe off, of bee-queue', speed(own, bee.plain), 1.3, { goal: 2 })
  atLeast('submit to result, 50 in flight, dedupe on, of bee-queue', speed(shared, bee.plain), 1.2, {
    goal: 1.5,
  })
  if (bull) atLeast('submit to result, 50 in flight, dedupe off, of BullMQ', speed(own, bull), 4)
  atMost('submit to result, 1 in flight, p50, of bee-queue', delay(own), 1.5, { goal: 1.2 })
}

/** What can be counted. */
function judge(own: readonly Line[], results: readonly Result[]): void {
  const faults = results.flatMap(({ rounds }) =>
    own.flatMap((line) => rounds.values(line, ({ lost, wrong }) => lost + wrong)),
  )
  exactly('submit to result, lost or wrong', [sum(faults)], [0])
  for (const { load, rounds, sent } of results) {
    const what = `${load} in flight`
    const commands = Math.max(...own.map((line) => rounds.median(line, (trips) => trips.commands)))
    // A look at what is due, every now and then, is no part of a trip.
    const whole = Math.round(commands)
    atMost(`Redis commands a round trip, inside scripts too, ${what}`, whole, 14, { kind: 'count' })
    const most = Math.max(...own.map((line) => sent.get(line) ?? Number.NaN))
    atMost(`commands from clients a round trip, ${what}`, most, 4, { digits: 1, kind: 'count' })
  }
}
