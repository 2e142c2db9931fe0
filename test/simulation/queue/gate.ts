import type { QueueMutation } from './mutation.ts'
import { type QueueRunResult, simulateQueue } from './run.ts'

/** The first seed, of `seeds` seeds from `from` on, with which the checks find a planted bug; undefined if there is none. */
export async function find(
  mutation: QueueMutation,
  from: number,
  seeds: number,
): Promise<QueueRunResult | undefined> {
  for (let seed = from; seed < from + seeds; seed++) {
    const result = await simulateQueue(seed, { mutation })
    // A violation that occurs without the bug as well does not show the bug.
    if (result.violations.length > 0 && (await isSound(seed, mutation))) return result
  }
  return undefined
}

/** Whether the same plan without the bug has no violation. */
async function isSound(seed: number, { name, plan }: QueueMutation): Promise<boolean> {
  const { violations } = await simulateQueue(seed, { mutation: plan ? { name, plan } : { name } })
  return violations.length === 0
}
