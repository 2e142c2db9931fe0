import { Redis } from 'ioredis'
import { LOCALHOST } from '../../test/support/ports.ts'
import { portOf } from '../../test/support/redis-server.ts'
import { valueFor } from '../contenders/contender.ts'
import { library } from '../library.ts'
import { atLeast, atMost, heading, table } from '../report.ts'
import { interleaved } from '../rounds.ts'
import { commandsRun, type Stage } from '../stage.ts'
import { now } from '../statistics.ts'

const KEYS = 100
const TTL = 600_000
const TIMEOUT = 30_000
const NAMES = ['runMany', 'concurrent GETs', 'one MGET', 'concurrent runs'] as const
type Name = (typeof NAMES)[number]

/** A hundred results that are in Redis, read at once by each way, in one process; nothing is kept in it. */
export async function many({ server, quick }: Stage): Promise<void> {
  const rounds = quick ? 4 : 20
  const times = quick ? 50 : 200
  heading(`many: ${KEYS} hits in Redis at once, 2 KB, in-process cache off, ${rounds} rounds of ${times}`)
  const address = { host: LOCALHOST, port: portOf(server) }
  const redis = new Redis(address)
  const { Locker } = await library()
  await using locker = new Locker({ redis: address, cache: false, prefix: 'many' })
  const keys = Array.from({ length: KEYS }, (_, index) => `many:${index}`)
  await locker.runMany(keys, (some) => some.map(valueFor), { ttl: TTL })
  for (const key of keys) await redis.set(key, JSON.stringify(valueFor(key)))
  const unexpected = () => Promise.reject(new Error('Nothing was to be computed'))
  const parsed = (texts: (string | null)[]): unknown[] => texts.map((text) => JSON.parse(text ?? ''))
  const ways: Record<Name, () => Promise<unknown[]>> = {
    runMany: () => locker.runMany(keys, unexpected, { ttl: TTL, timeout: TIMEOUT }),
    'concurrent GETs': async () => parsed(await Promise.all(keys.map((key) => redis.get(key)))),
    'one MGET': async () => parsed(await redis.mget(keys)),
    'concurrent runs': () =>
      Promise.all(keys.map((key) => locker.run(key, unexpected, { ttl: TTL, timeout: TIMEOUT }))),
  }
  const measure = async (name: Name) => {
    await server.resetStats()
    const since = now()
    for (let time = 0; time < times; time++) await ways[name]()
    return { micros: ((now() - since) / times) * 1000, commands: (await commandsRun(server)) / times }
  }
  try {
    for (const name of NAMES) for (let time = 0; time < (quick ? 300 : 1_000); time++) await ways[name]()
    const results = await interleaved(NAMES, rounds, measure)
    const time = (name: Name, peer: Name) => results.ratio(name, peer, ({ micros }) => micros)
    table(
      [`${KEYS} hits`, 'µs', 'speed of GETs', 'time of MGET', 'Redis commands'],
      NAMES.map((name) => [
        name,
        results.median(name, ({ micros }) => micros).toFixed(0),
        time('concurrent GETs', name).toFixed(2),
        time(name, 'one MGET').toFixed(2),
        results.median(name, ({ commands }) => commands).toFixed(0),
      ]),
    )
    atLeast(`runMany of ${KEYS} hits, speed of concurrent GETs`, time('concurrent GETs', 'runMany'), 1.3)
    atMost(`runMany of ${KEYS} hits, time of one MGET`, time('runMany', 'one MGET'), 2.5)
  } finally {
    redis.disconnect()
  }
}
