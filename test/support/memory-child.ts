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

  /** Small results that an in-process cache of 4 MiB received from Redis beside large ones, by a codec that returns views. */
  async cache(count: number, path: string) {
    const place = { redis: path, codec: asTheyAre }
    const writer = new Locker({ ...place, cache: false })
    const reader = new Locker({ ...place, cache: { maxSize: 4 * MIB } })
    const read = (key: string) => reader.run(key, () => Buffer.alloc(0))
    for (let i = 0; i < count; i++) {
      const [small, large] = [`small${i}`, `large${i}`]
      await writer.run(small, () => Buffer.alloc(512, i))
      await writer.run(large, () => Buffer.alloc(100_000, i))
      await Promise.all([read(small), read(large)])
      // The small ones are asked for again and again, and stay.
      for (let before = 0; before < i; before++) await read(`small${before}`)
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
