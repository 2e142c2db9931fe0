import { Script, SERVER_CLOCK } from '../../../../kernel/redis/call.ts'
import { once } from '../../../../kernel/redis/once.ts'
import { DISPATCH, DISPATCH_ALL, SEND_CALLS } from './dispatch.ts'
import { KEYS_PER_SERVICE, LEASES, ONE_SERVICE, PRELUDE } from './prelude.ts'
import { CHECK, COUNT, MARK, PRUNE, REGISTER, REPORT, UNREGISTER } from './process.ts'
import { READ_SETTING, WRITE_SETTING } from './settings.ts'

/** The transitions of services, as the server runs them. */
export interface ServicesScripts {
  dispatch: Script
  dispatchAll: Script
  report: Script
  register: Script
  unregister: Script
  mark: Script
  check: Script
  count: Script
  prune: Script
  readSetting: Script
  writeSetting: Script
}

/** The reply key is KEYS 6, the number of the batch ARGV 6. */
const ONCE = once(KEYS_PER_SERVICE + 1, 6)

/** Builds the scripts. `clock` defines `us` and `now`: conformance tests replace it, so that time is an argument. */
export function buildServicesScripts(clock: string): ServicesScripts {
  const build = (...parts: string[]) => new Script([clock, PRELUDE, ...parts].join('\n'))
  return {
    dispatch: build(ONE_SERVICE, ONCE, LEASES, SEND_CALLS, DISPATCH),
    dispatchAll: build(ONE_SERVICE, ONCE, LEASES, SEND_CALLS, DISPATCH_ALL),
    report: build(ONE_SERVICE, REPORT),
    register: build(LEASES, REGISTER),
    unregister: build(LEASES, UNREGISTER),
    mark: build(ONE_SERVICE, MARK),
    check: build(ONE_SERVICE, LEASES, CHECK),
    count: build(ONE_SERVICE, COUNT),
    prune: build(ONE_SERVICE, LEASES, PRUNE),
    readSetting: new Script(READ_SETTING),
    writeSetting: build(ONE_SERVICE, WRITE_SETTING),
  }
}

/** The scripts on the server's time. */
export const servicesScripts: ServicesScripts = buildServicesScripts(SERVER_CLOCK)
