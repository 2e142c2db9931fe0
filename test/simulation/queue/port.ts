import type { QueueStore, Submission, SubmitReply, WorkerName } from '../../../src/queue/store/store.ts'

type Plain =
  | 'look'
  | 'unpark'
  | 'withdraw'
  | 'renew'
  | 'finish'
  | 'progress'
  | 'log'
  | 'logs'
  | 'due'
  | 'tick'
  | 'snapshot'
  | 'payload'
  | 'list'
  | 'counts'
  | 'drain'
  | 'commands'
  | 'end'
  | 'retry'
  | 'pause'
  | 'resume'
  | 'paused'

/** The transitions of the store, as they run at the server for one of its users. */
export interface QueuePort extends Pick<QueueStore, Plain> {
  readonly inbox: string
  submit(submission: Submission): Promise<SubmitReply>
  offer(worker: WorkerName, places: number): Promise<void>
}

const NOBODY = { deliver: () => {}, cancelled: () => {}, due: () => {}, forgotten: () => {} }

/** The memory adapter's transitions. What they tell goes another way, see server.ts. */
export function portOf(user: QueueStore & { readonly inbox: string }): QueuePort {
  return {
    inbox: user.inbox,
    submit: (submission) =>
      new Promise((resolve, reject) => {
        user.submit(submission, 0, { answered: resolve, failed: reject, notice: () => {} })
        user.ignore(submission.nonce)
      }),
    offer: (worker, places) => user.offer(worker, places, NOBODY, { within: 0 }),
    look: (...args) => user.look(...args),
    unpark: (...args) => user.unpark(...args),
    withdraw: (...args) => user.withdraw(...args),
    renew: (...args) => user.renew(...args),
    finish: (...args) => user.finish(...args),
    progress: (...args) => user.progress(...args),
    log: (...args) => user.log(...args),
    logs: (...args) => user.logs(...args),
    due: (...args) => user.due(...args),
    tick: (...args) => user.tick(...args),
    snapshot: (...args) => user.snapshot(...args),
    payload: (...args) => user.payload(...args),
    list: (...args) => user.list(...args),
    counts: (...args) => user.counts(...args),
    drain: (...args) => user.drain(...args),
    commands: (...args) => user.commands(...args),
    end: (...args) => user.end(...args),
    retry: (...args) => user.retry(...args),
    pause: (...args) => user.pause(...args),
    resume: (...args) => user.resume(...args),
    paused: (...args) => user.paused(...args),
  }
}
