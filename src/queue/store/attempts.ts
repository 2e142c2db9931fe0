// Attempts of jobs, and the workers and holders that have them.

/** An attempt that is assigned to a worker. */
export interface Delivery {
  id: string
  fence: number
  generation: number
  /** Attempts of this generation that failed before. */
  failures: number
  /** Attempts of this generation whose worker was lost before. */
  stalls: number
  /** ms for which the lease surely lasts, by the server's clock; 0: the attempt must be accepted before it may start. */
  leaseLeft: number
  options: string
  /** Undefined when it is too long for a message: `readPayload` returns it. */
  payload: string | undefined
}

/** Receives the messages to a worker. */
export interface WorkerListener {
  onDelivery(delivery: Delivery): void
  /** The job of an attempt was cancelled or removed. */
  onCancelled(id: string, fence: number): void
  /** A job falls due in `ms`. */
  onDue(ms: number): void
  /** The store may not know this worker any more, or messages were missed: the worker must set its capacity again. */
  onCapacityRequested(): void
}

/** A worker: one command in one process. */
export interface WorkerRef {
  nonce: string
  command: string
  /** Id of the inbox of its process; absent: that of this process. */
  inbox?: string
}

/** What a worker was assigned, by the step that set its capacity and before. */
export interface Assignment {
  /** Deliveries to it since `former` was counted, by other steps; 0 if that is not known. */
  since: number
  /** Deliveries to it by this step. */
  assigned: number
  /** Jobs are ready that one step could not assign: its slots are not used up, and it is asked for its capacity again. */
  more: boolean
}

/** Asks for a job that is ready, to be held by whoever knows the secret: see holder.ts. */
export interface TakeRequest {
  command: string
  secret: string
  /** ms */
  lease: number
}

/** An attempt that was given to a holder, which has accepted it. */
export interface TakenAttempt {
  id: string
  fence: number
  /** Attempts of this generation that failed before. */
  failures: number
  options: string
  /** Undefined when it is too long for the reply: `readPayload` returns it. */
  payload: string | undefined
}

/** An attempt, as its worker names it. */
export interface AttemptRef {
  worker: WorkerRef
  id: string
  fence: number
}

/** The result of a renewal. 'lost': the lease is no longer held. 'cancelled': the job has ended under this fence. */
export type Renewal = 'held' | 'lost' | 'cancelled'

/**
 * What became of a report of how an attempt ended. 'accepted': that is how it ended. 'repeated': it was accepted before, with the
 * same result or failure. 'lost': the attempt was not held any more, or has ended in another way.
 */
export type FinishReply = 'accepted' | 'repeated' | 'lost'

/** Finished jobs that are kept for being listed. */
export interface Retention {
  /** Largest number of the queue; 0 keeps none. */
  count: number
  /** How long, ms. */
  age: number
}

/** How an attempt ended. */
export interface AttemptOutcome extends AttemptRef {
  /** 'retry': it failed and is run again. 'requeue': it was given back unfinished. */
  kind: 'value' | 'error' | 'retry' | 'requeue'
  /** The encoded result or failure. */
  bytes: Buffer
  /** How long it is served to later submissions, ms. */
  ttl: number
  /** How long it stays readable to those who waited, ms. */
  outcomeRetention: number
  /** Before the next attempt, ms. */
  delay: number
  retain: Retention
  /** Whether the attempt's slot of its worker becomes free. */
  releasesSlot: boolean
}
