import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { RunResult, Simulate } from './run.ts'

/** One seed is run again by `SEED=… node --import tsx --test` and the file of the test. */
const SEED = process.env['SEED']

/** What the planted bugs of all simulations have in common. */
interface CommonMutation {
  name: string
  /** A seed that shows it: the search begins there. @default 1 */
  shownBy?: number
}

interface Suite<Counts extends Record<string, number>, Mutation extends CommonMutation> {
  /** Begins the titles. */
  name: string
  /** The title of the test of the guarantees, with their ids. */
  title: string
  /** The file of the test. */
  file: string
  simulate: Simulate<Counts, Mutation>
  /** Seeds of one run. A count instead of a time, so that a slow machine checks as much. */
  seeds: number
  /** Seeds whose counts are added up, and what the sums must exceed. */
  countedSeeds: number
  least(total: Counts): Counts
  mutations: readonly Mutation[]
  /** The mutation without its bug: its plan alone. */
  harmless(mutation: Mutation): Mutation
  /** Seeds within which a planted bug must be found. */
  seedsPerMutation: number
}

/** The tests of a simulation: no seed breaks a guarantee, runs repeat and check something, planted bugs are found. */
export function testSimulation<Counts extends Record<string, number>, Mutation extends CommonMutation>({
  name,
  title,
  file,
  simulate,
  seeds,
  countedSeeds,
  least,
  mutations,
  harmless,
  seedsPerMutation,
}: Suite<Counts, Mutation>): void {
  const show = ({ seed, violations }: RunResult<Counts>): string => {
    const found = violations.slice(0, 10).map(({ guarantee, what }) => `  ${guarantee} ${what}`)
    return [`seed ${seed} breaks:`, ...found, `again: SEED=${seed} node --import tsx --test ${file}`].join(
      '\n',
    )
  }

  /** The first seed from `from` on with which the checker finds a planted bug. */
  const find = async (mutation: Mutation, from: number): Promise<RunResult<Counts> | undefined> => {
    const isSound = async (seed: number) =>
      (await simulate(seed, { mutation: harmless(mutation) })).violations.length === 0
    for (let seed = from; seed < from + seedsPerMutation; seed++) {
      const result = await simulate(seed, { mutation })
      // A violation that also occurs without the bug does not count.
      if (result.violations.length > 0 && (await isSound(seed))) return result
    }
    return undefined
  }

  describe(name, () => {
    test(title, async (t) => {
      if (SEED !== undefined) {
        const result = await simulate(Number(SEED), { traced: true })
        if (result.violations.length > 0) for (const line of result.trace) t.diagnostic(line)
        assert.equal(result.violations.length, 0, show(result))
        return
      }
      const from = Math.floor(Math.random() * 2 ** 31)
      const broken: RunResult<Counts>[] = []
      let seed = from
      for (; seed < from + seeds && broken.length < 5; seed++) {
        const result = await simulate(seed)
        if (result.violations.length > 0) broken.push(result)
      }
      t.diagnostic(`${seed - from} seeds from ${from}`)
      assert.equal(broken.length, 0, broken.map(show).join('\n'))
    })

    test(`${name} - a seed repeats the whole run`, async () => {
      for (const seed of [1, 2, 3, 4, 5]) {
        const [one, other] = [await simulate(seed, { traced: true }), await simulate(seed, { traced: true })]
        assert.ok(one.trace.length > 20, `only ${one.trace.length} lines`)
        assert.deepEqual(other.trace, one.trace)
      }
    })

    test(`${name} - runs have something to check, and keep every guarantee`, async () => {
      const results: RunResult<Counts>[] = []
      for (let seed = 0; seed < countedSeeds; seed++) {
        const result = await simulate(seed)
        assert.equal(result.violations.length, 0, show(result))
        results.push(result)
      }
      const sum = (what: string) => results.reduce((sum, { counts }) => sum + (counts[what] ?? 0), 0)
      const names = Object.keys(results[0]?.counts ?? {})
      const total = Object.fromEntries(names.map((what) => [what, sum(what)])) as Counts
      for (const [what, bound] of Object.entries(least(total)))
        assert.ok((total[what] ?? 0) > bound, `${what}: ${JSON.stringify(total)}`)
    })
  })

  describe(`${name} - mutation gate`, () => {
    for (const mutation of mutations) {
      test(`${name} - the checker finds ${mutation.name}`, async (t) => {
        const found = await find(mutation, mutation.shownBy ?? 1)
        assert.ok(found, `not found within ${seedsPerMutation} seeds`)
        const [first] = found.violations
        t.diagnostic(`seed ${found.seed}: ${first?.guarantee} ${first?.what}`)
      })
    }
  })
}
