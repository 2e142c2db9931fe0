import type { Route } from '../bus/bus.ts'
import { type Carried, type Crew, carry, commandsAMessage, faultsOf, IN_FLIGHT } from '../bus/carry.ts'
import { busMember } from '../bus/crew.ts'
import type { BusName } from '../bus/entrant.ts'
import { KINDS } from '../bus/messages.ts'
import type { Build } from '../library.ts'
import { atLeast, atMost, exactly, heading, table } from '../report.ts'
import { interleaved, type Rounds } from '../rounds.ts'
import { endChildren, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'

const NAMES: readonly BusName[] = ['soloflight', 'busmq']
const QUICK: readonly BusName[] = ['soloflight']

/**
 * How messages are consumed: by default, reliably, and reliably with 50 that are not acknowledged. busmq hands over the next one
 * whatever is not acknowledged, without a limit; we hold one at a time unless told otherwise.
 */
const MODES: readonly Pick<Route, 'reliable' | 'prefetch'>[] = [
  { reliable: false },
  { reliable: true },
  { reliable: true, prefetch: 50 },
]

/** Strings and objects, in each mode. */
export const ROUTES: readonly Route[] = MODES.flatMap(({ reliable, prefetch }) =>
  KINDS.map((kind) => ({
    name: ['bus', reliable && 'reliable', prefetch, kind].filter(Boolean).join('-'),
    via: 'queue',
    reliable,
    ...(prefetch !== undefined && { prefetch }),
    kind,
  })),
)

/** At least so much of the rate of busmq, and what is aimed at. */
const RATES = { default: { limit: 3, goal: 5 }, reliable: { limit: 1.5, goal: 3 } }

/** Two processes: one that pushes, and one that consumes. */
interface Pair extends Crew {
  name: BusName
  /** The queue of each route. */
  queueOf: (route: Route) => string
}

/** What came of one route, for everybody. */
interface Result {
  route: Route
  rounds: Rounds<Pair, Carried>
  /** Commands from clients, a message. */
  sent: ReadonlyMap<Pair, number>
  faults: ReadonlyMap<Pair, number>
}

export const labelOf = ({ kind, reliable, prefetch }: Route) =>
  [kind, reliable && 'reliable', prefetch && `prefetch ${prefetch}`].filter(Boolean).join(', ')

/** `build`: the library that they measure. Each library and each build has queues of its own. */
export async function openPair(name: BusName, { server }: Stage, build?: Build): Promise<Pair> {
  const queueOf = (route: Route) => `${route.name}.${name}.${build ?? 'own'}`
  const routes = ROUTES.map((route) => ({ ...route, name: queueOf(route) }))
  const consumer = await busMember(name, [server], { receives: routes }, build)
  const producer = await busMember(name, [server], { sends: routes }, build)
  return { name, queueOf, sender: producer, receivers: [consumer] }
}

export function closePair({ sender, receivers }: Pair): Promise<void> {
  return endChildren([sender, ...receivers])
}

/** Messages are pushed in one process and consumed in another. */
export async function bus(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 2 : 12
  const ms = stage.quick ? 150 : 400
  heading(
    `bus: messages of 1 KB, one process pushes and one consumes, ${IN_FLIGHT} pushes in flight, ${rounds} rounds of ${ms} ms`,
  )
  const pairs: Pair[] = []
  try {
    for (const name of stage.quick ? QUICK : NAMES) pairs.push(await openPair(name, stage))
    const results: Result[] = []
    for (const route of ROUTES) results.push(await measure(route, pairs, stage, rounds, ms))
    report(pairs, results)
  } finally {
    for (const pair of pairs) await closePair(pair)
    await stage.server.call('FLUSHALL')
  }
}

async function measure(
  route: Route,
  pairs: readonly Pair[],
  stage: Stage,
  rounds: number,
  ms: number,
): Promise<Result> {
  const turn = (pair: Pair) => carry(pair, pair.queueOf(route), stage, ms)
  // Long enough for all of them to be compiled.
  await interleaved(pairs, stage.quick ? 1 : 5, turn)
  const results = await interleaved(pairs, rounds, turn)
  const sent = new Map<Pair, number>()
  for (const pair of pairs) sent.set(pair, await commandsAMessage(pair, pair.queueOf(route), stage))
  const faults = new Map<Pair, number>()
  for (const pair of pairs) {
    // After the consumer has stopped and consumes again, nothing that was acknowledged comes once more.
    for (const consumer of pair.receivers) await consumer.call('restart', pair.queueOf(route))
    await turn(pair)
    faults.set(pair, await faultsOf(pair, pair.queueOf(route)))
  }
  return { route, rounds: results, sent, faults }
}

function report(pairs: readonly Pair[], results: readonly Result[]): void {
  const [own, busmq] = (['soloflight', 'busmq'] as const).map((name) =>
    pairs.find((pair) => pair.name === name),
  )
  const rate = ({ rounds }: Result, pair: Pair | undefined) =>
    pair && busmq ? rounds.ratio(pair, busmq, (carried) => carried.rate) : Number.NaN
  table(
    ['a message', 'received, /s', 'of busmq', 'pushed, /s', 'push p50 ms', 'p99 ms', 'lost or wrong'],
    results.flatMap((result) =>
      pairs.map((pair) => [
        `${labelOf(result.route)}: ${pair.name}`,
        result.rounds.median(pair, (carried) => carried.rate * 1000).toFixed(0),
        rate(result, pair).toFixed(2),
        result.rounds.median(pair, (carried) => carried.sendRate * 1000).toFixed(0),
        result.rounds.median(pair, ({ p50 }) => p50).toFixed(2),
        result.rounds.median(pair, ({ p99 }) => p99).toFixed(2),
        result.faults.get(pair) ?? Number.NaN,
      ]),
    ),
  )
  console.log()
  table(
    ['a message costs', 'CPU µs of producer', 'consumer', 'Redis', 'commands', 'from clients'],
    results.flatMap(({ route, rounds, sent }) =>
      pairs.map((pair) => [
        `${labelOf(route)}: ${pair.name}`,
        rounds.median(pair, ({ senderCpu }) => senderCpu).toFixed(0),
        rounds.median(pair, ({ receiverCpu }) => receiverCpu).toFixed(0),
        rounds.median(pair, ({ redisCpu }) => redisCpu).toFixed(0),
        rounds.median(pair, ({ commands }) => commands).toFixed(1),
        (sent.get(pair) ?? Number.NaN).toFixed(2),
      ]),
    ),
  )
  if (!own) return
  const faults = results.map((result) => result.faults.get(own) ?? Number.NaN)
  exactly('messages of the bus, lost, wrong or out of order', [sum(faults)], [0])
  for (const { route, sent } of results.filter(({ route }) => !route.reliable)) {
    atMost(`commands from clients a message of the bus, ${labelOf(route)}`, sent.get(own) ?? Number.NaN, 1, {
      goal: 0.2,
      digits: 2,
      kind: 'count',
    })
  }
  if (!busmq) return
  for (const result of results) {
    const { limit, goal } = result.route.reliable ? RATES.reliable : RATES.default
    atLeast(`messages of the bus, ${labelOf(result.route)}, of busmq`, rate(result, own), limit, { goal })
  }
}
