import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { find } from './locker/gate.ts'
import { MUTATIONS } from './locker/mutations.ts'
import { type RunResult, simulate } from './locker/run.ts'

/** The first seed. `SEED=… node --import tsx --test test/simulation/locker.test.ts` runs one seed again. */
const SEED = process.env['SEED']

/** Seeds of one run. A count instead of a time, so that a slow machine checks as much. */
const SEEDS = 70

/** Seeds within which a planted bug must be found. */
const SEEDS_PER_MUTATION = 600

function show({ seed, violations }: RunResult): string {
  const found = violations.map(({ guarantee, what }) => `  ${guarantee} ${what}`)
  const replay = `SEED=${seed} node --import tsx --test test/simulation/locker.test.ts`
  return [`seed ${seed} breaks:`, ...found, `again: ${replay}`].join('\n')
}

describe('simulation', () => {
  test('S1 S2 S3 S4 S5 S6 L1 L2 L4 L5 simulation - no seed breaks a guarantee', async (t) => {
    if (SEED !== undefined) {
      const result = await simulate(Number(SEED), { traced: true })
      if (result.violations.length > 0) for (const line of result.trace) t.diagnostic(line)
      assert.equal(result.violations.length, 0, show(result))
      return
    }
    const from = Math.floor(Math.random() * 2 ** 31)
    const broken: RunResult[] = []
    let seed = from
    for (; seed < from + SEEDS && broken.length < 5; seed++) {
      const result = await simulate(seed)
      if (result.violations.length > 0) broken.push(result)
    }
    t.diagnostic(`${seed - from} seeds from ${from}`)
    assert.equal(broken.length, 0, broken.map(show).join('\n'))
  })

  test('simulation - a seed repeats the whole run', async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const [one, other] = [await simulate(seed, { traced: true }), await simulate(seed, { traced: true })]
      assert.ok(one.trace.length > 20)
      assert.deepEqual(other.trace, one.trace)
    }
  })

  test('simulation - runs have something to check, and keep every guarantee', async () => {
    const frequent = { calls: 0, works: 0, grants: 0, acceptances: 0, invalidations: 0 }
    const total = { ...frequent, tags: 0, stale: 0, unkept: 0, passes: 0, unwanted: 0 }
    for (let seed = 0; seed < 200; seed++) {
      const result = await simulate(seed)
      assert.equal(result.violations.length, 0, show(result))
      for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += result.counts[name]
    }
    assert.ok(total.calls > 1000, JSON.stringify(total))
    assert.ok(total.works > 300, JSON.stringify(total))
    assert.ok(total.grants > total.works * 0.9, JSON.stringify(total))
    assert.ok(total.acceptances > 200, JSON.stringify(total))
    assert.ok(total.invalidations > 200, JSON.stringify(total))
    assert.ok(total.tags > 80, JSON.stringify(total))
    assert.ok(total.stale > 20, JSON.stringify(total))
    assert.ok(total.unkept > 30, JSON.stringify(total))
    assert.ok(total.passes > 20, JSON.stringify(total))
    assert.ok(total.unwanted > 5, JSON.stringify(total))
  })
})

describe('mutation gate', () => {
  for (const mutation of MUTATIONS) {
    test(`mutation gate - the checker finds ${mutation.name}`, async (t) => {
      const found = await find(mutation, mutation.shownBy ?? 1, SEEDS_PER_MUTATION)
      assert.ok(found, `not found within ${SEEDS_PER_MUTATION} seeds`)
      const [first] = found.violations
      t.diagnostic(`seed ${found.seed}: ${first?.guarantee} ${first?.what}`)
    })
  }
})
