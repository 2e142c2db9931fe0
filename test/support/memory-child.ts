// Fills stores and caches, and says what the process then holds. Started with --expose-gc.

import { type Codec, Locker, RedisQueue } from '../../src/index.ts'

const MIB = 2 ** 20

/** Bytes as they are. What it reads are views of what was received. */
const asTheyAre: Codec = { encode: (value) => value as Buffer, decode: (bytes) => bytes }

/** Bytes that are held when everything that can be collected is. */
async function held(): Promise<number> {
  for (let time = 0; time < 3; time++) {
    globalThis.gc?.()
    await new Promise(setImmediate)
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

const scenarios = {
  /** Results of 1 MiB in an embedded locker. */
  async locker(count: number) {
    const locker = new Locker()
    for (let i = 0; i < count; i++) await locker.run(`key${i}`, () => Buffer.alloc(MIB, i))
    return locker
  },

  /** Results of 1 MiB of jobs of an embedded queue. */
  async queue(count: number) {
    const queue = new RedisQueue('queue')
    queue.process('work', (i: number) => Buffer.alloc(MIB, i))
    for (let i = 0; i < count; i++) await queue.submit('work', i)
    return queue
  },

  /** Complete streams of 1 MiB in an embedded locker. */
  async streams(count: number) {
    const locker = new Locker()
    const work = async function* () {
      for (let i = 0; i < 16; i++) yield Buffer.alloc(MIB / 16, i)
    }
    for (let i = 0; i < count; i++) for await (const _ of locker.stream(`key${i}`, work)) void _
    return locker
  },

  /** Small results in an embedded locker, among much that is not kept. */
  async small(count: number) {
    const locker = new Locker({ cache: false })
    const noise = () => Array.from({ length: 8 }, (_, i) => Buffer.from(`${i}`.padEnd(1000)))
    for (let i = 0; i < count; i++) await locker.run(`key${i}`, () => ({ length: noise().length }))
    return locker
  },

  /** Results that an in-process cache of 4 MiB received from Redis, 16 at a time, by a codec that returns views. */
  async cache(count: number, path: string) {
    const place = { redis: path, codec: asTheyAre }
    const writer = new Locker({ ...place, cache: false })
    const reader = new Locker({ ...place, cache: { maxSize: 4 * MIB } })
    const keys = Array.from({ length: count }, (_, i) => `key${i}`)
    const size = (i: number) => (i % 16 === 0 ? 8 * 1024 : 160 * 1024)
    for (const [i, key] of keys.entries()) await writer.run(key, () => Buffer.alloc(size(i), i))
    for (let from = 0; from < count; from += 16) {
      await Promise.all(keys.slice(from, from + 16).map((key) => reader.run(key, () => Buffer.alloc(0))))
      // The small ones are asked for again and again, and stay.
      for (let i = 0; i <= from; i += 16) await reader.run(`key${i}`, () => Buffer.alloc(0))
    }
    await writer.close()
    return reader
  },
}

const [, , name = '', count = '', path = ''] = process.argv
const before = await held()
const filled = await scenarios[name as keyof typeof scenarios](Number(count), path)
const after = await held()
const counted = filled instanceof Locker ? filled.stats().cachedBytes : 0
process.stdout.write(JSON.stringify({ held: after - before, counted }))
await filled.close({ grace: 0 })
