import type { Name } from '../contenders/contender.ts'
import { figure, heading, table } from '../report.ts'
import { type BenchChild, endChildren, forkChildren, open, prefixOf, rotated, type Stage } from '../stage.ts'
import { median, sum } from '../statistics.ts'
import { PROCESSES, type Volley, volley } from './volleys.ts'

const NAMES: readonly Name[] = [
  'soloflight',
  'redis-semaphore',
  'layered-loader',
  'async-cache-dedupe',
  'cachified',
  'bentocache',
  'cacheable',
]
const QUICK: readonly Name[] = ['soloflight', 'redis-semaphore', 'layered-loader']
const CALLERS = 25
const WORK = { sleeps: 200, steps: 0 }

/** One cold key, asked for in all processes in the same moment. */
export async function cold(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 5 : 20
  heading(
    `cold: one cold key, ${PROCESSES} processes × ${CALLERS} callers in one tick, ${WORK.sleeps} ms of work, ${rounds} rounds`,
  )
  const children = await forkChildren(PROCESSES)
  const volleys = new Map<Name, Volley[]>(names.map((name) => [name, []]))
  const fromClients = new Map<Name, number>()
  try {
    for (const name of names) await warm(children, name, stage)
    for (let round = 0; round < rounds; round++) {
      for (const name of rotated(names, round)) {
        volleys.get(name)?.push(await volley(children, name, stage, [`cold:${round}`], CALLERS, WORK))
      }
    }
    for (const name of names) fromClients.set(name, await clientCommands(children, name, stage))
  } finally {
    await endChildren(children)
  }
  report(names, volleys, fromClients)
}

/** Opens the contender everywhere and has it used twice, so that it is connected and its scripts are loaded. */
async function warm(children: readonly BenchChild[], name: Name, stage: Stage): Promise<void> {
  await Promise.all(
    children.map((child) => open(child, name, stage, ['both', 'redis'], { prefix: prefixOf('cold', name) })),
  )
  for (const round of [1, 2])
    await volley(children, name, stage, [`warm:${round}`], 2, { sleeps: 5, steps: 0 })
}

/** How many commands clients send in such a moment, PINGs aside. Not in the rounds that are timed: the monitor costs. */
async function clientCommands(children: readonly BenchChild[], name: Name, stage: Stage): Promise<number> {
  const counts: number[] = []
  for (const round of stage.quick ? [1] : [1, 2, 3]) {
    await using monitor = await stage.server.monitor()
    await volley(children, name, stage, [`monitored:${round}`], CALLERS, WORK)
    const lines = await monitor.lines()
    const own = ['ping', 'info', 'config']
    counts.push(lines.filter(({ fromScript, command }) => !fromScript && !own.includes(command)).length)
  }
  return median(counts)
}

function report(
  names: readonly Name[],
  volleys: ReadonlyMap<Name, readonly Volley[]>,
  fromClients: ReadonlyMap<Name, number>,
): void {
  const all = (name: Name) => volleys.get(name) ?? []
  const most = (name: Name, of: (volley: Volley) => number) => Math.max(...all(name).map(of))
  const lag = (name: Name) => median(all(name).map((volley) => volley.lag))
  table(
    [
      'one cold key',
      'runs',
      'Redis commands',
      'from clients',
      'last settled after the work, ms',
      'lost',
      'wrong',
    ],
    names.map((name) => [
      name,
      median(all(name).map(({ runs }) => runs)),
      median(all(name).map(({ commands }) => commands)),
      fromClients.get(name) ?? '-',
      lag(name).toFixed(1),
      sum(all(name).map(({ lost }) => lost)),
      sum(all(name).map(({ wrong }) => wrong)),
    ]),
  )
  const own = 'soloflight'
  const faults = sum(all(own).map(({ lost, wrong }) => lost + wrong))
  figure({
    what: 'one cold key, runs, in every round, and nobody without the answer',
    wanted: '1',
    measured: `${most(own, ({ runs }) => runs)}${faults > 0 ? `, ${faults} lost or wrong` : ''}`,
    reached: most(own, ({ runs }) => runs) === 1 && faults === 0,
    kind: 'count',
  })
  figure({
    what: 'one cold key, commands from clients',
    wanted: '9',
    measured: `${fromClients.get(own)}`,
    reached: (fromClients.get(own) ?? Number.POSITIVE_INFINITY) <= 9,
    kind: 'count',
  })
  const commands = median(all(own).map((volley) => volley.commands))
  figure({
    what: 'one cold key, Redis commands, inside scripts too',
    wanted: 'at most 50',
    measured: `${commands}`,
    reached: commands <= 50,
    kind: 'count',
  })
  figure({
    what: 'one cold key, from the end of the work to the last settled caller',
    wanted: 'at most 5 ms, median',
    measured: `${lag(own).toFixed(1)} ms`,
    reached: lag(own) <= 5,
    kind: 'time',
  })
}
