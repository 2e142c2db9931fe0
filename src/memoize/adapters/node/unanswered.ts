import { ClosedError } from '../../../errors.ts'

/** The handler was called with this request before, and cannot be called again. */
export class HandlerCalledError extends Error {
  override readonly name = 'UnansweredError'
}

/** Whether a request that failed with this error is handled without the cache, if that is still possible. */
export function canPassThrough(error: unknown): boolean {
  return error instanceof HandlerCalledError || error instanceof ClosedError
}
