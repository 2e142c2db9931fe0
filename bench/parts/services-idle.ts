import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../test/support/wait.ts'
import { figure, heading, table } from '../report.ts'
import { servicesMember } from '../services/crew.ts'
import type { ServicesName } from '../services/entrant.ts'
import { commandsSent, OWN_COMMANDS, type Stage } from '../stage.ts'

const NAMES: readonly ServicesName[] = ['soloflight', 'Moleculer']
const QUICK: readonly ServicesName[] = ['soloflight']

const SERVICES = 10
const SECONDS = 10
const MAX_COMMANDS = 30

/** One process that serves, and is not called. */
export async function servicesIdle(stage: Stage): Promise<void> {
  heading(`services-idle: one process, ${SERVICES} services, no calls for ${SECONDS} s`)
  const { server } = stage
  const rows: (string | number)[][] = []
  for (const name of stage.quick ? QUICK : NAMES) {
    const before = (await server.connectedClients()).length
    const count = async () => (await server.connectedClients()).length - before
    const serves = Array.from({ length: SERVICES }, (_, n) => `idle-${n}`)
    await using child = await servicesMember(name, stage, { serves, calls: [] })
    await sleep(1_000)
    const connections = await count()
    const commands = await commandsSent(server, () => sleep(SECONDS * 1_000), OWN_COMMANDS)
    rows.push([name, commands, connections])
    if (name === 'soloflight') {
      figure({
        what: `${SERVICES} services that are not called, commands from clients in ${SECONDS} s, PINGs too; connections`,
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
}
