import { setTimeout as sleep } from 'node:timers/promises'
import { RedisServer } from '../../test/support/redis-server.ts'
import { until } from '../../test/support/wait.ts'
import type { Route } from '../bus/bus.ts'
import { busMember } from '../bus/crew.ts'
import type { BusName } from '../bus/entrant.ts'
import { exactly, figure, heading, table } from '../report.ts'
import { commandsSent, OWN_COMMANDS, type Stage } from '../stage.ts'

const NAMES: readonly BusName[] = ['soloflight', 'busmq']
const QUICK: readonly BusName[] = ['soloflight']

const EACH = 10
const SECONDS = 10
const MAX_COMMANDS = 30

/** One process that serves and consumes, and has nothing to do. */
export async function busIdle(stage: Stage): Promise<void> {
  heading(
    `bus-idle: one process, ${EACH} services, ${EACH} queues that it consumes from, nothing to do for ${SECONDS} s`,
  )
  const { server } = stage
  const rows: (string | number)[][] = []
  for (const name of stage.quick ? QUICK : NAMES) {
    const count = await connectionsFromNow(server)
    const serves = Array.from({ length: EACH }, (_, n) => `idle-${n}.${name}`)
    const routes = idleRoutes(name)
    await using child = await busMember(name, [server], { receives: routes, sends: routes, serves })
    // So that nothing is made only with the first message.
    for (const { name: route } of routes) {
      const { sent } = await child.call('pump', route, 1, 20)
      await child.call('heard', route, sent)
    }
    await sleep(1_000)
    const connections = await count()
    const commands = await commandsSent(server, () => sleep(SECONDS * 1_000), OWN_COMMANDS)
    rows.push([name, commands, connections])
    if (name === 'soloflight') {
      figure({
        what: `${EACH} services that are not called and ${EACH} idle queues, commands from clients in ${SECONDS} s, PINGs too; connections`,
        wanted: `at most ${MAX_COMMANDS}; 2`,
        measured: `${commands}; ${connections}`,
        reached: commands <= MAX_COMMANDS && connections === 2,
        kind: 'count',
      })
    }
    await child.kill()
    await until(async () => (await count()) === 0, { what: 'the connections to close' })
  }
  table(['', `commands from clients in ${SECONDS} s`, 'connections'], rows)
  await twoInstances(stage)
}

/** Queues of one process, over two servers. */
async function twoInstances({ server }: Stage): Promise<void> {
  await using second = await RedisServer.start({ port: 'free' })
  const counts = [await connectionsFromNow(server), await connectionsFromNow(second)]
  const routes = idleRoutes('two')
  await using child = await busMember('soloflight', [server, second], { receives: routes, sends: routes })
  for (const { name: route } of routes) {
    const { sent } = await child.call('pump', route, 1, 20)
    await child.call('heard', route, sent)
  }
  const connections = await Promise.all(counts.map((count) => count()))
  exactly('connections of a process to each of two instances of its bus', connections, [2, 2])
}

function idleRoutes(owner: string): Route[] {
  return Array.from({ length: EACH }, (_, n) => ({
    name: `idle-${n}.${owner}`,
    via: 'queue',
    reliable: false,
    kind: 'strings',
  }))
}

/** Counts the connections that come from now on. */
async function connectionsFromNow(server: RedisServer): Promise<() => Promise<number>> {
  const before = (await server.connectedClients()).length
  return async () => (await server.connectedClients()).length - before
}
