import { ClosedError, RemoteError } from '../../errors.ts'

/** Nobody has answered who speaks for the resource: all who wait are to ask for themselves. */
export class UnansweredError extends Error {
  static readonly CODE = 'E_UNANSWERED'
  override readonly name = 'UnansweredError'
  readonly code: string = UnansweredError.CODE
}

/** Whether a request that has failed so is to be handled without the cache. */
export function isUnanswered(error: unknown): boolean {
  if (error instanceof RemoteError) return error.remote.code === UnansweredError.CODE
  return error instanceof UnansweredError || error instanceof ClosedError
}
