import type { Name } from '../contenders/contender.ts'
import { atLeast, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import { endChildren, forkChildren, open, prefixOf, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'

/** What people call; what is reached and aimed at, of the exact lru-cache. */
const OWN = [
  ['soloflight', 'run with { ttl, timeout }', 0.9],
  ['soloflight, memoize', 'memoize with a ttl and a key function', 0.85],
  ['soloflight, request', 'request with { timeout }', 0.85],
] as const
const EXACT = 'lru-cache, ttlResolution 0'

const QUICK: readonly Name[] = [
  ...OWN.map(([name]) => name),
  'soloflight, options hoisted',
  'soloflight, no options',
  EXACT,
  'lru-cache',
  'layered-loader',
]
const NAMES: readonly Name[] = [...QUICK, 'async-cache-dedupe', 'bentocache']
const KEYS = 1_000

/** Long enough for everything to be optimised on a busy machine too, ms. */
const WARM_UP = 3_000

/** Awaited hits in the process, each contender in a process of its own. */
export async function hits(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 5 : 12
  const ms = stage.quick ? 200 : 400
  heading(
    `hits: awaited hit in the process, ${KEYS} keys of 2 KB, a ttl on all, ${rounds} rounds of ${ms} ms`,
  )
  const children = await forkChildren(names.length)
  const crew = new Map(names.map((name, index) => [name, children[index]] as const))
  const spin = async (name: Name, forMs: number) => {
    const pumped = await crew.get(name)?.call('spin', name, 'user', KEYS, forMs)
    if (!pumped) throw new Error(`${name} has no process`)
    return pumped
  }
  try {
    for (const [name, child] of crew) {
      if (!child) continue
      await open(child, name, stage, ['both', 'memory'], { prefix: prefixOf('hits', name) })
      await child.call('fill', name, 'user', KEYS)
      await child.call('ask', name, 'user', KEYS)
      await spin(name, WARM_UP)
    }
    const results = await interleaved(names, rounds, (name) => spin(name, ms))
    const ratio = (name: Name, peer: Name) => results.ratio(name, peer, ({ rate }) => rate)
    table(
      ['awaited hits', 'M/s', 'ns each', 'CPU ns', `of ${EXACT}`, 'of lru-cache', 'lost', 'wrong'],
      names.map((name) => [
        name,
        (results.median(name, ({ rate }) => rate) / 1000).toFixed(2),
        (1e6 / results.median(name, ({ rate }) => rate)).toFixed(0),
        (results.median(name, ({ cpu }) => cpu) * 1000).toFixed(0),
        ratio(name, EXACT).toFixed(2),
        ratio(name, 'lru-cache').toFixed(2),
        sum(results.values(name, ({ lost }) => lost)),
        sum(results.values(name, ({ wrong }) => wrong)),
      ]),
    )
    for (const [name, call, limit] of OWN) {
      atLeast(`awaited in-process hit, ${call}, of ${EXACT}`, ratio(name, EXACT), limit)
    }
  } finally {
    await endChildren(children)
  }
}
