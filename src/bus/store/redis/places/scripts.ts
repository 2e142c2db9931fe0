import { Script, SERVER_CLOCK } from '../../../../kernel/redis/call.ts'
import { RECORDS } from '../records.ts'

/** What scripts share: `exists()`, whether there is the record of KEYS 1. */
const PLACES = /* lua */ `
local function exists() return num(redis.call('HGET', KEYS[1], 'e')) > now end
`

/**
 * KEYS    record
 * returns 1, or 0
 */
const EXISTS = /* lua */ `
return exists() and 1 or 0
`

/**
 * KEYS    record, reservation: a string, the token
 * ARGV    1 token  2 ttl
 * returns exists, reserved, or taken
 */
const RESERVE = /* lua */ `
if exists() then return 'exists' end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return 'taken' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 'reserved'
`

/**
 * KEYS    reservation
 * ARGV    1 token
 */
const RELEASE = /* lua */ `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`

/** What concerns the places of records, as the server runs it. */
export interface PlaceScripts {
  exists: Script
  reserve: Script
  release: Script
}

/** Builds the scripts. `clock` defines `us` and `now`: conformance tests replace it, so that time is an argument. */
export function buildPlaceScripts(clock: string): PlaceScripts {
  const build = (script: string) => new Script([clock, RECORDS, PLACES, script].join('\n'))
  return { exists: build(EXISTS), reserve: build(RESERVE), release: new Script(RELEASE) }
}

/** The scripts on the server's time. */
export const placeScripts: PlaceScripts = buildPlaceScripts(SERVER_CLOCK)
