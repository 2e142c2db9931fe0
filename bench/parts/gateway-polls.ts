import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/wait.ts'
import { openSite } from '../gateway/crew.ts'
import { atMost, heading, table } from '../report.ts'
import { endChildren, OWN_COMMANDS, type Stage } from '../stage.ts'
import { sum } from '../statistics.ts'

const POLLS = 100
const QUEUES = 10

/** Clients that wait for a job, and there is none. */
export async function gatewayPolls(stage: Stage): Promise<void> {
  const seconds = stage.quick ? 5 : 10
  heading(`gateway-polls: ${POLLS} long polls of ${QUEUES} queues, with no job for ${seconds} s`)
  const { server: redis } = stage
  const { server, client } = await openSite('gateway', stage, POLLS)
  try {
    const paths = Array.from({ length: POLLS }, (_, n) => `/q/polled-${n % QUEUES}?wait=60`)
    await client.call('poll', paths)
    await until(async () => (await server.call('requests')) === POLLS, { what: 'the polls to arrive' })
    // Until the takers have been announced.
    await sleep(1_000)
    await redis.resetStats()
    await sleep(seconds * 1_000)
    const stats = Object.entries(await redis.commandStats()).filter(
      ([name]) => !OWN_COMMANDS.includes(name.split('|')[0] ?? ''),
    )
    table(['command', 'calls'], stats)
    const most = 5 * seconds
    const calls = sum(stats.map(([, count]) => count))
    atMost(
      `Redis commands of ${POLLS} idle long polls in ${seconds} s, inside scripts and PINGs too`,
      calls,
      most,
      {
        kind: 'count',
      },
    )
  } finally {
    await endChildren([server, client])
    await redis.call('FLUSHALL')
  }
}
