import { Redis } from 'ioredis'
import { LOCALHOST } from '../../test/support/ports.ts'
import { portOf } from '../../test/support/redis-server.ts'
import { library } from '../library.ts'
import { figure, heading, table } from '../report.ts'
import { commandsRun, rotated, type Stage } from '../stage.ts'
import { median, now } from '../statistics.ts'

const KEYS = 100
const NAMES = ['runMany', 'concurrent GETs', 'one MGET', 'concurrent runs'] as const
type Name = (typeof NAMES)[number]

/** A hundred results that are in Redis, read at once by each way, in one process; nothing is kept in it. */
export async function many({ server, quick }: Stage): Promise<void> {
  const rounds = quick ? 4 : 20
  const times = quick ? 50 : 300
  heading(`many: ${KEYS} hits in Redis at once, in-process cache off, ${rounds} rounds of ${times}`)
  const address = { host: LOCALHOST, port: portOf(server) }
  const redis = new Redis(address)
  const { Locker } = await library()
  await using locker = new Locker({ redis: address, cache: false, prefix: 'many', ttl: 600_000 })
  const keys = Array.from({ length: KEYS }, (_, index) => `many:${index}`)
  const value = { id: 1, name: 'x'.repeat(80) }
  await locker.runMany(keys, (some) => some.map(() => value))
  for (const key of keys) await redis.set(key, JSON.stringify(value))
  const unexpected = () => Promise.reject(new Error('Nothing was to be computed'))
  const parsed = (texts: (string | null)[]): unknown[] => texts.map((text) => JSON.parse(text ?? ''))
  const ways: Record<Name, () => Promise<unknown[]>> = {
    runMany: () => locker.runMany(keys, unexpected),
    'concurrent GETs': async () => parsed(await Promise.all(keys.map((key) => redis.get(key)))),
    'one MGET': async () => parsed(await redis.mget(keys)),
    'concurrent runs': () => Promise.all(keys.map((key) => locker.run(key, unexpected))),
  }
  const took = new Map<Name, number[]>(NAMES.map((name) => [name, []]))
  const commands = new Map<Name, number>()
  try {
    for (const name of NAMES) for (let time = 0; time < (quick ? 300 : 2_000); time++) await ways[name]()
    for (let round = 0; round < rounds; round++) {
      for (const name of rotated(NAMES, round)) {
        await server.call('CONFIG', 'RESETSTAT')
        const since = now()
        for (let time = 0; time < times; time++) await ways[name]()
        took.get(name)?.push(((now() - since) / times) * 1000)
        commands.set(name, (await commandsRun(server)) / times)
      }
    }
  } finally {
    redis.disconnect()
  }
  report((name) => median(took.get(name) ?? []), commands)
}

function report(micros: (name: Name) => number, commands: ReadonlyMap<Name, number>): void {
  const gets = micros('concurrent GETs')
  const mget = micros('one MGET')
  table(
    [`${KEYS} hits`, 'µs', 'speed of GETs', 'time of MGET', 'Redis commands'],
    NAMES.map((name) => [
      name,
      micros(name).toFixed(0),
      (gets / micros(name)).toFixed(2),
      (micros(name) / mget).toFixed(2),
      (commands.get(name) ?? 0).toFixed(0),
    ]),
  )
  const faster = gets / micros('runMany')
  const longer = micros('runMany') / mget
  figure({
    what: 'runMany: speed of concurrent GETs',
    wanted: 'at least 1.3',
    measured: faster.toFixed(2),
    reached: faster >= 1.3,
    kind: 'time',
  })
  figure({
    what: 'runMany: time of one MGET',
    wanted: 'at most 2.5',
    measured: longer.toFixed(2),
    reached: longer <= 2.5,
    kind: 'time',
  })
}
