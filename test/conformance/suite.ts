import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { FORMAT, newId } from '../../src/kernel/keys.ts'
import { Script } from '../../src/kernel/redis/call.ts'
import { Connection } from '../../src/kernel/redis/connection.ts'
import type { Clock } from '../../src/kernel/time.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

/** The time limit of every call, ms. */
export const WITHIN = 10_000

/** The specification and the scripts, side by side. */
export interface Worlds<Scripts, Op> {
  /** One process for each connection. */
  open(connections: readonly Connection[], scripts: Scripts): unknown
  /** Applies an operation to both, and compares. */
  apply(op: Op): Promise<void>
  /** Compares what is left in the end. */
  finish?(): Promise<void>
  close(): Promise<unknown>
}

interface Suite<Scripts, Op> {
  /** Titles: of all tests, and of the test of the sound scripts, with the ids of guarantees. */
  name: string
  title: string
  clock: Clock
  /** `leave`: the last process exits. */
  op: fc.Arbitrary<Op>
  createWorlds(client: Redis): Worlds<Scripts, Op>
  /** The scripts, with a clock that the test sets. */
  sound(): Scripts
  runs: number
  /** Sequences that random operations rarely contain. They come first. */
  rare: [Op[]][]
  /** Counterexamples of the past, shrunk, by title. Planted bugs are shown them too. */
  regressions?: Record<string, Op[]>
  /** Scripts with a planted bug, by its name, and the runs in which it must be found. */
  mutants: Record<string, () => Scripts>
  runsPerMutant: number
}

/** Tests that scripts and specification agree on random operations, and that planted bugs are found. */
export function testConformance<Scripts, Op extends { type: string }>({
  name,
  title,
  clock,
  op,
  createWorlds,
  sound,
  runs,
  rare,
  regressions = {},
  mutants,
  runsPerMutant,
}: Suite<Scripts, Op>): void {
  const open = async () => {
    // Hashes keep the order of their fields on this server, so the order of messages is known.
    const args = ['--hash-max-listpack-value', '4096', '--hash-max-listpack-entries', '1024']
    const t = await setup({ args })
    const client = await t.client()
    const connect = async () => {
      const connection = new Connection(t.redis, { clock })
      await connection.call(new Script('return 1').with([], []), WITHIN)
      await until(() => connection.subscribed, { what: 'a subscription', every: 1 })
      return connection
    }
    const connections = await Promise.all([connect(), connect(), connect()])
    return {
      property: (scripts: Scripts) =>
        fc.asyncProperty(fc.array(op, { minLength: 1, maxLength: 40, size: 'max' }), async (ops) => {
          const worlds = createWorlds(client)
          const leaver = ops.some(({ type }) => type === 'leave') ? [await connect()] : []
          try {
            await worlds.open([...connections, ...leaver], scripts)
            for (const op of ops) await worlds.apply(op)
            await worlds.finish?.()
          } finally {
            await worlds.close()
            for (const connection of leaver) await connection.close()
          }
        }),
      async [Symbol.asyncDispose]() {
        for (const connection of connections) await connection.close()
        await t[Symbol.asyncDispose]()
      },
    }
  }

  const seed = process.env['SOLOFLIGHT_SEED']

  test(title, async () => {
    await using t = await open()
    const given = seed === undefined ? {} : { seed: Number(seed) }
    const options = { numRuns: runs, examples: rare, includeErrorInReport: true, ...given }
    await fc.assert(t.property(sound()), options)
  })

  for (const [what, ops] of Object.entries(regressions)) {
    test(`S6 ${name} - ${what}`, async () => {
      await using t = await open()
      const options = { examples: [[ops]] as [Op[]][], numRuns: 1, endOnFailure: true }
      await fc.assert(t.property(sound()), { ...options, includeErrorInReport: true })
    })
  }

  describe(`${name} - finds planted bugs`, () => {
    const examples = [...rare, ...Object.values(regressions).map((ops): [Op[]] => [ops])]
    let t: Awaited<ReturnType<typeof open>>
    before(async () => {
      t = await open()
    })
    after(() => t[Symbol.asyncDispose]())

    for (const [bug, scripts] of Object.entries(mutants)) {
      test(`${name} - finds ${bug}`, async () => {
        const options = { numRuns: runsPerMutant, examples, endOnFailure: true }
        const { failed, numRuns } = await fc.check(t.property(scripts()), options)
        assert.ok(failed, `not found in ${numRuns} runs`)
      })
    }
  })
}

/** Resolves when all messages that were published so far have arrived at these processes. */
export async function messagesArrived(client: Redis, connections: readonly Connection[]): Promise<void> {
  const arrived = connections.map(
    ({ inbox, inboxChannel }) =>
      new Promise<void>((resolve) => {
        const marker = newId()
        inbox.listen(marker, {
          hint() {
            inbox.ignore(marker)
            resolve()
          },
        })
        void client.publish(inboxChannel, `${FORMAT}${marker}m`)
      }),
  )
  await Promise.all(arrived)
}

/** Resolves when the server has noticed that a process has gone. */
export async function noticedGone(client: Redis, { inboxChannel }: Connection): Promise<void> {
  const left = async () => (await client.pubsub('NUMSUB', inboxChannel))[1] === 0
  await until(left, { what: 'the server to see that it has gone', every: 1 })
}
