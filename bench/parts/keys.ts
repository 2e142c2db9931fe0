import type { Name } from '../contenders/contender.ts'
import { figure, heading, table } from '../report.ts'
import { endChildren, forkChildren, open, prefixOf, rotated, type Stage } from '../stage.ts'
import { median, quantile, sum } from '../statistics.ts'
import { PROCESSES, type Volley, volley } from './volleys.ts'

const NAMES: readonly Name[] = [
  'soloflight',
  'layered-loader',
  'redis-semaphore',
  'async-cache-dedupe',
  'cachified',
  'bentocache',
  'cacheable',
]
const QUICK: readonly Name[] = ['soloflight', 'layered-loader', 'redis-semaphore']
const KEYS = 200

/** Many cold keys, asked for in all processes in the same moment, with works that keep a core busy. */
export async function keys(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 2 : 8
  heading(
    `keys: ${KEYS} cold keys × ${PROCESSES} processes in one tick, 1 ms of CPU per work, ${rounds} rounds`,
  )
  const children = await forkChildren(PROCESSES)
  const volleys = new Map<Name, Volley[]>(names.map((name) => [name, []]))
  try {
    const work = { sleeps: 0, steps: (await children[0]?.call('stepsPerMs')) ?? 0 }
    const ask = (name: Name, round: number | string, count: number) => {
      const some = Array.from({ length: count }, (_, n) => `keys:${round}:${n}`)
      return volley(children, name, stage, some, 1, work)
    }
    for (const name of names) {
      await Promise.all(
        children.map((child) =>
          open(child, name, stage, ['both', 'redis'], { prefix: prefixOf('keys', name) }),
        ),
      )
      await ask(name, 'warm', KEYS / 4)
    }
    for (let round = 0; round < rounds; round++) {
      for (const name of rotated(names, round)) volleys.get(name)?.push(await ask(name, round, KEYS))
    }
  } finally {
    await endChildren(children)
  }
  report(names, volleys)
}

function report(names: readonly Name[], volleys: ReadonlyMap<Name, readonly Volley[]>): void {
  const all = (name: Name) => volleys.get(name) ?? []
  const late = (name: Name, part: number) =>
    median(all(name).map(({ latencies }) => quantile(latencies, part)))
  table(
    [`${KEYS} cold keys`, 'runs', 'p50 ms', 'p99 ms', 'Redis commands', 'lost', 'wrong'],
    names.map((name) => [
      name,
      median(all(name).map(({ runs }) => runs)),
      late(name, 0.5).toFixed(0),
      late(name, 0.99).toFixed(0),
      median(all(name).map(({ commands }) => commands)),
      sum(all(name).map(({ lost }) => lost)),
      sum(all(name).map(({ wrong }) => wrong)),
    ]),
  )
  const own = all('soloflight')
  const runs = Math.max(...own.map((volley) => volley.runs))
  const faults = sum(own.map(({ lost, wrong }) => lost + wrong))
  figure({
    what: `${KEYS} cold keys, runs, in every round, and nobody without the answer`,
    wanted: `${KEYS}`,
    measured: `${runs}${faults > 0 ? `, ${faults} lost or wrong` : ''}`,
    reached: runs === KEYS && faults === 0,
    kind: 'count',
  })
  for (const [peer, most] of [
    ['layered-loader', 1],
    ['redis-semaphore', 0.5],
  ] as const) {
    const share = late('soloflight', 0.99) / late(peer, 0.99)
    figure({
      what: `${KEYS} cold keys, p99, of ${peer}`,
      wanted: `at most ${most}`,
      measured: share.toFixed(3),
      reached: share <= most,
      kind: 'time',
    })
  }
}
