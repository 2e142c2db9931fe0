import type { Build } from '../library.ts'
import { atLeast, atMost, exactly, heading, table } from '../report.ts'
import { interleaved, type Rounds } from '../rounds.ts'
import { type ServicesChild, servicesMember } from '../services/crew.ts'
import type { ServicesName } from '../services/entrant.ts'
import { endChildren, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'
import { commandsATrip, measureTrips, type TripSource, type Trips } from '../trips.ts'

const NAMES: readonly ServicesName[] = ['soloflight', 'Moleculer', 'two hops']
const QUICK: readonly ServicesName[] = ['soloflight', 'two hops']

/** Two processes: one that calls, and one that serves. */
interface Pair {
  name: ServicesName
  service: string
  caller: ServicesChild
  server: ServicesChild
}

/** What came of one load, for everybody. */
interface Result {
  load: number
  rounds: Rounds<Pair, Trips>
  /** Commands from clients, a call. */
  sent: ReadonlyMap<Pair, number>
}

const serviceOf = (name: ServicesName, build?: Build) => `sums-${name.replace(/\W+/g, '-')}-${build ?? 'own'}`

/** `build`: the library that they measure. Each build has a service of its own. */
export async function openPair(name: ServicesName, stage: Stage, build?: Build): Promise<Pair> {
  const service = serviceOf(name, build)
  const server = await servicesMember(name, stage, { serves: [service], calls: [] }, build)
  const caller = await servicesMember(name, stage, { serves: [], calls: [service] }, build)
  return { name, service, caller, server }
}

export function closePair({ caller, server }: Pair): Promise<void> {
  return endChildren([caller, server])
}

/** Calls from one to the other. */
export function tripsBetween({ service, caller, server }: Pair): TripSource {
  return {
    pump: (inFlight, ms) => caller.call('pump', service, inFlight, ms),
    usage: () => server.call('usage'),
  }
}

/** A service is called in one process and served in another. */
export async function services(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 15
  const ms = stage.quick ? 150 : 500
  heading(`services: calls with 1 KB, one process calls and one serves, ${rounds} rounds of ${ms} ms`)
  const pairs: Pair[] = []
  try {
    for (const name of stage.quick ? QUICK : NAMES) pairs.push(await openPair(name, stage))
    // Long enough for all of them to be compiled.
    const warmUp = stage.quick ? 2 * ms : 5_000
    for (const load of [50, 1]) {
      for (const pair of pairs) await measureTrips(tripsBetween(pair), load, stage, warmUp)
    }
    report(pairs, await measure(50, pairs, stage, rounds, ms), await measure(1, pairs, stage, rounds, ms))
  } finally {
    for (const pair of pairs) await closePair(pair)
    await stage.server.call('FLUSHALL')
  }
}

async function measure(
  load: number,
  pairs: readonly Pair[],
  stage: Stage,
  rounds: number,
  ms: number,
): Promise<Result> {
  const results = await interleaved(pairs, rounds, (pair) =>
    measureTrips(tripsBetween(pair), load, stage, ms),
  )
  const sent = new Map<Pair, number>()
  for (const pair of pairs) sent.set(pair, await commandsATrip(tripsBetween(pair), load, stage))
  return { load, rounds: results, sent }
}

function report(pairs: readonly Pair[], many: Result, single: Result): void {
  const find = (name: ServicesName) => pairs.find((pair) => pair.name === name)
  const [own, moleculer, bare] = [find('soloflight'), find('Moleculer'), find('two hops')]
  const ratio = (result: Result, pair: Pair, peer: Pair | undefined, of: (trips: Trips) => number) =>
    peer ? result.rounds.ratio(pair, peer, of) : Number.NaN
  const rate = (pair: Pair, peer: Pair | undefined) => ratio(many, pair, peer, (trips) => trips.rate)
  const delay = (pair: Pair, peer: Pair | undefined) => ratio(single, pair, peer, (trips) => trips.p50)
  const results = [many, single]
  table(
    [
      'a call',
      '50 in flight, /s',
      'of Moleculer',
      'of two hops',
      'p50 ms',
      'p99 ms',
      '1 in flight, /s',
      'p50 ms',
      'p99 ms',
      'p50 of Moleculer',
      'of two hops',
      'lost',
      'wrong',
    ],
    pairs.map((pair) => [
      pair.name,
      many.rounds.median(pair, (trips) => trips.rate * 1000).toFixed(0),
      rate(pair, moleculer).toFixed(2),
      rate(pair, bare).toFixed(2),
      many.rounds.median(pair, (trips) => trips.p50).toFixed(2),
      many.rounds.median(pair, (trips) => trips.p99).toFixed(2),
      single.rounds.median(pair, (trips) => trips.rate * 1000).toFixed(0),
      single.rounds.median(pair, (trips) => trips.p50).toFixed(3),
      single.rounds.median(pair, (trips) => trips.p99).toFixed(3),
      delay(pair, moleculer).toFixed(2),
      delay(pair, bare).toFixed(2),
      sum(results.flatMap(({ rounds }) => rounds.values(pair, ({ lost }) => lost))),
      sum(results.flatMap(({ rounds }) => rounds.values(pair, ({ wrong }) => wrong))),
    ]),
  )
  console.log()
  table(
    [
      'a call costs',
      ...results.flatMap(({ load }) => [
        `${load} in flight: CPU µs of caller`,
        'server',
        'Redis',
        'commands',
        'from clients',
      ]),
    ],
    pairs.map((pair) => [
      pair.name,
      ...results.flatMap(({ rounds, sent }) => [
        rounds.median(pair, ({ cpu }) => cpu).toFixed(0),
        rounds.median(pair, ({ workerCpu }) => workerCpu).toFixed(0),
        rounds.median(pair, ({ redisCpu }) => redisCpu).toFixed(0),
        rounds.median(pair, ({ commands }) => commands).toFixed(1),
        (sent.get(pair) ?? Number.NaN).toFixed(2),
      ]),
    ]),
  )
  if (!own) return
  const faults = results.flatMap(({ rounds }) => rounds.values(own, ({ lost, wrong }) => lost + wrong))
  exactly('calls of services, lost or wrong', [sum(faults)], [0])
  const sent = many.sent.get(own) ?? Number.NaN
  atMost('commands from clients a call of a service, 50 in flight', sent, 2, {
    goal: 0.5,
    digits: 2,
    kind: 'count',
  })
  if (moleculer) {
    atLeast('calls of services, 50 in flight, of Moleculer', rate(own, moleculer), 1, { goal: 1.5 })
    atMost('a call of a service, 1 in flight, p50, of Moleculer', delay(own, moleculer), 1.3, { goal: 1 })
  }
  atLeast('calls of services, 50 in flight, of two bare hops', rate(own, bare), 0.7, { goal: 1 })
}
