import { Script } from '../../kernel/script.ts'
import { DISPATCH } from './dispatch.ts'
import { FINISH } from './finish.ts'
import { COUNTS, JOB_SNAPSHOT, LIST, PAUSE, RESUME, RETRY } from './manage.ts'
import { prelude, QUEUE_SERVER_TIME, type QueueTime } from './prelude.ts'
import { SETTLE } from './settle.ts'
import { SUBMIT } from './submit.ts'
import { END, LOOK } from './wait.ts'
import { JOB_PROGRESS, LOG, OFFER, RENEW, TICK, WITHDRAW } from './worker.ts'

const BODIES = {
  submit: DISPATCH + SUBMIT,
  finish: DISPATCH + SETTLE + FINISH,
  offer: DISPATCH + OFFER,
  withdraw: WITHDRAW,
  renew: RENEW,
  progress: SETTLE + JOB_PROGRESS,
  log: LOG,
  tick: DISPATCH + SETTLE + TICK,
  look: LOOK,
  end: DISPATCH + SETTLE + END,
  snapshot: JOB_SNAPSHOT,
  list: LIST,
  counts: COUNTS,
  retry: DISPATCH + RETRY,
  pause: PAUSE,
  resume: DISPATCH + RESUME,
} satisfies Record<string, string>

/** The transitions of a queue, as the server runs them. */
export type QueueScripts = Record<keyof typeof BODIES, Script>

/** Puts the scripts together around a notion of time. */
export function buildQueueScripts(time: QueueTime): QueueScripts {
  const head = prelude(time)
  const entries = Object.entries(BODIES).map(([name, body]) => [name, new Script(head + body)])
  return Object.fromEntries(entries) as QueueScripts
}

/** The scripts on the server's own time. */
export const queueScripts: QueueScripts = buildQueueScripts(QUEUE_SERVER_TIME)
