import type { Name } from '../contenders/contender.ts'
import { atMost, exactly, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import {
  type BenchChild,
  commandsSent,
  endChildren,
  forkChildren,
  open,
  prefixOf,
  type Stage,
} from '../stage.ts'
import { median, sum } from '../statistics.ts'
import { PROCESSES, volley } from './volleys.ts'

const QUICK: readonly Name[] = ['soloflight', 'redis-semaphore', 'layered-loader']
const NAMES: readonly Name[] = [...QUICK, 'async-cache-dedupe', 'bentocache']
const CALLERS = 25
const WAITS = 200

/** One cold key, asked for in all processes in the same moment. */
export async function cold(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 5 : 20
  heading(
    `cold: one cold key, ${PROCESSES} processes × ${CALLERS} callers in one tick, ${WAITS} ms of work, ${rounds} rounds`,
  )
  const children = await forkChildren(PROCESSES)
  const fire = (name: Name, round: number | string) =>
    volley(children, name, stage, [`cold:${round}`], CALLERS, { waits: WAITS })
  const fromClients = new Map<Name, number>()
  try {
    for (const name of names) await warm(children, name, stage)
    const volleys = await interleaved(names, rounds, fire)
    for (const name of names) {
      const counts: number[] = []
      for (const round of stage.quick ? [1] : [1, 2, 3]) {
        counts.push(await commandsSent(stage.server, () => fire(name, `monitored:${round}`)))
      }
      fromClients.set(name, median(counts))
    }
    table(
      [
        'one cold key',
        'runs',
        'Redis commands',
        'from clients',
        'last answer after the work, ms',
        'lost',
        'wrong',
      ],
      names.map((name) => [
        name,
        volleys.median(name, ({ runs }) => runs),
        volleys.median(name, ({ commands }) => commands),
        fromClients.get(name) ?? '-',
        volleys.median(name, ({ lag }) => lag).toFixed(1),
        sum(volleys.values(name, ({ lost }) => lost)),
        sum(volleys.values(name, ({ wrong }) => wrong)),
      ]),
    )
    const own = 'soloflight'
    const most = Math.max(...volleys.values(own, ({ runs }) => runs))
    const faults = sum(volleys.values(own, ({ lost, wrong }) => lost + wrong))
    exactly('one cold key, runs in every round; callers without the answer', [most, faults], [1, 0])
    const sent = fromClients.get(own) ?? Number.NaN
    atMost('one cold key, commands from clients', sent, 17, { kind: 'count' })
    const commands = volleys.median(own, (volley) => volley.commands)
    atMost('one cold key, Redis commands, inside scripts too', commands, 60, { kind: 'count' })
    const lag = volleys.median(own, (volley) => volley.lag)
    atMost('one cold key, last answer after the end of the work', lag, 5, { unit: ' ms', goal: 3 })
  } finally {
    await endChildren(children)
  }
}

/** Opens the contender everywhere and has it used until it is connected and compiled, as in a service that has run a while. */
async function warm(children: readonly BenchChild[], name: Name, stage: Stage): Promise<void> {
  const prefix = prefixOf('cold', name)
  await Promise.all(children.map((child) => open(child, name, stage, ['both', 'redis'], { prefix })))
  for (let round = 0; round < (stage.quick ? 2 : 30); round++) {
    const some = Array.from({ length: 100 }, (_, n) => `warm:${round}:${n}`)
    await volley(children, name, stage, some, 2, { waits: 5 })
  }
}
