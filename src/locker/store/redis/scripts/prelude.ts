import { FORMAT, ID_LENGTH } from '../../../../kernel/keys.ts'
import { SERVER_CLOCK } from '../../../../kernel/redis/call.ts'

/**
 * The layout of a record in Redis, and what all scripts share. record.ts specifies the transitions.
 *
 * A record is one hash. Times are ms since the epoch by the server's clock. A settlement ends the lease; so do a release
 * without regrant and a releaseIfUnwanted.
 *
 *   field  meaning                                             written by            removed by
 *   -- the stored value
 *   v      header (see wire.ts), tags and bytes               settle value          invalidate
 *   w      the same, for flights that were parked for it       invalidate            the next value; invalidate
 *   vf     its fence                                           settle value          invalidate, with w
 *   va     when it was accepted                                settle value          ·
 *   vu     until when it is fresh                              settle value          invalidate
 *   vs     until when it is kept for callers that accept stale settle value          the next value; invalidate
 *   -- the lease
 *   o      token of the owner: inbox, nonce, '.', attempt      claim, regrant        the end of the lease
 *   u      when it expires                                     claim, regrant,       the end of the lease
 *                                                              renew, release
 *   l      how long it is, ms                                  claim, regrant, renew the end of the lease
 *   h      host and process id of the owner                    claim, regrant        the end of the lease
 *   c      trace context of the owner                          claim                 the end of the lease, a takeover
 *   g      last progress of the owner                          progress              the end of the lease, a new grant
 *   a      '1': notify the owner when the last flight unparks  releaseIfUnwanted     the end of the lease, a new grant
 *   -- the outcome of the last grant that ended
 *   s      its fence                                           the end of the lease  ·
 *   k      v value, e error, n not to be stored, r released    the end of the lease  ·
 *   su     until when flights that were parked may read it     the end of the lease  ·
 *   e      bytes of an error, or of a value not to be stored   settle                the end of the next lease
 *   et     its tags, if it has any                             settle                the end of the next lease
 *   eu     until when an error is fresh                        settle error          the same; invalidate
 *   -- the parked flights
 *   n      how many                                            claim, unpark, hints  settle
 *   @…     one field for each: inbox and nonce; empty          claim                 settle, its grant, unpark, hints
 *   ~…     the same for one that only waits                    claim                 settle, unpark, hints
 *   wu     until when the record is kept for those             claim                 settle
 *   -- for as long as the record lives
 *   f      the last fence granted                              claim, regrant        ·
 *   d      grants up to this fence were invalidated            invalidate            ·
 *   pu     until when claims are answered with 'bypass'        settle not to be      the next value; invalidate
 *                                                              stored
 *
 * Order in every script: read all, remove fields, set fields, set the expiry, then publish by `pcall`. When Redis is out
 * of memory a script may not begin with a write that grows, but may go on with one. A channel that an ACL denies must not
 * leave a half-written record.
 *
 * Conformance tests replace both fragments, so that time is an argument.
 */
export interface TimeFragments {
  /** Defines `us` and `now` (ms), since the epoch. */
  clock: string
  /** Defines `keep(key, until)`: the record may be deleted at `until`. */
  keep: string
}

/** Time as the server tells it. */
export const SERVER_TIME: TimeFragments = {
  clock: SERVER_CLOCK,
  keep: /* lua */ `
local function keep(key, at) redis.call('PEXPIRE', key, int(at - now)) end`,
}

/** The fields that end with a lease, and those of the outcome before, which the end of a lease replaces. */
export const ENDED_FIELDS: string = `'o', 'u', 'l', 'h', 'c', 'g', 'a', 'e', 'eu', 'et'`

/**
 * The functions that the scripts share.
 *
 *   num(text)                           a field as a number; 0 when it is absent
 *   int(number)                         a number as text, all digits
 *   notify(channels, park, message)     publishes to a parked flight; returns the number of receivers, or an error
 *   parks(key)                          the fields of the parked flights
 *   remove(key, fields)                 removes fields, however many
 *   notifyFree(channels, parks, all)    notifies the first parked flight that claims and has a receiver that the resource
 *                                       is free, or all that claim; returns those without receivers. On a cluster
 *                                       receivers on other nodes are not counted: there `all` is '1'
 */
export function helpers(time: TimeFragments): string {
  return /* lua */ `
local function num(text) return tonumber(text or '0') or 0 end
local function int(number) return string.format('%.0f', number) end
${time.keep}
local function notify(channels, park, message)
  local inbox, nonce = string.sub(park, 2, ${ID_LENGTH + 1}), string.sub(park, ${ID_LENGTH + 2})
  return redis.pcall('PUBLISH', channels .. inbox, '${FORMAT}' .. nonce .. message)
end
local function parks(key)
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local kind = string.sub(field, 1, 1)
    if kind == '@' or kind == '~' then found[#found + 1] = field end
  end
  return found
end
local function remove(key, fields)
  for from = 1, #fields, 1000 do
    redis.call('HDEL', key, unpack(fields, from, math.min(from + 999, #fields)))
  end
end
local function notifyFree(channels, parked, all)
  local gone = {}
  for _, park in ipairs(parked) do
    local claims = string.sub(park, 1, 1) == '@'
    local receivers = claims and notify(channels, park, 'f')
    if claims and all ~= '1' then
      if type(receivers) ~= 'number' or receivers > 0 then break end
      gone[#gone + 1] = park
    end
  end
  return gone
end
`
}
