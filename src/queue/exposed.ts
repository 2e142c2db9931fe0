import type { RemoteFailure } from '../errors.ts'
import { describeFailure } from '../locker/failure.ts'
import type { ResolvedQueueOptions } from './options.ts'

/** What of a failure leaves the process; nothing but that it happened, if the hook that decides it fails. */
export function exposedFailure(
  { exposeError }: Pick<ResolvedQueueOptions, 'exposeError'>,
  error: unknown,
): RemoteFailure {
  try {
    return exposeError(describeFailure(error), error)
  } catch {
    return { name: 'Error', message: 'The job failed' }
  }
}
