import BeeQueue, { type Job } from 'bee-queue'
import { dedupeIdOf, type Payload } from './payload.ts'
import { type BenchQueue, CONCURRENCY, type OpenQueues } from './queue.ts'

/** Its default for how long a worker is silent until its jobs are run again, ms. */
const STALL_INTERVAL = 5_000

/**
 * As in its own benchmark: jobs are removed once they succeeded. A process that only submits has no blocking connection,
 * one that only works keeps no jobs and hears no events, as its README advises.
 */
export const open: OpenQueues = async (redis, terms, run) =>
  Promise.all(
    terms.map(async ({ queue: name, submits, works, deduplicated, lease }) => {
      const queue = new BeeQueue(name, {
        redis,
        isWorker: works,
        getEvents: submits,
        storeJobs: submits,
        removeOnSuccess: true,
        stallInterval: lease ?? STALL_INTERVAL,
      })
      queue.on('error', () => {})
      await queue.ready()
      if (works) {
        queue.process(CONCURRENCY, async ({ data }) => run(data))
        // Without this nobody would run the jobs of a worker that died.
        queue.checkStalledJobs(lease ?? STALL_INTERVAL)
      }
      return benchQueue(queue, deduplicated)
    }),
  )

/**
 * A result that comes before the reply to `save`, which is on another connection, finds nobody: the job is known by its
 * id only then. Whoever must not lose it has to keep it until then, as is done here.
 */
function benchQueue(queue: BeeQueue, deduplicated: boolean): BenchQueue {
  const early = new Map<string, unknown>()
  queue.on('job succeeded', (id, result) => {
    if (!queue.jobs.has(id)) early.set(id, result)
  })
  const jobFor = (payload: Payload): Job => {
    const job = queue.createJob(payload)
    // It has no deduplication but this: a job whose id is there already is not saved.
    return deduplicated ? job.setId(dedupeIdOf(payload)) : job
  }
  const submit = async (payload: Payload): Promise<unknown> => {
    const job = jobFor(payload)
    const result = new Promise((resolve, reject) => {
      job.on('succeeded', resolve)
      job.on('failed', reject)
    })
    await job.save()
    if (early.size === 0 || !early.has(job.id)) return result
    const kept = early.get(job.id)
    early.delete(job.id)
    return kept
  }
  return {
    submit,
    enqueue: (payloads) => queue.saveAll(payloads.map(jobFor)),
    waiting: async () => (await queue.checkHealth()).waiting,
  }
}
