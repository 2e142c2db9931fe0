import type { Name } from '../contenders/contender.ts'
import type { Pumped } from '../pump.ts'
import { figure, heading, table } from '../report.ts'
import { endChildren, forkChildren, open, prefixOf, rotated, type Stage } from '../stage.ts'
import { median, sum } from '../statistics.ts'

const NAMES: readonly Name[] = [
  'soloflight',
  'lru-cache',
  'layered-loader',
  'async-cache-dedupe',
  'cachified',
  'bentocache',
  'cacheable',
  'cache-manager',
]
const QUICK: readonly Name[] = ['soloflight', 'lru-cache', 'layered-loader']
const KEYS = 1_000

/** Awaited hits in the process, each contender in a process of its own. */
export async function hits(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 5 : 10
  const ms = stage.quick ? 200 : 500
  heading(`hits: awaited hit in the process, ${KEYS} keys, a ttl on all, ${rounds} rounds of ${ms} ms`)
  const children = await forkChildren(names.length)
  const crew = new Map(names.map((name, index) => [name, children[index]] as const))
  const results = new Map<Name, Pumped[]>(names.map((name) => [name, []]))
  try {
    for (const [name, child] of crew) {
      if (!child) continue
      await open(child, name, stage, ['both', 'memory'], { prefix: prefixOf('hits', name) })
      await child.call('fill', name, 'user', KEYS)
      await child.call('spin', name, 'user', KEYS, ms)
      const before = await child.call('runs')
      await child.call('fill', name, 'user', KEYS)
      if ((await child.call('runs')) !== before) throw new Error(`${name} computed what it was to keep`)
    }
    for (let round = 0; round < rounds; round++) {
      for (const name of rotated(names, round)) {
        const pumped = await crew.get(name)?.call('spin', name, 'user', KEYS, ms)
        if (pumped) results.get(name)?.push(pumped)
      }
    }
  } finally {
    await endChildren(children)
  }
  const rate = (name: Name) => median((results.get(name) ?? []).map((pumped) => pumped.rate))
  const cpu = (name: Name) => median((results.get(name) ?? []).map((pumped) => pumped.cpu))
  const own = rate('soloflight')
  table(
    ['awaited hits', 'M/s', 'ns each', 'of lru-cache', 'CPU ns', 'lost', 'wrong'],
    names.map((name) => {
      const pumped = results.get(name) ?? []
      return [
        name,
        (rate(name) / 1000).toFixed(2),
        (1e6 / rate(name)).toFixed(0),
        (rate(name) / rate('lru-cache')).toFixed(2),
        (cpu(name) * 1000).toFixed(0),
        sum(pumped.map(({ lost }) => lost)),
        sum(pumped.map(({ wrong }) => wrong)),
      ]
    }),
  )
  for (const peer of ['lru-cache', 'layered-loader'] as const) {
    figure({
      what: `awaited in-process hit, of ${peer}`,
      wanted: 'at least 0.95',
      measured: (own / rate(peer)).toFixed(3),
      reached: own / rate(peer) >= 0.95,
      kind: 'time',
    })
  }
}
