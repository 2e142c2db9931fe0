import { setTimeout as sleep } from 'node:timers/promises'
import type { RedisServer } from '../../test/support/redis-server.ts'
import { until } from '../../test/support/wait.ts'
import { crewMember } from '../queues/crew.ts'
import type { QueueName } from '../queues/entrant.ts'
import { figure, heading, table } from '../report.ts'
import type { Stage } from '../stage.ts'

const NAMES: readonly QueueName[] = ['soloflight', 'BullMQ', 'bee-queue']
const QUICK: readonly QueueName[] = ['soloflight']

const QUEUES = 10

/** Commands that the bench itself sends. */
const OWN = ['info', 'config|resetstat', 'client|list']

/** One process that has queues with a worker each, and nothing to do. */
export async function queueIdle(stage: Stage): Promise<void> {
  const seconds = stage.quick ? 5 : 10
  heading(`queue-idle: one process, ${QUEUES} queues with a worker each, nothing to do for ${seconds} s`)
  const { server } = stage
  const rows: (string | number)[][] = []
  for (const name of stage.quick ? QUICK : NAMES) {
    const before = (await server.connectedClients()).length
    const count = async () => (await server.connectedClients()).length - before
    const queues = Array.from({ length: QUEUES }, (_, n) => `idle-${n}.${name}`)
    await using child = await crewMember(
      name,
      server,
      queues.map((queue) => ({ queue, submits: true, works: true, deduplicated: false })),
    )
    for (const queue of queues) await child.call('pump', queue, 1, 20)
    await sleep(1_000)
    await server.resetStats()
    await sleep(seconds * 1_000)
    const commands = await allCommands(server)
    const connections = await count()
    rows.push([name, commands, connections])
    if (name === 'soloflight') {
      const most = 3 * seconds
      figure({
        what: `${QUEUES} idle queues with a worker each, commands in ${seconds} s, PINGs too; connections`,
        wanted: `at most ${most}; 2`,
        measured: `${commands}; ${connections}`,
        reached: commands <= most && connections === 2,
        kind: 'count',
      })
    }
    await child.kill()
    await until(async () => (await count()) === 0, { what: 'the connections to close' })
  }
  table(['', `commands in ${seconds} s`, 'connections'], rows)
}

/** Everything that Redis ran, signs of life too. */
async function allCommands(server: RedisServer): Promise<number> {
  const stats = await server.commandStats()
  return Object.entries(stats).reduce((total, [name, calls]) => total + (OWN.includes(name) ? 0 : calls), 0)
}
