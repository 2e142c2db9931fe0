import type { Burst, WorkKind } from '../burst.ts'
import type { Name } from '../contenders/contender.ts'
import { type BenchChild, commandsRun, type Stage } from '../stage.ts'
import { now, sum } from '../statistics.ts'

export const PROCESSES = 8

/** The processes are given so long to be told when to begin, ms. */
const HEAD_START = 40

/** What came of one moment in which all processes asked. */
export interface Volley {
  runs: number
  commands: number
  latencies: number[]
  /** From the end of the last work until the last caller in any process had the answer, ms. */
  lag: number
  lost: number
  wrong: number
}

/** All processes ask for the keys in the same moment. */
export async function volley(
  children: readonly BenchChild[],
  name: Name,
  { server }: Stage,
  keys: string[],
  callers: number,
  work: WorkKind,
): Promise<Volley> {
  await server.resetStats()
  const at = now() + HEAD_START
  const bursts: Burst[] = await Promise.all(
    children.map((child) => child.call('burst', name, keys, callers, at, work)),
  )
  return {
    runs: sum(bursts.map(({ runs }) => runs)),
    commands: await commandsRun(server),
    latencies: bursts.flatMap(({ latencies }) => latencies),
    lag:
      Math.max(...bursts.map(({ settledAt }) => settledAt)) -
      Math.max(...bursts.map(({ workedUntil }) => workedUntil)),
    lost: sum(bursts.map(({ lost }) => lost)),
    wrong: sum(bursts.map(({ wrong }) => wrong)),
  }
}
