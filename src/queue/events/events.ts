import type { RemoteFailure } from '../../errors.ts'

/** The job of an event. */
export interface JobEvent {
  id: string
  command: string
}

/** Events that a queue emits for jobs that this process submits or runs. */
export interface QueueEvents {
  /** A submission was accepted. */
  submitted: [JobEvent & { disposition: Disposition }]
  /** A handler was called. */
  active: [JobEvent & { attempt: number; fence: number }]
  /** The result of a handler was accepted. `ms`: duration of the attempt. */
  completed: [JobEvent & { attempt: number; fence: number; ms: number }]
  /** A handler failed. The next attempt starts in `delay` ms. */
  retrying: [JobEvent & { attempt: number; fence: number; ms: number; delay: number; failure: RemoteFailure }]
  /** A handler failed and no attempt is left. */
  failed: [JobEvent & { attempt: number; fence: number; ms: number; failure: RemoteFailure }]
  /** A job lost its worker and is requeued; `failed`: it failed instead, by `maxStalls`. Emitted by the process that noticed. */
  stalled: [JobEvent & { failed: boolean }]
  /** An attempt of this process was lost, or its job was cancelled. `code`: error code of the reason of the signal. */
  lost: [JobEvent & { attempt: number; fence: number; code: string }]
}

/** An event of any process: its name, its fields, and the process that emitted it. */
export type FeedEvent = {
  [Name in keyof QueueEvents]: { event: Name; process: string } & QueueEvents[Name][0]
}[keyof QueueEvents]

/**
 * Effect of a submission. 'created': it created a new run. 'joined': it joined a run that waits or is active. 'cached': the
 * outcome of an earlier run was still valid.
 */
export type Disposition = 'created' | 'joined' | 'cached'
