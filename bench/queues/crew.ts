import { LOCALHOST } from '../../test/support/ports.ts'
import { Child } from '../../test/support/process.ts'
import { portOf, type RedisServer } from '../../test/support/redis-server.ts'
import { type Build, buildEnvironment } from '../library.ts'
import type { QueueHandlers } from '../queue-child.ts'
import type { QueueName } from './entrant.ts'
import type { Address, QueueTerms } from './queue.ts'

export type QueueChild = Child<QueueHandlers>

/** `build`: the library that it measures. */
export function forkQueueChild(build?: Build): Promise<QueueChild> {
  return Child.fork<QueueHandlers>(new URL('../queue-child.ts', import.meta.url), {
    env: buildEnvironment(build),
  })
}

/** A process with these queues open. */
export async function crewMember(
  name: QueueName,
  server: RedisServer,
  terms: readonly QueueTerms[],
  build?: Build,
): Promise<QueueChild> {
  const child = await forkQueueChild(build)
  const address: Address = { host: LOCALHOST, port: portOf(server) }
  await child.call('open', name, address, [...terms])
  return child
}
