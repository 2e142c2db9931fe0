import { openSite } from '../gateway/crew.ts'
import type { Pumped } from '../pump.ts'
import { crewMember } from '../queues/crew.ts'
import { atLeast, exactly, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import { endChildren, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'
import { measureTrips, type TripSource, type Trips } from '../trips.ts'

const QUEUE = 'waited'
const IN_FLIGHT = 50
const PATHS = ['HTTP', 'library'] as const
type Path = (typeof PATHS)[number]

/** A job is posted, run by a worker of the library in another process, and answered with its result. */
export async function gatewayWait(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 10
  const ms = stage.quick ? 200 : 1_000
  heading(
    `gateway-wait: post and wait, 1 KB, ${IN_FLIGHT} in flight, beside the library alone, ${rounds} rounds of ${ms} ms`,
  )
  const terms = { queue: QUEUE, deduplicated: false }
  const worker = await crewMember('soloflight', stage.server, [{ ...terms, submits: false, works: true }])
  const producer = await crewMember('soloflight', stage.server, [{ ...terms, submits: true, works: false }])
  const { server, client } = await openSite('gateway', stage, IN_FLIGHT)
  try {
    const path = `/q/${QUEUE}?wait=30&command=add`
    const pumps: Record<Path, (inFlight: number, forMs: number) => Promise<Pumped>> = {
      HTTP: (inFlight, forMs) => client.call('postAndWait', path, inFlight, forMs),
      library: (inFlight, forMs) => producer.call('pump', QUEUE, inFlight, forMs),
    }
    const measure = async (name: Path, forMs: number): Promise<Trips & { gatewayCpu: number }> => {
      const before = await server.call('cpu')
      const source: TripSource = { pump: pumps[name], usage: () => worker.call('usage') }
      const trips = await measureTrips(source, IN_FLIGHT, stage, forMs)
      return { ...trips, gatewayCpu: ((await server.call('cpu')) - before) / (trips.rate * forMs) }
    }
    for (const name of PATHS) await measure(name, stage.quick ? 2 * ms : 5_000)
    const results = await interleaved(PATHS, rounds, (name) => measure(name, ms))
    const median = (name: Path, of: (trips: Trips & { gatewayCpu: number }) => number) =>
      results.median(name, of)
    table(
      [
        'post and wait',
        'round trips/s',
        'of the library',
        'p50 ms',
        'p99 ms',
        'commands',
        'CPU µs of client',
        'gateway',
        'worker',
        'Redis',
      ],
      PATHS.map((name) => [
        name,
        median(name, ({ rate }) => rate * 1000).toFixed(0),
        results.ratio(name, 'library', ({ rate }) => rate).toFixed(2),
        median(name, ({ p50 }) => p50).toFixed(2),
        median(name, ({ p99 }) => p99).toFixed(2),
        median(name, ({ commands }) => commands).toFixed(1),
        median(name, ({ cpu }) => cpu).toFixed(0),
        median(name, ({ gatewayCpu }) => gatewayCpu).toFixed(0),
        median(name, ({ workerCpu }) => workerCpu).toFixed(0),
        median(name, ({ redisCpu }) => redisCpu).toFixed(0),
      ]),
    )
    const faults = results.values('HTTP', ({ lost, wrong }) => lost + wrong)
    exactly('post and wait, lost or wrong', [sum(faults)], [0])
    const ratio = results.ratio('HTTP', 'library', ({ rate }) => rate)
    atLeast('post and wait over HTTP, of the library alone', ratio, 0.4, { goal: 0.6 })
  } finally {
    await endChildren([worker, producer, server, client])
    await stage.server.call('FLUSHALL')
  }
}
