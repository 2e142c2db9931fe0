import { ID_LENGTH } from '../../../../kernel/ids.ts'
import { FORMAT } from '../../../../kernel/redis/keys.ts'
import { SERVER_CLOCK } from '../../../../kernel/redis/script.ts'

/**
 * What all scripts share. The two fragments that deal with time are replaced by the model conformance tests, so that
 * time is an argument there.
 *
 * Fields of the record, by group (see record.ts for what they mean):
 *   value    v header, tags and bytes · vf fence · vu fresh until · vs stale until · va accepted at
 *   lease    o token · u until · l length · h holder · c trace · g progress · a tell me when nobody is parked
 *   outcome  s fence · k kind (v, e, r, n) · su readable until · e bytes of a failure or of what is not kept · eu failure fresh until · et its tags
 *            w the value (as v) once it was invalidated: for those who were parked for it
 *   parks    n how many · @<inbox><nonce> one each
 *   for good f last fence granted · d doomed up to this fence · pu until then nobody waits for anybody
 *
 * Rules: read all, then write, then expire, then PUBLISH by pcall. Fields are removed before fields are set: when Redis
 * is out of memory a script may not begin with a write that grows, but may go on with one.
 */
export interface TimeFragments {
  /** Defines `us` and `now` (ms). */
  clock: string
  /** Defines `keep(key, until)`: the record may be forgotten at `until`. */
  keep: string
}

/** Time as the server tells it. */
export const SERVER_TIME: TimeFragments = {
  clock: SERVER_CLOCK,
  keep: `
local function keep(key, at) redis.call('PEXPIRE', key, int(at - now)) end`,
}

/**
 * Before the bytes of a value: 1 if it has tags, else 0; its fence; until when it is fresh, and until when it is kept beyond
 * that, or 0. Tags follow the header, with their length in four bytes before them.
 */
export const VALUE_HEADER: string = '>Bddd'

/** Bytes of that header. */
export const HEADER_LENGTH: number = 25

/** The functions that the scripts share. */
export function helpers(time: TimeFragments): string {
  return `
local function num(x) return tonumber(x or '0') or 0 end
local function int(x) return string.format('%.0f', x) end
${time.keep}
local function last(vu, su, eu, u, l, vs, pu)
  return math.max(vu, su, eu, u > 0 and u + l or 0, vs, pu)
end
local function tell(channels, park, message)
  local inbox, nonce = string.sub(park, 2, ${ID_LENGTH + 1}), string.sub(park, ${ID_LENGTH + 2})
  return redis.pcall('PUBLISH', channels .. inbox, '${FORMAT}' .. nonce .. message)
end
local function parks(key)
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 1) == '@' then found[#found + 1] = field end
  end
  return found
end
local function remove(key, fields)
  for from = 1, #fields, 1000 do
    redis.call('HDEL', key, unpack(fields, from, math.min(from + 999, #fields)))
  end
end
-- Tells the first parked flight that is still there that the resource is free. Receivers are not counted across the
-- nodes of a cluster: there, all are told. Returns those who are gone.
local function hint(channels, found, all)
  local gone = {}
  for _, park in ipairs(found) do
    local receivers = tell(channels, park, 'f')
    if all ~= '1' then
      if type(receivers) ~= 'number' or receivers > 0 then break end
      gone[#gone + 1] = park
    end
  end
  return gone
end
`
}
