import type { RedisQueue } from '../../queue/index.ts'
import { inSeconds } from '../duration.ts'

/** Seconds since the job that runs next was submitted; undefined if none waits. */
export async function ageOfFirst(queue: RedisQueue): Promise<number | undefined> {
  const { jobs } = await queue.jobs('waiting', { limit: 1 })
  const first = jobs[0] && (await queue.job(jobs[0].id))
  // The number of a run is the time at which it was submitted, in µs.
  return first && inSeconds(Math.max(0, Date.now() - first.generation / 1000))
}
