import { Script, SERVER_CLOCK } from '../../../../../kernel/redis/call.ts'
import { ATTACH, DETACH, EXTEND, RENEW } from './attach.ts'
import { CONSUME, LEAVE, READ, TAKE } from './consume.ts'
import { FLUSH, INSPECT, READ_METADATA, REMOVE, WRITE_METADATA } from './manage.ts'
import { LEAVING, OPEN, REMOVAL } from './open.ts'
import { PRELUDE } from './prelude.ts'
import { PUSH } from './push.ts'
import { SIGNALS } from './signals.ts'

/** The transitions of queues, as the server runs them. */
export interface BusQueueScripts {
  attach: Script
  detach: Script
  renew: Script
  push: Script
  consume: Script
  take: Script
  leave: Script
  read: Script
  inspect: Script
  flush: Script
  remove: Script
  readMetadata: Script
  writeMetadata: Script
}

/** Builds the scripts. `clock` defines `now`: conformance tests replace it, so that time is an argument. */
export function buildBusQueueScripts(clock: string): BusQueueScripts {
  const build = (...parts: string[]) => new Script([clock, PRELUDE, OPEN, ...parts].join('\n'))
  return {
    attach: build(EXTEND, ATTACH),
    detach: build(SIGNALS, REMOVAL, LEAVING, EXTEND, DETACH),
    renew: build(EXTEND, RENEW),
    push: build(PUSH),
    consume: build(CONSUME),
    take: build(TAKE),
    leave: build(LEAVE),
    read: build(READ),
    inspect: build(INSPECT),
    flush: build(FLUSH),
    remove: build(REMOVE),
    readMetadata: build(READ_METADATA),
    writeMetadata: build(WRITE_METADATA),
  }
}

/** The scripts on the server's time. */
export const busQueueScripts: BusQueueScripts = buildBusQueueScripts(SERVER_CLOCK)
