import { LOCALHOST } from '../../test/support/ports.ts'
import { portOf } from '../../test/support/redis-server.ts'
import { until } from '../../test/support/wait.ts'
import type { Name } from '../contenders/contender.ts'
import { exactly, heading, table } from '../report.ts'
import { forkChild, open, prefixOf, type Stage } from '../stage.ts'

const NAMES: readonly Name[] = ['layered-loader', 'redis-semaphore', 'async-cache-dedupe', 'bentocache']

/** Connections that one process has to a standalone server. */
export async function connections(stage: Stage): Promise<void> {
  heading('connections of one process to a standalone server')
  const { server } = stage
  const before = (await server.connectedClients()).length
  const count = async () => (await server.connectedClients()).length - before
  const rows: (string | number)[][] = []
  const counted: number[] = []
  for (const lockers of stage.quick ? [1, 50] : [1, 3, 50]) {
    await using child = await forkChild()
    await child.call('lockers', lockers, { host: LOCALHOST, port: portOf(server) })
    // The subscription may still be under way; a third connection would have come before it.
    await until(async () => (await count()) >= 2, { what: 'the subscription' })
    counted.push(await count())
    rows.push([`soloflight, ${lockers} locker(s) on one Connection`, await count()])
    await child.kill()
    await until(async () => (await count()) === 0, { what: 'the connections to close' })
  }
  for (const name of stage.quick ? [] : NAMES) {
    await using child = await forkChild()
    await open(child, name, stage, ['both', 'redis'], { prefix: prefixOf('connections', name) })
    await child.call('fill', name, 'user', 10)
    rows.push([name, await count()])
    await child.kill()
    await until(async () => (await count()) === 0, { what: 'the connections to close' })
  }
  table(['', 'connections'], rows)
  const wanted = counted.map(() => 2)
  exactly('connections of a process, whatever number of lockers share a Connection', counted, wanted)
}
