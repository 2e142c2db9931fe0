import { Script } from '../../../../kernel/redis/call.ts'
import { CREATE } from './create.ts'
import { DISPATCH } from './dispatch.ts'
import { FINISH } from './finish.ts'
import {
  COUNT_FAILURE,
  COUNTS,
  DRAIN,
  LIST,
  LOAD,
  PAUSE,
  READ,
  RESET_TOTALS,
  RESUME,
  RETRY,
  SNAPSHOT,
} from './manage.ts'
import { QUERY_OUTCOMES, SETTLE, TERMINATE } from './outcome.ts'
import { prelude, type QueueClock, SERVER_QUEUE_CLOCK } from './prelude.ts'
import { SUBMIT } from './submit.ts'
import { SUBMIT_ALL } from './submit-all.ts'
import { FIND_TAKEN, TAKE } from './take.ts'
import { APPEND_LOG, PROCESS_DUE, PUBLISH_PROGRESS, REMOVE_WORKER, RENEW, SET_CAPACITY } from './worker.ts'

/** The transitions of a queue, as the server runs them. */
export interface QueueScripts {
  submit: Script
  submitAll: Script
  finish: Script
  setCapacity: Script
  removeWorker: Script
  take: Script
  findTaken: Script
  renew: Script
  publishProgress: Script
  appendLog: Script
  processDue: Script
  queryOutcomes: Script
  terminate: Script
  snapshot: Script
  list: Script
  counts: Script
  load: Script
  drain: Script
  read: Script
  resetTotals: Script
  countFailure: Script
  retry: Script
  pause: Script
  resume: Script
}

/** Builds the scripts, with the given source of time. */
export function buildQueueScripts(time: QueueClock): QueueScripts {
  const head = prelude(time)
  const build = (...parts: string[]) => new Script(head + parts.join(''))
  return {
    submit: build(DISPATCH, CREATE, SUBMIT),
    submitAll: build(DISPATCH, CREATE, SUBMIT_ALL),
    finish: build(DISPATCH, SETTLE, FINISH),
    setCapacity: build(DISPATCH, SET_CAPACITY),
    removeWorker: build(REMOVE_WORKER),
    take: build(DISPATCH, TAKE),
    findTaken: build(FIND_TAKEN),
    renew: build(RENEW),
    publishProgress: build(SETTLE, PUBLISH_PROGRESS),
    appendLog: build(APPEND_LOG),
    processDue: build(DISPATCH, SETTLE, PROCESS_DUE),
    queryOutcomes: build(QUERY_OUTCOMES),
    terminate: build(DISPATCH, SETTLE, TERMINATE),
    snapshot: build(SNAPSHOT),
    list: build(LIST),
    counts: build(COUNTS),
    load: build(LOAD),
    drain: build(DISPATCH, SETTLE, DRAIN),
    read: new Script(READ),
    resetTotals: new Script(RESET_TOTALS),
    countFailure: new Script(COUNT_FAILURE),
    retry: build(DISPATCH, RETRY),
    pause: build(PAUSE),
    resume: build(DISPATCH, RESUME),
  }
}

/** The scripts on the server's time. */
export const queueScripts: QueueScripts = buildQueueScripts(SERVER_QUEUE_CLOCK)
