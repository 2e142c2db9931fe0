import type {
  Assignment,
  QueueStore,
  Submission,
  SubmitReply,
  TakenAttempt,
  TakeRequest,
  WorkerRef,
} from '../../../src/queue/store/store.ts'

type Plain =
  | 'submitAll'
  | 'queryOutcome'
  | 'unpark'
  | 'removeWorker'
  | 'findTaken'
  | 'renew'
  | 'finish'
  | 'publishProgress'
  | 'appendLog'
  | 'readLog'
  | 'findDue'
  | 'processDue'
  | 'snapshot'
  | 'readPayload'
  | 'list'
  | 'counts'
  | 'drain'
  | 'totals'
  | 'load'
  | 'resetTotals'
  | 'countFailure'
  | 'commands'
  | 'terminate'
  | 'retry'
  | 'pause'
  | 'resume'
  | 'pausedCommands'

/** The transitions of the store, as they run at the server for one process. */
export interface QueuePort extends Pick<QueueStore, Plain> {
  readonly inbox: string
  submit(submission: Submission): Promise<SubmitReply>
  setCapacity(worker: WorkerRef, slots: number, former?: number): Promise<Assignment>
  /** `isRepeated`: the call was sent before, and may have run then. As the script does, it finds what that has taken. */
  take(request: TakeRequest, isRepeated: boolean): Promise<TakenAttempt | 'due' | undefined>
}

const NOBODY = {
  onDelivery: () => {},
  onCancelled: () => {},
  onDue: () => {},
  onCapacityRequested: () => {},
}

/** The transitions of the memory adapter. Their messages are sent by server.ts. */
export function portOf(user: QueueStore & { readonly inbox: string }): QueuePort {
  return {
    inbox: user.inbox,
    submit: (submission) =>
      new Promise((resolve, reject) => {
        user.submit(submission, 0, { onReply: resolve, onError: reject, onNotice: () => {} })
        user.unregister(submission.nonce)
      }),
    submitAll: (...args) => user.submitAll(...args),
    setCapacity: (worker, slots, former) => user.setCapacity(worker, () => slots, NOBODY, 0, former),
    take: async (request, isRepeated) => {
      const found = isRepeated ? await user.findTaken(request, 0, 0) : undefined
      const job = found && (await user.snapshot(found.id, 0))
      if (!found || !job) return user.take(request, 0)
      const { id, failures, options, payload } = job
      return { id, fence: found.fence, failures, options, payload }
    },
    findTaken: (...args) => user.findTaken(...args),
    queryOutcome: (...args) => user.queryOutcome(...args),
    unpark: (...args) => user.unpark(...args),
    removeWorker: (...args) => user.removeWorker(...args),
    renew: (...args) => user.renew(...args),
    finish: (...args) => user.finish(...args),
    publishProgress: (...args) => user.publishProgress(...args),
    appendLog: (...args) => user.appendLog(...args),
    readLog: (...args) => user.readLog(...args),
    findDue: (...args) => user.findDue(...args),
    processDue: (...args) => user.processDue(...args),
    totals: (...args) => user.totals(...args),
    load: (...args) => user.load(...args),
    resetTotals: (...args) => user.resetTotals(...args),
    countFailure: (...args) => user.countFailure(...args),
    snapshot: (...args) => user.snapshot(...args),
    readPayload: (...args) => user.readPayload(...args),
    list: (...args) => user.list(...args),
    counts: (...args) => user.counts(...args),
    drain: (...args) => user.drain(...args),
    commands: (...args) => user.commands(...args),
    terminate: (...args) => user.terminate(...args),
    retry: (...args) => user.retry(...args),
    pause: (...args) => user.pause(...args),
    resume: (...args) => user.resume(...args),
    pausedCommands: (...args) => user.pausedCommands(...args),
  }
}
