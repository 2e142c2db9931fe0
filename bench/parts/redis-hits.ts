import type { Name } from '../contenders/contender.ts'
import type { Pumped } from '../pump.ts'
import { atLeast, atMost, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import { commandsSent, endChildren, forkChildren, open, prefixOf, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'

const GET = 'ioredis GET'
const QUICK: readonly Name[] = ['soloflight', GET, 'layered-loader']
const NAMES: readonly Name[] = [...QUICK, 'redis-semaphore', 'async-cache-dedupe', 'bentocache']

/** Hits in Redis with nothing kept in the process, each contender in a process of its own. */
export async function redisHits(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 4 : 12
  const ms = stage.quick ? 150 : 400
  const count = stage.quick ? 4_000 : 20_000
  heading(
    `redis-hits: hit in Redis, 2 KB, in-process cache off, ${count} distinct keys, ${rounds} rounds of ${ms} ms`,
  )
  const children = await forkChildren(names.length)
  const crew = new Map(names.map((name, index) => [name, children[index]] as const))
  const pump = async (name: Name, inFlight: number): Promise<Pumped> => {
    const pumped = await crew.get(name)?.call('pump', name, 'user', count, inFlight, ms)
    if (!pumped) throw new Error(`${name} has no process`)
    return pumped
  }
  const sent = new Map<Name, number>()
  try {
    for (const [name, child] of crew) {
      if (!child) continue
      await open(child, name, stage, ['redis'], { prefix: prefixOf('redis-hits', name) })
      await child.call('fill', name, 'user', count)
      // Until it is compiled.
      for (let warm = 0; warm < (stage.quick ? 1 : 5); warm++) await pump(name, 64)
    }
    const many = await interleaved(names, rounds, (name) => pump(name, 64))
    const single = await interleaved(names, rounds, (name) => pump(name, 1))
    for (const [name, child] of crew) {
      if ((await child?.call('runs')) !== count) throw new Error(`${name} computed what Redis was to keep`)
      const asked = () => child?.call('ask', name, 'user', 1_000) ?? Promise.resolve()
      sent.set(name, (await commandsSent(stage.server, asked)) / 1_000)
    }
    const share = many.ratio('soloflight', GET, ({ rate }) => rate)
    const tail = many.ratio('soloflight', GET, ({ p99 }) => p99)
    const latency = (name: Name) => single.ratio(name, GET, ({ p50 }) => p50)
    table(
      [
        'hits in Redis',
        '64 in flight, k/s',
        'of GET',
        'p99 ms',
        'of GET',
        'CPU µs',
        '1 in flight, p50 µs',
        'of GET',
        'commands sent',
        'lost',
        'wrong',
      ],
      names.map((name) => {
        const both = [...many.of(name), ...single.of(name)]
        return [
          name,
          many.median(name, ({ rate }) => rate).toFixed(1),
          many.ratio(name, GET, ({ rate }) => rate).toFixed(2),
          many.median(name, ({ p99 }) => p99).toFixed(2),
          many.ratio(name, GET, ({ p99 }) => p99).toFixed(2),
          many.median(name, ({ cpu }) => cpu).toFixed(1),
          (single.median(name, ({ p50 }) => p50) * 1000).toFixed(0),
          latency(name).toFixed(2),
          (sent.get(name) ?? Number.NaN).toFixed(2),
          sum(both.map(({ lost }) => lost)),
          sum(both.map(({ wrong }) => wrong)),
        ]
      }),
    )
    atLeast('hit in Redis, 64 in flight, rate, of GET and JSON.parse', share, 0.9, { goal: 1 })
    atMost('hit in Redis, 64 in flight, p99, of GET and JSON.parse', tail, 1.5, { goal: 1.2 })
    atMost('hit in Redis, 1 in flight, p50, of GET and JSON.parse', latency('soloflight'), 1.3)
  } finally {
    await endChildren(children)
  }
}
