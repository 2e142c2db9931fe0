// A process of the bench: opens contenders and asks them.

import { isDeepStrictEqual } from 'node:util'
import { serve } from '../test/support/process-child.ts'
import { type Burst, burst, busyTurns, stepsPerMs, Work, type WorkKind } from './burst.ts'
import { type Contender, ENTRANTS, type Name, type Terms, valueFor, valueIn } from './contenders/contender.ts'
import { heap } from './heap.ts'
import { library } from './library.ts'
import { type Pumped, pump, spin } from './pump.ts'
import { now } from './statistics.ts'

const contenders = new Map<Name, Contender>()
const work = new Work()

function contender(name: Name): Contender {
  const open = contenders.get(name)
  if (!open) throw new Error(`${name} is not open`)
  return open
}

function keysOf(name: string, count: number): string[] {
  return Array.from({ length: count }, (_, n) => `${name}:${n}`)
}

/** Has all keys computed, or asks for them again, in groups, and makes sure of every value. */
async function ask(get: Contender['get'], keys: readonly string[], group = 500): Promise<void> {
  for (let from = 0; from < keys.length; from += group) {
    const some = keys.slice(from, from + group)
    const answers = await Promise.all(some.map((key) => get(key)))
    for (const [index, key] of some.entries()) {
      const answer = answers[index]
      if (!answer || !isDeepStrictEqual(valueIn(answer), valueFor(key)))
        throw new Error(`Got another value for ${key}: ${JSON.stringify(answer)}`)
    }
  }
}

const handlers = {
  open: async (name: Name, terms: Omit<Terms, 'work'>): Promise<void> => {
    const open = await ENTRANTS[name].load()
    const compute = async (key: string) => {
      await work.do()
      return valueFor(key)
    }
    contenders.set(name, await open({ ...terms, work: compute }))
  },
  fill: (name: Name, keys: string, count: number): Promise<void> => {
    const { get, fill = get } = contender(name)
    return ask(fill, keysOf(keys, count))
  },
  /** Asks for keys all of which are kept. */
  ask: async (name: Name, keys: string, count: number): Promise<void> => {
    const before = work.runs
    await ask(contender(name).get, keysOf(keys, count))
    if (work.runs !== before) throw new Error(`${name} computed what it was to keep`)
  },
  spin: (name: Name, keys: string, count: number, ms: number): Promise<Pumped> =>
    spin(contender(name), keysOf(keys, count), ms),
  pump: (name: Name, keys: string, count: number, inFlight: number, ms: number): Promise<Pumped> =>
    pump(contender(name), keysOf(keys, count), inFlight, ms),
  burst: (name: Name, keys: string[], callers: number, at: number, kind: WorkKind): Promise<Burst> => {
    work.kind = kind
    return burst(contender(name), keys, callers, at, work)
  },
  /** One caller of each cold key, in one tick, while turns of the event loop take so long (0: as they do), ms. */
  starts: async (name: Name, keys: string, count: number, waits: number, turn: number): Promise<Burst> => {
    const idle = turn > 0 ? busyTurns(turn) : () => {}
    work.kind = { waits }
    try {
      return await burst(contender(name), keysOf(keys, count), 1, now(), work)
    } finally {
      idle()
    }
  },
  stepsPerMs: (): number => stepsPerMs(),
  heap: (): { used: number; external: number } => heap(),
  /** How often the work ran since the process began. */
  runs: (): number => work.runs,
  /** Opens lockers that share a connection, and uses each. */
  lockers: async (count: number, redis: { host: string; port: number }): Promise<void> => {
    const { Connection, Locker } = await library()
    const connection = new Connection(redis)
    for (let n = 0; n < count; n++) {
      const locker = new Locker({ redis: connection, prefix: `lockers.${n % 3}` })
      await locker.run(`locker:${n}`, () => n)
    }
  },
}

export type BenchHandlers = typeof handlers

serve(handlers)
