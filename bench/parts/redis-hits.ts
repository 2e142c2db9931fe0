import type { Name } from '../contenders/contender.ts'
import type { Pumped } from '../pump.ts'
import { figure, heading, table } from '../report.ts'
import { endChildren, forkChildren, open, prefixOf, rotated, type Stage } from '../stage.ts'
import { median, sum } from '../statistics.ts'

const NAMES: readonly Name[] = [
  'soloflight',
  'ioredis GET',
  'layered-loader',
  'redis-semaphore',
  'async-cache-dedupe',
  'cachified',
  'bentocache',
  'cache-manager',
]
const QUICK: readonly Name[] = ['soloflight', 'ioredis GET', 'layered-loader', 'redis-semaphore']

/** Hits in Redis with nothing kept in the process, each contender in a process of its own. */
export async function redisHits(stage: Stage): Promise<void> {
  const names = stage.quick ? QUICK : NAMES
  const rounds = stage.quick ? 4 : 10
  const ms = stage.quick ? 150 : 500
  const count = stage.quick ? 4_000 : 20_000
  heading(
    `redis-hits: hit in Redis, in-process cache off, ${count} distinct keys, ${rounds} rounds of ${ms} ms`,
  )
  const children = await forkChildren(names.length)
  const crew = new Map(names.map((name, index) => [name, children[index]] as const))
  const results = new Map<string, Pumped[]>()
  try {
    for (const [name, child] of crew) {
      if (!child) continue
      await open(child, name, stage, ['redis'], { prefix: prefixOf('redis-hits', name) })
      await child.call('fill', name, 'user', count)
      await child.call('pump', name, 'user', count, 64, ms)
    }
    for (const inFlight of [64, 1]) {
      for (let round = 0; round < rounds; round++) {
        for (const name of rotated(names, round)) {
          const pumped = await crew.get(name)?.call('pump', name, 'user', count, inFlight, ms)
          const id = `${name} ${inFlight}`
          if (pumped) results.set(id, [...(results.get(id) ?? []), pumped])
        }
      }
    }
    for (const [name, child] of crew) {
      if ((await child?.call('runs')) !== count) throw new Error(`${name} computed what Redis was to keep`)
    }
  } finally {
    await endChildren(children)
  }
  const all = (name: Name, inFlight: number) => results.get(`${name} ${inFlight}`) ?? []
  const rate = (name: Name) => median(all(name, 64).map((pumped) => pumped.rate))
  const cpu = (name: Name) => median(all(name, 64).map((pumped) => pumped.cpu))
  const latency = (name: Name) => median(all(name, 1).map(({ p50 }) => p50))
  table(
    [
      'hits in Redis',
      '64 in flight, k/s',
      'of GET',
      'p99 ms',
      'CPU µs',
      '1 in flight, p50 µs',
      'of GET',
      'lost',
      'wrong',
    ],
    names.map((name) => {
      const both = [...all(name, 64), ...all(name, 1)]
      return [
        name,
        rate(name).toFixed(1),
        (rate(name) / rate('ioredis GET')).toFixed(2),
        median(all(name, 64).map(({ p99 }) => p99)).toFixed(2),
        cpu(name).toFixed(1),
        (latency(name) * 1000).toFixed(0),
        (latency(name) / latency('ioredis GET')).toFixed(2),
        sum(both.map(({ lost }) => lost)),
        sum(both.map(({ wrong }) => wrong)),
      ]
    }),
  )
  const share = rate('soloflight') / rate('ioredis GET')
  figure({
    what: 'hit in Redis, 64 in flight, of ioredis GET and decoding',
    wanted: 'at least 0.9, goal above 1.0',
    measured: share.toFixed(3),
    reached: share >= 0.9,
    kind: 'time',
  })
  const longer = latency('soloflight') / latency('ioredis GET')
  figure({
    what: 'hit in Redis, 1 in flight, latency, of ioredis GET and decoding',
    wanted: 'at most 1.3',
    measured: longer.toFixed(3),
    reached: longer <= 1.3,
    kind: 'time',
  })
}
