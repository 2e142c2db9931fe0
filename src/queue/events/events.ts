import type { RemoteFailure } from '../../errors.ts'

/** A job, as events name it. */
export interface JobEvent {
  id: string
  command: string
}

/** What a queue emits about the jobs that are submitted to it, or run, in this process. */
export interface QueueEvents {
  /** A submission was accepted. */
  submitted: [JobEvent & { disposition: Disposition }]
  /** A handler was started. */
  active: [JobEvent & { attempt: number; fence: number }]
  /** A handler's result was accepted. */
  completed: [JobEvent & { attempt: number; fence: number; ms: number }]
  /** A handler failed, and will be called once more in `delay` ms. */
  retrying: [JobEvent & { attempt: number; fence: number; ms: number; delay: number; failure: RemoteFailure }]
  /** A handler failed for good. */
  failed: [JobEvent & { attempt: number; fence: number; ms: number; failure: RemoteFailure }]
  /** A job lost its worker, and goes to another; `failed`: it did so too often. Told by who noticed. */
  stalled: [JobEvent & { failed: boolean }]
  /** An attempt of this process was lost, or its job cancelled: `code` is that of the signal's reason. */
  lost: [JobEvent & { attempt: number; fence: number; code: string }]
}

/** An event of some process: its name, what it tells, and which process told it. */
export type FeedEvent = {
  [Name in keyof QueueEvents]: { event: Name; process: string } & QueueEvents[Name][0]
}[keyof QueueEvents]

/**
 * What became of a submission: 'created' a new run; 'joined' one that waits or runs already; or its outcome was there,
 * 'cached'.
 */
export type Disposition = 'created' | 'joined' | 'cached'
