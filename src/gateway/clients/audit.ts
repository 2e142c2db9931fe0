import { emit, hasListeners } from '../../kernel/telemetry.ts'
import type { ActionDetails, RouteContext } from '../env.ts'
import type { Answer } from '../http/answer.ts'
import { problemOf } from '../problem.ts'

/** Adds to what the audit event of this request says. */
export function noteAction({ env }: RouteContext, more: ActionDetails): void {
  if (hasListeners('gateway:action')) env.action = { ...env.action, ...more }
}

/**
 * Runs the handler of a route that has an action, then publishes its audit event, whatever was answered: what was refused is
 * told as well. `who`: the name of the token.
 */
export async function audited(
  c: RouteContext,
  action: string,
  who: () => string | undefined,
  handle: () => Promise<Answer> | Answer,
): Promise<Answer> {
  if (!hasListeners('gateway:action')) return handle()
  const tell = (status: number) => {
    const noted = c.env.action
    if (noted?.isDry) return
    emit('gateway:action', {
      who: who(),
      action: noted?.action ?? c.req.param('action') ?? action,
      queue: c.req.param('queue'),
      id: c.req.param('id') ?? noted?.id,
      count: noted?.count,
      status,
    })
  }
  try {
    const answer = await handle()
    tell(answer.status)
    return answer
  } catch (error) {
    tell(problemOf(error)?.status ?? 500)
    throw error
  }
}
