import { setTimeout as sleep } from 'node:timers/promises'
import { type QueueOptions, RedisQueue } from '../../src/index.ts'

type Pages = { render: (page: { run: string; path: string }) => string }

/** How often each process submits the same job. */
const TIMES = 5

/** A queue as each process has it: it submits jobs and does them. */
export function openPages(place: QueueOptions, who: string): RedisQueue<Pages> {
  return new RedisQueue<Pages>('pages', place).process('render', async ({ path }) => {
    console.log(`${who} renders ${path}`)
    await sleep(300)
    return `${path} rendered by ${who}`
  })
}

/** Submits the same job several times at once, and shows what came back. */
export async function submitTogether(queue: RedisQueue<Pages>, who: string, run: string): Promise<void> {
  const submitted = Array.from({ length: TIMES }, () => queue.submit('render', { run, path: '/prices' }))
  const results = new Set(await Promise.all(submitted))
  console.log(`${who} received ${TIMES} × ${[...results].join(' and ')}`)
}

/** Asks once more, when all is over. */
export async function submitLate(queue: RedisQueue<Pages>, run: string): Promise<void> {
  const job = await queue.enqueue('render', { run, path: '/prices' })
  console.log(`asked once more: ${job.disposition}, ${await job.result()}`)
}
