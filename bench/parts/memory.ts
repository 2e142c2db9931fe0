import { until } from '../../test/support/wait.ts'
import { atMost, exactly, heading, table } from '../report.ts'
import { forkChild, open, type Stage } from '../stage.ts'

const KEYS = 100_000
const MIB = 1024 * 1024

/** More than the in-process cache keeps, so that it is full before and after. */
const CACHED = 10_000

/** After this long past the ttl Redis has to have forgotten: it looks for what has expired ten times a second. */
const EXPIRY_WITHIN = 20_000

/** Many keys that are used once: what is left of them, in Redis and in the process. */
export async function memory(stage: Stage): Promise<void> {
  // A settled outcome is remembered for 1.25 leases and a second, so that those who waited can still read it: 13.5 s at
  // the default lease. A ttl that is shorter than that would not be seen at work.
  const lease = stage.quick ? 1_000 : 10_000
  const ttl = stage.quick ? 3_000 : 15_000
  const [warm, count] = stage.quick ? [12_000, KEYS / 5] : [20_000, KEYS]
  heading(
    `memory: ${count} keys used once after a warm batch of ${warm}, ttl ${ttl / 1000} s, lease ${lease / 1000} s`,
  )
  const { server } = stage
  const rows: (string | number)[][] = []
  for (const layers of stage.quick ? (['both'] as const) : (['both', 'redis'] as const)) {
    await server.call('FLUSHALL')
    await using child = await forkChild()
    await open(child, 'soloflight', stage, [layers], { prefix: 'memory', ttl, lease, max: CACHED })
    await child.call('fill', 'soloflight', 'warm', warm)
    const before = await child.call('heap')
    await child.call('fill', 'soloflight', 'once', count)
    const usedUntil = performance.now()
    const kept = Number(await server.call('DBSIZE'))
    await until(async () => Number(await server.call('DBSIZE')) === 0, {
      what: 'Redis to forget the keys',
      timeout: ttl + EXPIRY_WITHIN,
      every: 50,
    }).catch(() => {})
    const gone = (performance.now() - usedUntil) / 1000
    const left = Number(await server.call('DBSIZE'))
    const after = await child.call('heap')
    const growth = after.used / before.used - 1
    const cache = layers === 'both' ? 'cache on' : 'cache off'
    rows.push([
      cache,
      kept,
      left,
      gone.toFixed(1),
      (before.used / MIB).toFixed(1),
      (after.used / MIB).toFixed(1),
      `${(growth * 100).toFixed(1)} %`,
      ((after.external - before.external) / MIB).toFixed(1),
    ])
    exactly(`keys left in Redis after the ttl, ${cache}`, [left], [0])
    const percent = { unit: ' %', kind: 'count', digits: 1 } as const
    atMost(`growth of the heap by ${count} keys, after a collection, ${cache}`, growth * 100, 5, percent)
  }
  table(
    ['', 'keys at the end', 'left', 'after s', 'heap before, MiB', 'after, MiB', 'growth', 'external, MiB'],
    rows,
  )
}
