import { ClosedError } from '../../../errors.ts'

/** A request cannot be asked of its handler: it, and only it, goes on without the cache if it still can. */
export class UnansweredError extends Error {
  override readonly name = 'UnansweredError'
}

/** Whether a request that has failed so is to be handled without the cache. */
export function isUnanswered(error: unknown): boolean {
  return error instanceof UnansweredError || error instanceof ClosedError
}
