import { LOCALHOST } from '../../test/support/ports.ts'
import { Child } from '../../test/support/process.ts'
import { portOf, type RedisServer } from '../../test/support/redis-server.ts'
import type { BusHandlers } from '../bus-child.ts'
import { installPeer } from '../install-peer.ts'
import { type Build, buildEnvironment } from '../library.ts'
import type { BusTerms } from './bus.ts'
import { BUS_ENTRANTS, type BusName } from './entrant.ts'

export type BusChild = Child<BusHandlers>

/** A process with a bus over these servers. `build`: the library that it measures. */
export async function busMember(
  name: BusName,
  servers: readonly RedisServer[],
  terms: Partial<BusTerms>,
  build?: Build,
): Promise<BusChild> {
  const entrant = BUS_ENTRANTS[name]
  if ('peer' in entrant) await installPeer(entrant.peer)
  const child = await Child.fork<BusHandlers>(new URL('../bus-child.ts', import.meta.url), {
    env: buildEnvironment(build),
  })
  const addresses = servers.map((server) => ({ host: LOCALHOST, port: portOf(server) }))
  await child.call('open', name, addresses, { sends: [], receives: [], serves: [], ...terms })
  return child
}
