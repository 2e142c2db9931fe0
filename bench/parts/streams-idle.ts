import { LOCALHOST } from '../../test/support/ports.ts'
import { Child } from '../../test/support/process.ts'
import { portOf } from '../../test/support/redis-server.ts'
import type { EventHandlers } from '../event-child.ts'
import { buildEnvironment } from '../library.ts'
import { atMost, heading, table } from '../report.ts'
import type { Stage } from '../stage.ts'

const STREAMS = 1_000
const MIB = 1024 * 1024

const PATHS = { 'feed of a queue': '/events?queue=mails', 'feed of all queues': '/events' }

/** What idle event streams of a gateway on node:http cost, beside the connections themselves. */
export async function streamsIdle({ server }: Stage): Promise<void> {
  heading(`streams-idle: ${STREAMS} idle event streams of one gateway`)
  const fork = () =>
    Child.fork<EventHandlers>(new URL('../event-child.ts', import.meta.url), {
      env: buildEnvironment(undefined),
    })
  const rows: (string | number)[][] = []
  for (const [what, path] of Object.entries(PATHS)) {
    await using gateway = await fork()
    await using clients = await fork()
    const port = await gateway.call('serve', { host: LOCALHOST, port: portOf(server) })
    // What is made once is made before: modules, the watch, its buffers.
    await clients.call('listen', port, path, 50)
    await clients.call('leave')
    const before = await gateway.call('heap')
    await clients.call('listen', port, path, STREAMS)
    const after = await gateway.call('heap')
    const [used, external] = [after.used - before.used, after.external - before.external]
    rows.push([what, (used / MIB).toFixed(1), (external / MIB).toFixed(1)])
    const format = { unit: ' MiB', kind: 'count', digits: 1 } as const
    atMost(`heap of ${STREAMS} idle event streams, ${what}`, (used + external) / MIB, 30, format)
  }
  table(['', 'heap, MiB', 'external, MiB'], rows)
}
