import { Script } from '../../../../kernel/redis/script.ts'
import { DISPATCH } from './dispatch.ts'
import { FINISH } from './finish.ts'
import { COUNTS, DRAIN, JOB_SNAPSHOT, LIST, PAUSE, READ, RESUME, RETRY } from './manage.ts'
import { prelude, QUEUE_SERVER_TIME, type QueueTime } from './prelude.ts'
import { SETTLE } from './settle.ts'
import { SUBMIT } from './submit.ts'
import { END, LOOK } from './wait.ts'
import { JOB_PROGRESS, LOG, OFFER, RENEW, TICK, WITHDRAW } from './worker.ts'

/** The transitions of a queue, as the server runs them. */
export interface QueueScripts {
  submit: Script
  finish: Script
  offer: Script
  withdraw: Script
  renew: Script
  progress: Script
  log: Script
  tick: Script
  look: Script
  end: Script
  snapshot: Script
  list: Script
  counts: Script
  drain: Script
  read: Script
  retry: Script
  pause: Script
  resume: Script
}

/** Puts the scripts together around a notion of time. */
export function buildQueueScripts(time: QueueTime): QueueScripts {
  const head = prelude(time)
  const build = (...parts: string[]) => new Script(head + parts.join(''))
  return {
    submit: build(DISPATCH, SUBMIT),
    finish: build(DISPATCH, SETTLE, FINISH),
    offer: build(DISPATCH, OFFER),
    withdraw: build(WITHDRAW),
    renew: build(RENEW),
    progress: build(SETTLE, JOB_PROGRESS),
    log: build(LOG),
    tick: build(DISPATCH, SETTLE, TICK),
    look: build(LOOK),
    end: build(DISPATCH, SETTLE, END),
    snapshot: build(JOB_SNAPSHOT),
    list: build(LIST),
    counts: build(COUNTS),
    drain: build(DISPATCH, SETTLE, DRAIN),
    read: new Script(READ),
    retry: build(DISPATCH, RETRY),
    pause: build(PAUSE),
    resume: build(DISPATCH, RESUME),
  }
}

/** The scripts on the server's own time. */
export const queueScripts: QueueScripts = buildQueueScripts(QUEUE_SERVER_TIME)
