import { useEffect, useState } from 'preact/hooks'
import type { Overview } from '../../gateway/overview/overview.ts'
import { Refusal, reasonOf } from '../data/http.ts'
import {
  type Action,
  actOnJob,
  type Runner,
  readJob,
  readLog,
  type WholeJob,
  watchJob,
} from '../data/jobs.ts'
import { link } from '../data/live.ts'
import { may, noticeRefusal } from '../data/session.ts'
import { useSignal } from '../data/signal.ts'
import { go } from '../navigation.ts'
import { hrefOf, NO_FILTER } from '../router.ts'
import { FormDialog } from '../view/dialog.tsx'
import { count, counted, duration, timeAt } from '../view/format.ts'
import { ACTION_NAMES, ACTIONS, STATE_NAMES } from '../view/job-words.ts'
import { JsonBlock } from '../view/json-block.tsx'
import { say } from '../view/notice.tsx'
import { Progress } from '../view/progress.tsx'
import { Why } from '../view/why.tsx'
import { Facts } from './queues.tsx'

interface JobState {
  readonly job: WholeJob | undefined
  readonly failure: string | undefined
}

export function JobPage({ overview, queue, id }: { overview: Overview; queue: string; id: string }) {
  const [{ job, failure }, setState] = useState<JobState>({ job: undefined, failure: undefined })
  const [log, setLog] = useState<readonly string[]>([])
  const [reads, setReads] = useState(0)
  const isOver = job !== undefined && hasFinished(job)
  const isLive = useSignal(link).state === 'live'
  const seldom = Math.floor(overview.at / 5)
  // A job that has finished changes only when somebody retries it. Of others, why they wait is told by no event.
  const tick = isOver ? seldom : Math.floor(overview.at)
  useEffect(
    () => (isLive && !isOver ? watchJob(queue, id, () => setReads((n) => n + 1)) : undefined),
    [queue, id, isLive, isOver],
  )
  // Its log is read when an event tells of it, and now and then: events are best effort.
  useEffect(() => {
    const reading = new AbortController()
    // Why it cannot be read is told of the job.
    readLog(queue, id, reading.signal).then(setLog, () => {})
    return () => reading.abort()
  }, [queue, id, seldom, reads])
  useEffect(() => {
    const reading = new AbortController()
    readJob(queue, id, reading.signal)
      .then((job) => setState({ job, failure: undefined }))
      .catch((error: unknown) => {
        if (reading.signal.aborted) return
        noticeRefusal(error)
        const isGone = error instanceof Refusal && error.status === 404
        const failure = isGone
          ? 'There is no such job, or not any more.'
          : `It cannot be read: ${reasonOf(error)}.`
        setState((before) => ({ ...before, ...(isGone && { job: undefined }), failure }))
      })
    return () => reading.abort()
  }, [queue, id, tick, reads])
  return (
    <>
      <p class="path">
        <a href="#/">Queues</a> /{' '}
        <a href={hrefOf({ page: 'queue', queue, filter: NO_FILTER })}>
          <bdi>{queue}</bdi>
        </a>
      </p>
      <div class="title">
        <h1>
          Job <span class="id">{id}</span>
        </h1>
        {job && (
          <span class={`badge ${job.state}`}>
            {job.state === 'removed' ? 'removed' : STATE_NAMES[job.state]}
          </span>
        )}
        {job && may('admin') && <Actions queue={queue} job={job} onDone={() => setReads((n) => n + 1)} />}
      </div>
      {failure && <p class="failure">{failure}</p>}
      {!may('admin') && (
        <p class="hint">Your token lacks the scope admin: the job cannot be cancelled, retried or removed.</p>
      )}
      {job && <JobView job={job} log={log} />}
    </>
  )
}

function hasFinished({ state }: WholeJob): boolean {
  return state === 'completed' || state === 'failed' || state === 'removed'
}

interface JobViewProps {
  readonly job: WholeJob
  readonly log: readonly string[]
}

function JobView({ job, log }: JobViewProps) {
  const { command, retries, stalls, waiters, progress, failure, result, runner, due } = job
  return (
    <>
      <Why text={job.why} />
      <Facts
        facts={[
          ['Command', command],
          ['Attempts failed', count(retries)],
          ['Workers lost', count(stalls), stalls > 0],
          ['Processes waiting', count(waiters)],
          ...(due === undefined ? [] : [['Due', timeAt(1000 * due)] as const]),
          ...(runner ? [['Runs for', duration(runner.age)] as const] : []),
        ]}
      />
      {runner && <RunnerView runner={runner} />}
      {progress !== undefined && (
        <section class="card">
          <h2>Progress</h2>
          <Progress value={progress} />
        </section>
      )}
      {failure && (
        <section class="card">
          <h2>Failure</h2>
          <p class="danger-text">
            {failure.name ?? 'Error'}
            {failure.code !== undefined && ` (${failure.code})`}: {failure.message}
          </p>
          {failure.stack && <pre tabIndex={0}>{failure.stack}</pre>}
        </section>
      )}
      {result !== undefined && <JsonBlock title="Result" text={result} />}
      <JsonBlock title="Payload" text={job.job} />
      <section class="card">
        <h2>Log</h2>
        {log.length === 0 ? (
          <p class="empty">Its workers have logged nothing.</p>
        ) : (
          <pre tabIndex={0}>{log.join('\n')}</pre>
        )}
        {log.length > 0 && <p class="hint">{counted(log.length, 'line')}</p>}
      </section>
    </>
  )
}

function RunnerView({ runner: { host, pid, worker, left } }: { runner: Runner }) {
  return (
    <section class="card">
      <h2>Worker</h2>
      <p>
        {worker !== undefined && (
          <>
            <bdi>{worker}</bdi>, by the gateway of{' '}
          </>
        )}
        <bdi>{host}</bdi>
        <span class="quiet"> pid {pid}</span>
        {left !== undefined && `, lease left: ${duration(Math.max(0, left))}`}
      </p>
    </section>
  )
}

const DONE: Readonly<Record<Action, string>> = {
  retry: 'The job runs again',
  cancel: 'The job is cancelled',
  remove: 'The job is removed',
}

function Actions({ queue, job, onDone }: { queue: string; job: WholeJob; onDone: () => void }) {
  const [asked, setAsked] = useState<Action | undefined>(undefined)
  const { id, state } = job
  const run = async (action: Action) => {
    await actOnJob(queue, id, action)
    say(DONE[action])
    if (action === 'remove') go({ page: 'queue', queue, filter: NO_FILTER })
    else onDone()
  }
  const start = (action: Action) => {
    if (action !== 'retry') return setAsked(action)
    run(action).catch((error: unknown) => {
      noticeRefusal(error)
      say(`Not done: ${reasonOf(error)}`, true)
    })
  }
  return (
    <span class="buttons">
      {(state === 'removed' ? [] : ACTIONS[state]).map((action) => (
        <button key={action} type="button" onClick={() => start(action)}>
          {ACTION_NAMES[action]}
        </button>
      ))}
      {asked && (
        <FormDialog
          title={asked === 'cancel' ? 'Cancel this job?' : 'Remove this job?'}
          action={asked === 'cancel' ? 'Cancel the job' : 'Remove the job'}
          isDangerous
          run={() => run(asked)}
          onClose={() => setAsked(undefined)}
        >
          <p>
            {asked === 'cancel'
              ? 'It fails, and all that wait for it are told so.'
              : 'Nothing is left of it, neither its payload nor its result.'}
          </p>
        </FormDialog>
      )}
    </span>
  )
}
