import type { QueueMutation } from './mutation.ts'
import { type QueueRunResult, simulateQueue } from './run.ts'

/** The first of `seeds` seeds from `from` on with which the checker finds a planted bug; undefined when none does. */
export async function find(
  mutation: QueueMutation,
  from: number,
  seeds: number,
): Promise<QueueRunResult | undefined> {
  for (let seed = from; seed < from + seeds; seed++) {
    const result = await simulateQueue(seed, { mutation })
    // What breaks without it, too, does not tell that it was found.
    if (result.violations.length > 0 && (await isSound(seed, mutation))) return result
  }
  return undefined
}

/** Whether nothing breaks under the same plan without the bug. */
async function isSound(seed: number, { name, plan }: QueueMutation): Promise<boolean> {
  const { violations } = await simulateQueue(seed, { mutation: plan ? { name, plan } : { name } })
  return violations.length === 0
}
