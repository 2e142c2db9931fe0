import { LOCALHOST } from '../../test/support/ports.ts'
import { Child } from '../../test/support/process.ts'
import { portOf } from '../../test/support/redis-server.ts'
import { installPeer } from '../install-peer.ts'
import { type Build, buildEnvironment } from '../library.ts'
import type { ServicesHandlers } from '../services-child.ts'
import type { Stage } from '../stage.ts'
import { SERVICES_ENTRANTS, type ServicesName } from './entrant.ts'
import type { ServicesTerms } from './services.ts'

export type ServicesChild = Child<ServicesHandlers>

/** A process that serves and calls. `build`: the library that it measures. */
export async function servicesMember(
  name: ServicesName,
  { server }: Stage,
  terms: ServicesTerms,
  build?: Build,
): Promise<ServicesChild> {
  const entrant = SERVICES_ENTRANTS[name]
  if ('peer' in entrant) await installPeer(entrant.peer)
  const child = await Child.fork<ServicesHandlers>(new URL('../services-child.ts', import.meta.url), {
    env: buildEnvironment(build),
  })
  await child.call('open', name, { host: LOCALHOST, port: portOf(server) }, terms)
  return child
}
