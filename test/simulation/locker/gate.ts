import type { Mutation } from './mutation.ts'
import { type RunResult, simulate } from './run.ts'

/** The first of `seeds` seeds, from `from` on, with which the checker finds a planted bug. Undefined if none does. */
export async function find(mutation: Mutation, from: number, seeds: number): Promise<RunResult | undefined> {
  const harmless: Mutation = { name: mutation.name, ...(mutation.plan && { plan: mutation.plan }) }
  for (let seed = from; seed < from + seeds; seed++) {
    const result = await simulate(seed, { mutation })
    // A violation that also occurs without the bug does not count.
    if (
      result.violations.length > 0 &&
      (await simulate(seed, { mutation: harmless })).violations.length === 0
    )
      return result
  }
  return undefined
}
