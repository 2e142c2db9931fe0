import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { find } from './queue/gate.ts'
import { QUEUE_MUTATIONS } from './queue/mutations.ts'
import { type QueueRunResult, simulateQueue } from './queue/run.ts'

/** First seed. `SEED=… node --import tsx --test test/simulation/queue.test.ts` repeats one seed alone. */
const SEED = process.env['SEED']

/** Number of seeds: fixed, so that a slow machine checks as many. */
const SEEDS = 40

/** Number of seeds within which a planted bug must be found. */
const SEEDS_PER_MUTATION = 300

function show({ seed, violations }: QueueRunResult): string {
  const found = violations.slice(0, 10).map(({ guarantee, what }) => `  ${guarantee} ${what}`)
  const replay = `SEED=${seed} node --import tsx --test test/simulation/queue.test.ts`
  return [`seed ${seed} breaks:`, ...found, `again: ${replay}`].join('\n')
}

describe('queue simulation', () => {
  test('Q1 Q2 Q3 S1 S5 S6 L1 L3 L5 queue simulation - no seed breaks a guarantee', async (t) => {
    if (SEED !== undefined) {
      const result = await simulateQueue(Number(SEED), { traced: true })
      if (result.violations.length > 0) for (const line of result.trace) t.diagnostic(line)
      assert.equal(result.violations.length, 0, show(result))
      return
    }
    const from = Math.floor(Math.random() * 2 ** 31)
    const broken: QueueRunResult[] = []
    let seed = from
    for (; seed < from + SEEDS && broken.length < 5; seed++) {
      const result = await simulateQueue(seed)
      if (result.violations.length > 0) broken.push(result)
    }
    t.diagnostic(`${seed - from} seeds from ${from}`)
    assert.equal(broken.length, 0, broken.map(show).join('\n'))
  })

  test('queue simulation - a seed repeats the whole run', async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const one = await simulateQueue(seed, { traced: true })
      const other = await simulateQueue(seed, { traced: true })
      assert.ok(one.trace.length > 20, `only ${one.trace.length} lines`)
      assert.deepEqual(other.trace, one.trace)
    }
  })

  test('queue simulation - runs have something to check', async () => {
    const total = { calls: 0, begun: 0, outcomes: 0, values: 0, replaced: 0 }
    for (let seed = 0; seed < 30; seed++) {
      const { counts } = await simulateQueue(seed)
      for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += counts[name]
    }
    assert.ok(total.calls > 1000, JSON.stringify(total))
    assert.ok(total.begun > 600, JSON.stringify(total))
    assert.ok(total.outcomes > 600, JSON.stringify(total))
    assert.ok(total.values > 400, JSON.stringify(total))
    assert.ok(total.replaced > 30, JSON.stringify(total))
  })
})

describe('queue mutation gate', () => {
  for (const mutation of QUEUE_MUTATIONS) {
    test(`queue mutation gate - the checker finds ${mutation.name}`, async (t) => {
      const found = await find(mutation, mutation.shownBy ?? 1, SEEDS_PER_MUTATION)
      assert.ok(found, `not found within ${SEEDS_PER_MUTATION} seeds`)
      const [first] = found.violations
      t.diagnostic(`seed ${found.seed}: ${first?.guarantee} ${first?.what}`)
    })
  }
})
