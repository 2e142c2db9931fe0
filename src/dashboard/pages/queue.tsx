import { useState } from 'preact/hooks'
import type { CommandView, Overview, QueueView } from '../../gateway/overview/overview.ts'
import { countLines, rateLines, ratesOf } from '../data/history.ts'
import { reasonOf } from '../data/http.ts'
import { setPaused } from '../data/jobs.ts'
import { may, noticeRefusal } from '../data/session.ts'
import type { Filter } from '../router.ts'
import { Chart, Legend, type Line } from '../view/chart.tsx'
import { count, duration, rate } from '../view/format.ts'
import { say } from '../view/notice.tsx'
import { type Column, Table } from '../view/table.tsx'
import { Why } from '../view/why.tsx'
import { Jobs } from './jobs.tsx'
import { PostButton } from './post-job.tsx'
import { Facts, RATE_LINES } from './queues.tsx'

const COUNT_LINES: readonly Line[] = [
  { label: 'waiting', color: '--accent', isFilled: true },
  { label: 'running', color: '--quiet' },
  { label: 'delayed', color: '--quiet', isDashed: true },
]

/** What is shown of a queue of which the snapshot does not tell: it may still have jobs. */
const UNKNOWN: Omit<QueueView, 'name'> = {
  ...{ waiting: 0, delayed: 0, running: 0, failed: 0, paused: false, oldest: null, commands: [], why: null },
  ...{ totals: { submitted: 0, completed: 0, failed: 0 }, commandsComplete: true },
}

export function QueuePage({
  overview,
  queue: name,
  filter,
}: {
  overview: Overview
  queue: string
  filter: Filter
}) {
  const known = overview.queues.find((each) => each.name === name)
  const queue = known ?? { name, ...UNKNOWN }
  const { completed, submitted, failed } = ratesOf(name)
  return (
    <>
      <p class="path">
        <a href="#/">Queues</a>
      </p>
      <div class="title">
        <h1>
          <bdi>{name}</bdi>
        </h1>
        {queue.paused && <span class="badge">paused</span>}
        <span class="buttons">
          {may('submit') && <PostButton queue={name} />}
          {may('admin') && <PauseButton queue={queue} />}
        </span>
      </div>
      <Why
        text={known ? (queue.why ?? 'No job waits.') : 'This queue is not among those that were used last.'}
      />
      {!may('admin') && (
        <p class="hint">Your token lacks the scope admin: nothing can be paused, retried or removed.</p>
      )}
      <Facts
        facts={[
          ['Waiting', count(queue.waiting)],
          ['Running', count(queue.running)],
          ['Delayed', count(queue.delayed)],
          ['Failed', count(queue.failed), queue.failed > 0],
          ['Oldest', queue.oldest === null ? '–' : duration(queue.oldest)],
          ['Completed', rate(completed)],
        ]}
      />
      <div class="charts">
        <figure class="card">
          <figcaption>
            <h2>Jobs per second</h2>
            <Legend lines={RATE_LINES} />
          </figcaption>
          <Chart
            lines={RATE_LINES}
            data={rateLines(name)}
            label={`${rate(submitted)} submitted, ${rate(completed)} completed, ${rate(failed)} failed`}
            height={160}
          />
        </figure>
        <figure class="card">
          <figcaption>
            <h2>Jobs</h2>
            <Legend lines={COUNT_LINES} />
          </figcaption>
          <Chart
            lines={COUNT_LINES}
            data={countLines(name)}
            label={`${queue.waiting} waiting, ${queue.running} running, ${queue.delayed} delayed`}
            height={160}
          />
        </figure>
      </div>
      {queue.commands.length > 0 && (
        <section class="card flush">
          <h2>Commands</h2>
          <Table
            caption={`Commands of ${name}`}
            columns={COMMAND_COLUMNS}
            rows={queue.commands}
            keyOf={({ command }) => command}
            empty=""
          />
        </section>
      )}
      {!queue.commandsComplete && (
        <p class="hint">
          Not all jobs are counted by command: only 100 commands, and of the jobs that are delayed, run or
          have failed only up to 1,000 each.
        </p>
      )}
      <Jobs queue={queue} filter={filter} store={overview.store} />
    </>
  )
}

/** A number that is left out: there are too many to count. */
function countOrNone(value: number | null): string {
  return value === null ? '–' : count(value)
}

const COMMAND_COLUMNS: readonly Column<CommandView>[] = [
  {
    head: 'Command',
    cell: ({ command, paused }) => (
      <span class="name">
        <bdi>{command}</bdi>
        {paused && <span class="badge">paused</span>}
      </span>
    ),
    size: 'wide',
  },
  { head: 'Waiting', cell: ({ waiting }) => count(waiting), numeric: true },
  { head: 'Running', cell: ({ running }) => countOrNone(running), numeric: true },
  { head: 'Delayed', cell: ({ delayed }) => countOrNone(delayed), numeric: true },
  { head: 'Failed', cell: ({ failed }) => countOrNone(failed), numeric: true },
  {
    head: 'Runs at once',
    cell: ({ capacity }) => (capacity === 0 ? <span class="danger-text">no worker</span> : count(capacity)),
    numeric: true,
  },
]

function PauseButton({ queue: { name, paused } }: { queue: QueueView }) {
  const [isRunning, setRunning] = useState(false)
  const toggle = () => {
    setRunning(true)
    setPaused(name, !paused)
      .then(() => say(paused ? `${name} is resumed` : `${name} is paused: its jobs wait`))
      .catch((error: unknown) => {
        noticeRefusal(error)
        say(`Not changed: ${reasonOf(error)}`, true)
      })
      .finally(() => setRunning(false))
  }
  return (
    <button type="button" disabled={isRunning} onClick={toggle}>
      {paused ? 'Resume' : 'Pause'}
    </button>
  )
}
