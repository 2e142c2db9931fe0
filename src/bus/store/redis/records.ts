import type { Script } from '../../../kernel/redis/call.ts'
import type { Connection } from '../../../kernel/redis/connection.ts'
import { refusedError } from '../../../kernel/redis/diagnosis.ts'

// What the records of topics and objects share. Each is a hash, whose field `e` says when it expires: ms since the epoch by the
// server's clock. A record that has expired is as good as none, although its key is removed later.

export type Argument = string | Buffer

/** A key is kept for up to so much longer than its record: then its expiry need not be extended each time, ms. */
const EXPIRY_STEP = 60_000

/**
 * Lua:
 *
 *   num(text)             the number that a text says; 0 if it says none
 *   int(number)           the digits of a whole number, without an exponent
 *   extend(key, from, to) makes a key outlive `to`. What it holds expired at `from` before; 0: it is new.
 */
export const RECORDS: string = /* lua */ `
local function num(text) return tonumber(text or '') or 0 end
local function int(number) return string.format('%.0f', number) end
local function extend(key, from, to)
  -- It was extended to the end of this step at least, when the record came into it.
  if math.floor(from / ${EXPIRY_STEP}) < math.floor(to / ${EXPIRY_STEP}) then
    redis.call('PEXPIRE', key, int(to - now + ${EXPIRY_STEP}))
  end
end
`

/**
 * Lua: calls `renew(key, …)` for each of KEYS, with so many of ARGV. One that fails does not hinder the others.
 *
 * returns for each an empty string, or why it has failed
 */
export function renewEach(argsPerKey: number): string {
  return /* lua */ `
local failures = {}
for n, key in ipairs(KEYS) do
  local isDone, problem = pcall(renew, key, unpack(ARGV, ${argsPerKey} * (n - 1) + 1, ${argsPerKey} * n))
  failures[n] = isDone and '' or type(problem) == 'table' and problem.err or problem
end
return failures
`
}

/** Records that one script renews at most. It blocks the server, so it must be short. */
const MAX_RENEWALS = 50

/** Renews records by a script that ends with {@link renewEach}. Resolves with the error of each that failed. */
export async function renewAll(
  connection: Connection,
  script: Script,
  records: readonly { readonly key: string; readonly args: readonly Argument[] }[],
  within: number,
): Promise<(Error | undefined)[]> {
  // On a cluster, the keys of one script must be in one slot.
  const size = connection.cluster ? 1 : MAX_RENEWALS
  const batches: Promise<(Error | undefined)[]>[] = []
  for (let from = 0; from < records.length; from += size) {
    const batch = records.slice(from, from + size)
    const request = script.with(
      batch.map(({ key }) => key),
      batch.flatMap(({ args }) => args),
    )
    batches.push(
      connection.call(request, within).then(
        (reply) => (reply as unknown[]).map((text) => (String(text) === '' ? undefined : refusedError(text))),
        (error: Error) => batch.map(() => error),
      ),
    )
  }
  return (await Promise.all(batches)).flat()
}
