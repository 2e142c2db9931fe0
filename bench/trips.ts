import type { RedisServer } from '../test/support/redis-server.ts'
import { valueFor } from './contenders/contender.ts'
import { type Pumped, pump } from './pump.ts'
import { type Payload, payloadOf, sumOf } from './queues/payload.ts'
import { commandsRun, commandsSent, type Stage } from './stage.ts'
import { sum } from './statistics.ts'

/** What came of round trips: payloads that one process sends, and another answers. */
export interface Trips extends Pumped {
  /** Redis commands a round trip, inside scripts too. */
  commands: number
  /** Microseconds of CPU a round trip, of the process that answers; that of the other one is `cpu`. */
  workerCpu: number
  redisCpu: number
}

/** Two processes between which payloads go. */
export interface TripSource {
  /** Round trips for a while, so many at once. */
  pump: (inFlight: number, ms: number) => Promise<Pumped>
  /** Payloads answered, and microseconds of CPU used, by the process that answers. */
  usage: () => Promise<{ runs: number; cpu: number }>
}

export async function measureTrips(
  source: TripSource,
  inFlight: number,
  { server }: Stage,
  ms: number,
): Promise<Trips> {
  const before = await source.usage()
  const redisBefore = await redisCpu(server)
  await server.resetStats()
  const pumped = await source.pump(inFlight, ms)
  const commands = await commandsRun(server)
  const redisAfter = await redisCpu(server)
  const after = await source.usage()
  const runs = after.runs - before.runs
  return {
    ...pumped,
    commands: commands / runs,
    workerCpu: (after.cpu - before.cpu) / runs,
    redisCpu: (redisAfter - redisBefore) / runs,
  }
}

/** Commands that clients send a round trip. */
export async function commandsATrip(
  source: TripSource,
  inFlight: number,
  { server }: Stage,
): Promise<number> {
  const { runs: before } = await source.usage()
  const sent = await commandsSent(server, () => source.pump(inFlight, 150))
  const { runs: after } = await source.usage()
  return sent / (after - before)
}

/** Microseconds of CPU that the server used. */
export async function redisCpu(server: RedisServer): Promise<number> {
  const info = String(await server.call('INFO', 'cpu'))
  const used = info.matchAll(/^used_cpu_(?:sys|user):([\d.]+)/gm)
  return sum(Array.from(used, ([, seconds]) => Number(seconds) * 1e6))
}

/** What the pump asks for; which round trip that is, is counted by {@link PayloadTrips}. */
const KEY = 'trip:0'

/** Payloads of 1 KB that one process sends. None comes twice. */
export class PayloadTrips {
  #sent = 0

  next(): Payload {
    return payloadOf(this.#sent++)
  }

  /** Round trips for a while, so many at once. `send` resolves with the answer, which is checked. */
  pump(send: (payload: Payload) => Promise<unknown>, inFlight: number, ms: number): Promise<Pumped> {
    const right = valueFor(KEY)
    const get = () => {
      const payload = this.next()
      // The value of the key where the answer is the right one.
      return send(payload).then((result) => (result === sumOf(payload) ? right : null))
    }
    return pump({ get, close: async () => {} }, [KEY], inFlight, ms)
  }
}
