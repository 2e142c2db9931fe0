import { AbortedError, TimeoutError } from '../../errors.ts'
import type { GatewayDeps } from '../deps.ts'
import type { RouteContext } from '../env.ts'
import type { Lifecycle } from '../lifecycle.ts'
import { isGone, onGone } from './client.ts'
import { duration, type Parameter } from './parameters.ts'

/** `Prefer: wait=30`, RFC 7240. */
const PREFER_WAIT = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])/i

/** The parameter `wait`. */
export function waitParameter(description: string): Parameter<number> {
  return duration(description, { max: Number.MAX_SAFE_INTEGER })
}

/** How long a request wants to wait, ms: `?wait=`, else `Prefer: wait=`, at most `maxWait`. 0 if it says nothing. */
export function waitOf(
  { req }: RouteContext,
  { wait }: { readonly wait?: number | undefined },
  { options }: GatewayDeps,
): number {
  const [, preferred = '0'] = PREFER_WAIT.exec(req.header('prefer') ?? '') ?? []
  const asked = wait ?? Number(preferred) * 1000
  return Math.min(asked, options.maxWait)
}

/** Whether a call has ended because its wait is over, or nobody wants its answer any more. */
export function waitHasEnded(error: unknown): boolean {
  return error instanceof TimeoutError || error instanceof AbortedError
}

/** Runs something with a signal that aborts when the client is gone, or the gateway must end. */
export async function whileWanted<T>(
  c: RouteContext,
  lifecycle: Lifecycle,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const unwanted = new AbortController()
  if (isGone(c)) unwanted.abort()
  const ended = onGone(c, () => unwanted.abort())
  try {
    return await lifecycle.wait(unwanted, run)
  } finally {
    ended()
  }
}
