import { ClosedError, UnavailableError } from '../../errors.ts'
import { messageOf } from '../codec/codec.ts'
import { FORMAT, newId } from '../keys.ts'
import { Script } from './call.ts'
import type { Connection } from './connection.ts'

/** Default timeout of `ready` of a layer. */
export const READY_TIMEOUT_MS = 10_000

/** Does what all other scripts do: writes a record, sets its expiry, and publishes a message. */
const PROBE = new Script(`
redis.call('HSET', KEYS[1], 'r', '1')
redis.call('PEXPIRE', KEYS[1], 1000)
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
`)

const PROBE_TIMEOUT_MS = 1000
const PROBE_INTERVAL_MS = 100

/**
 * Resolves once a script has written `key` and its message has arrived: commands and the subscription work. Rejects with
 * UnavailableError, whose message says why, after `timeout` ms; with ClosedError.
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
      const probeTimeout = Math.max(1, Math.min(PROBE_TIMEOUT_MS, left))
      const failed = await connection.call(probe, probeTimeout).then(() => undefined, identity)
      if (failed instanceof ClosedError) throw failed
      // An earlier error is more specific than a timeout without a cause.
      if (!(failed instanceof UnavailableError && failed.cause === undefined && failure)) failure = failed
      // The remaining time is too short for another probe.
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

/** `failure`: the error of the commands; undefined if only the subscription does not work. */
function notReadyError(timeout: number, failure: unknown, lastError: Error | undefined): UnavailableError {
  const noMessage = `commands are answered, but no message arrives${lastError ? ` (${messageOf(lastError)})` : ''}`
  const reason = failure === undefined ? noMessage : messageOf(failure)
  return new UnavailableError(`Redis is not ready within ${timeout} ms: ${reason}`, {
    cause: failure ?? lastError,
  })
}
