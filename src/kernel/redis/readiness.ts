import { ClosedError, UnavailableError } from '../../errors.ts'
import { messageOf } from '../codec/codec.ts'
import { newId } from '../ids.ts'
import type { Connection } from './connection.ts'
import { FORMAT } from './keys.ts'
import { Script } from './script.ts'

/** How long `ready` of a layer waits, ms, unless told otherwise. */
export const READY_TIMEOUT_MS = 10_000

/** Does what all other scripts do: it writes a record, gives it an expiry, and sends a message. */
const PROBE = new Script(`
redis.call('HSET', KEYS[1], 'r', '1')
redis.call('PEXPIRE', KEYS[1], 1000)
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
`)

/** A probe may take so long, ms. */
const PROBE_TIMEOUT_MS = 1000
/** Between two probes, ms. */
const PROBE_INTERVAL_MS = 100

/**
 * Resolves when a script has written `key` and its message has arrived: commands and the subscription work. Rejects with
 * UnavailableError, which says what is wrong, when that is not so within `timeout` ms; with ClosedError.
 */
export async function awaitReady(connection: Connection, key: string, timeout: number): Promise<void> {
  const { clock, inbox, inboxChannel } = connection
  const end = clock.now() + timeout
  const nonce = newId()
  const probe = PROBE.with([key], [inboxChannel, `${FORMAT}${nonce}r`])
  let arrived = false
  let wake: (() => void) | undefined
  const hint = () => {
    arrived = true
    wake?.()
  }
  inbox.listen(nonce, { hint })
  let failure: unknown
  try {
    for (let left = timeout; ; left = end - clock.now()) {
      const within = Math.max(1, Math.min(PROBE_TIMEOUT_MS, left))
      const failed = await connection.call(probe, within).then(() => undefined, identity)
      if (failed instanceof ClosedError) throw failed
      // Silence says less than what was said before.
      if (!(failed instanceof UnavailableError && failed.cause === undefined && failure)) failure = failed
      // What is left then is too short to be told more.
      const last = end - clock.now() <= 2 * PROBE_INTERVAL_MS
      const pause = last ? end - clock.now() : PROBE_INTERVAL_MS
      if (!arrived) {
        await new Promise<void>((resume) => {
          const timer = clock.after(pause, resume)
          wake = () => {
            timer.cancel()
            resume()
          }
        })
      }
      if (arrived) return
      if (last) throw notReadyError(timeout, failure, connection.lastError)
    }
  } finally {
    inbox.ignore(nonce)
  }
}

function identity(error: unknown): unknown {
  return error
}

/** `failure`: of the commands; without one, it is the subscription that does not work. */
function notReadyError(timeout: number, failure: unknown, trouble: Error | undefined): UnavailableError {
  const unheard = `commands are answered, but no message arrives${trouble ? ` (${messageOf(trouble)})` : ''}`
  const what = failure === undefined ? unheard : messageOf(failure)
  return new UnavailableError(`Redis is not ready within ${timeout} ms: ${what}`, {
    cause: failure ?? trouble,
  })
}
