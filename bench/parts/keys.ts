import type { WorkKind } from '../burst.ts'
import type { Name } from '../contenders/contender.ts'
import { atMost, exactly, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import { type BenchChild, endChildren, forkChildren, open, prefixOf, type Stage } from '../stage.ts'
import { quantile, sum } from '../statistics.ts'
import { PROCESSES, type Volley, volley } from './volleys.ts'

const QUICK: readonly Name[] = ['soloflight', 'redis-semaphore', 'layered-loader']
const NAMES: readonly Name[] = [...QUICK, 'async-cache-dedupe', 'bentocache']
const KEYS = 200
const WAITS = 20

/** Many cold keys, asked for in all processes in the same moment. */
export async function keys(stage: Stage): Promise<void> {
  const children = await forkChildren(PROCESSES)
  try {
    const steps = (await children[0]?.call('stepsPerMs')) ?? 0
    for (const name of stage.quick ? QUICK : NAMES) {
      const prefix = prefixOf('keys', name)
      await Promise.all(children.map((child) => open(child, name, stage, ['both', 'redis'], { prefix })))
    }
    await volleys(stage, children, { steps }, '1 ms of CPU', 0.6, 0.4)
    await volleys(stage, children, { waits: WAITS }, `${WAITS} ms of I/O`, 0.3)
  } finally {
    await endChildren(children)
  }
}

async function volleys(
  stage: Stage,
  children: readonly BenchChild[],
  work: WorkKind,
  of: string,
  limit: number,
  goal?: number,
): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 3 : 8
  heading(`keys: ${KEYS} cold keys × ${PROCESSES} processes in one tick, ${of} per work, ${rounds} rounds`)
  const fire = (name: Name, round: number | string) => {
    const some = Array.from({ length: KEYS }, (_, n) => `keys:${of}:${round}:${n}`)
    return volley(children, name, stage, some, 1, work)
  }
  // Until all of them are compiled.
  for (let round = 0; round < (stage.quick ? 1 : 30); round++) {
    for (const name of names) await fire(name, `warm:${round}`)
  }
  const results = await interleaved(names, rounds, (name, round) => fire(name, round))
  const p50 = ({ latencies }: Volley) => quantile(latencies, 0.5)
  const p99 = ({ latencies }: Volley) => quantile(latencies, 0.99)
  table(
    [
      `${KEYS} cold keys, ${of}`,
      'runs',
      'p50 ms',
      'p99 ms',
      'of redis-semaphore',
      'Redis commands',
      'lost',
      'wrong',
    ],
    names.map((name) => [
      name,
      results.median(name, ({ runs }) => runs),
      results.median(name, p50).toFixed(0),
      results.median(name, p99).toFixed(0),
      results.ratio(name, 'redis-semaphore', p99).toFixed(2),
      results.median(name, ({ commands }) => commands),
      sum(results.values(name, ({ lost }) => lost)),
      sum(results.values(name, ({ wrong }) => wrong)),
    ]),
  )
  const own = 'soloflight'
  const most = Math.max(...results.values(own, ({ runs }) => runs))
  const faults = sum(results.values(own, ({ lost, wrong }) => lost + wrong))
  exactly(
    `${KEYS} cold keys, ${of}, runs in every round; callers without the answer`,
    [most, faults],
    [KEYS, 0],
  )
  const share = results.ratio(own, 'redis-semaphore', p99)
  atMost(
    `${KEYS} cold keys, ${of}, p99, of GET and redis-semaphore`,
    share,
    limit,
    goal === undefined ? {} : { goal },
  )
}
