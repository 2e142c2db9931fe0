// What the conformance tests of the bus share.

import assert from 'node:assert/strict'
import type { Redis } from 'ioredis'
import { type Request, Script } from '../../src/kernel/redis/call.ts'
import { senderOf } from '../support/clients.ts'

export const EPOCH = 1_700_000_000_000

/** The time of the scripts is an argument: the key `now`. */
export const TEST_CLOCK = `local now = tonumber(redis.call('GET', 'now'))`

/** A key is kept for up to so much longer than its record, ms. */
const EXPIRY_STEP = 60_000

/** A script that is sent twice, as after a lost connection: the second reply counts. */
class TwiceScript extends Script {
  override with(keys: readonly string[], args: readonly (string | Buffer)[]): Request {
    const once = super.with(keys, args)
    return {
      key: once.key,
      async send(sender) {
        await once.send(sender)
        return once.send(sender)
      },
    }
  }
}

/** Replaces each of some scripts. */
function changed<Scripts extends object>(scripts: Scripts, change: (script: Script) => Script): Scripts {
  return Object.fromEntries(
    Object.entries(scripts).map(([name, script]) => [name, change(script)]),
  ) as Scripts
}

export function sentTwice<Scripts extends object>(scripts: Scripts): Scripts {
  return changed(scripts, ({ source }) => new TwiceScript(source))
}

/** The scripts with planted bugs: a text of theirs, and what replaces it. */
export function mutantsOf<Scripts extends object>(
  sound: () => Scripts,
  bugs: Record<string, [from: string, to: string]>,
): Record<string, () => Scripts> {
  const mutant = ([from, to]: [string, string]) => {
    let found = false
    const scripts = changed(sound(), (script) => {
      found ||= script.source.includes(from)
      return new Script(script.source.replaceAll(from, () => to))
    })
    assert.ok(found, `the scripts have changed: ${from}`)
    return scripts
  }
  return Object.fromEntries(Object.entries(bugs).map(([name, bug]) => [name, () => mutant(bug)]))
}

/** Longer than the expiry that any script sets, ms. */
const UNTOUCHED = 30 * 24 * 60 * 60_000

/** Reads the expiries of all keys but the time, and replaces them: so it shows which ones the next script sets. */
const READ_EXPIRIES = new Script(`
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if key ~= 'now' then
    found[#found + 1] = key
    found[#found + 1] = redis.call('PTTL', key)
    redis.call('PEXPIRE', key, ${UNTOUCHED})
  end
end
return found`)

/** How long a test may take to read an expiry, and how far it may set the clock back, ms. */
const ACCURACY = 10_000

/** The expiries of keys by the time of the test. Redis does not carry them out. */
export class Expiries {
  readonly #client: Redis
  #known = new Map<string, number>()

  constructor(client: Redis) {
    this.#client = client
  }

  /** Reads when each key expires, and checks that it does. Call it after each script. */
  async read(now: number): Promise<ReadonlyMap<string, number>> {
    const found = (await READ_EXPIRIES.with([], []).send(senderOf(this.#client))) as (Buffer | number)[]
    const expiries = new Map<string, number>()
    for (let at = 0; at < found.length; at += 2) {
      const [key, left] = [String(found[at]), Number(found[at + 1])]
      assert.ok(left > 0, `${key} has no expiry`)
      const known = left > UNTOUCHED / 2 ? this.#known.get(key) : now + left
      expiries.set(key, known ?? 0)
    }
    this.#known = expiries
    return expiries
  }

  /** Checks that a key outlives what it holds, and not for long. */
  static check(key: string, expiresAt: number, recordExpiresAt: number): void {
    const margin = expiresAt - recordExpiresAt
    assert.ok(
      margin > -ACCURACY && margin < EXPIRY_STEP + ACCURACY,
      `${key} outlives its record by ${margin} ms`,
    )
  }
}
