import { SERVICES_DEFAULTS } from '../../services/index.ts'
import type { GatewayDeps } from '../deps.ts'
import { textOf } from '../http/json.ts'
import { Problem } from '../problem.ts'

/** Arguments of one call: an engine passes a bounded number of them to a function. */
export const MAX_ARGUMENTS = 100

export const MAX_TRIES = 100

/** A call may take so long, ms, however short the longest wait of a request is. */
const MIN_CALL = 1_000

/** A call of a client. Durations in ms. */
export interface ServiceCall {
  readonly service: string
  readonly event: string
  /** The text of each argument: JSON. */
  readonly args: readonly string[]
  readonly timeout?: number | undefined
  readonly tries?: number | undefined
  /** For a first process. */
  readonly wait?: number | undefined
}

/** Calls a service. Resolves with the JSON of what its handler returned. No wait is longer than `maxWait`. */
export async function callService(
  { options, messaging }: GatewayDeps,
  { service, event, args, timeout = SERVICES_DEFAULTS.timeout, tries = 1, wait = 0 }: ServiceCall,
  signal: AbortSignal,
): Promise<string> {
  const within = Math.max(options.maxWait, MIN_CALL)
  const remote = messaging.services
    .require(service, { wait: Math.min(wait, options.maxWait) })
    .with({ timeout: Math.min(timeout, within), within, signal })
  const values = messaging.arguments(args)
  const result = await (tries === 1 ? remote.emit(event, ...values) : remote.pemit(tries, event, ...values))
  try {
    return textOf(result)
  } catch (cause) {
    // A codec of the user has read what JSON cannot represent.
    throw new Problem(500, 'unreadable value', { ran: 'yes', cause })
  }
}

/** Calls an event whose reply is streamed. `timeout` limits the wait for each chunk. */
export function streamService(
  { options, messaging }: GatewayDeps,
  { service, event, args, timeout = SERVICES_DEFAULTS.timeout, wait = 0 }: ServiceCall,
  signal: AbortSignal,
): AsyncGenerator<unknown, void> {
  const limit = Math.max(options.maxWait, MIN_CALL)
  return messaging.services
    .require(service, { wait: Math.min(wait, options.maxWait) })
    .with({ timeout: Math.min(timeout, limit), signal })
    .stream(event, ...messaging.arguments(args))
}
