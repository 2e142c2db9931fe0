import type { CommandView, Overview, QueueView } from '../../gateway/overview/overview.ts'
import { rateLines, ratesOf } from '../data/history.ts'
import { may } from '../data/session.ts'
import { hrefOf, NO_FILTER } from '../router.ts'
import { Chart, type Line } from '../view/chart.tsx'
import { count, counted, duration, rate } from '../view/format.ts'
import { type Column, Table } from '../view/table.tsx'
import { Why } from '../view/why.tsx'
import { PostButton } from './post-job.tsx'

/** Queues whose rates are drawn: each takes a canvas. */
const MOST_CHARTS = 60

export const RATE_LINES: readonly Line[] = [
  { label: 'submitted', color: '--quiet', isDashed: true },
  { label: 'completed', color: '--accent', isFilled: true },
  { label: 'failed', color: '--danger' },
]

export function QueuesPage({ overview }: { overview: Overview }) {
  const { queues, queueCount } = overview
  const sum = (name: 'waiting' | 'running' | 'delayed' | 'failed') =>
    queues.reduce((total, queue) => total + queue[name], 0)
  const completed = queues.reduce((total, { name }) => total + ratesOf(name).completed, 0)
  const charted = new Set(queues.slice(0, MOST_CHARTS).map(({ name }) => name))
  return (
    <>
      <div class="title">
        <h1>Queues</h1>
        {may('submit') && <PostButton queue={undefined} />}
      </div>
      <Facts
        facts={[
          ['Waiting', count(sum('waiting'))],
          ['Running', count(sum('running'))],
          ['Delayed', count(sum('delayed'))],
          ['Failed', count(sum('failed')), sum('failed') > 0],
          ['Completed', rate(completed)],
        ]}
      />
      <section class="card flush" aria-label="All queues">
        <Table
          caption="Queues by name"
          columns={columnsOf(charted)}
          rows={[...queues].sort(byName)}
          keyOf={({ name }) => name}
          empty="No queue has been used yet. The first job that is posted makes one."
        />
      </section>
      {queueCount > queues.length && (
        <p class="hint">{counted(queueCount, 'queue')} in all; those that were used last are shown.</p>
      )}
      {!overview.complete && <Incomplete />}
    </>
  )
}

/** Not by their last use: the rows would change places each second. */
function byName(one: QueueView, other: QueueView): number {
  return one.name < other.name ? -1 : 1
}

function columnsOf(charted: ReadonlySet<string>): readonly Column<QueueView>[] {
  return [
    { head: 'Queue', cell: (queue) => <QueueName queue={queue} />, size: 'wide' },
    {
      head: 'Rate',
      cell: ({ name }) => <QueueRate name={name} isCharted={charted.has(name)} />,
      size: 'rate',
    },
    { head: 'Waiting', cell: ({ waiting }) => count(waiting), numeric: true },
    { head: 'Running', cell: ({ running }) => count(running), numeric: true },
    { head: 'Delayed', cell: ({ delayed }) => count(delayed), numeric: true },
    {
      head: 'Failed',
      cell: ({ failed }) => <span class={failed > 0 ? 'danger-text' : ''}>{count(failed)}</span>,
      numeric: true,
    },
    {
      head: 'Oldest',
      cell: ({ oldest }) => (oldest === null ? '–' : duration(oldest)),
      numeric: true,
      size: 'age',
    },
  ]
}

/** Commands that are told of beside the name of their queue. */
const MOST_COMMANDS = 4

function QueueName({ queue }: { queue: QueueView }) {
  const { name, paused, why, commands } = queue
  return (
    <>
      <span class="name">
        <a href={hrefOf({ page: 'queue', queue: name, filter: NO_FILTER })}>
          <bdi>{name}</bdi>
        </a>
        {paused && <span class="badge">paused</span>}
      </span>
      <Why text={why ?? 'No job waits.'} />
      {commands.length > 1 && (
        <ul class="commands" aria-label="Commands">
          {commands.slice(0, MOST_COMMANDS).map((each) => (
            <li key={each.command}>
              <bdi>{each.command}</bdi> {stateOf(each)}
            </li>
          ))}
          {commands.length > MOST_COMMANDS && <li>and {commands.length - MOST_COMMANDS} more</li>}
        </ul>
      )}
    </>
  )
}

function stateOf({ waiting, running, paused, capacity }: CommandView): string {
  const parts = [`${count(waiting)} waiting`]
  if (running !== null) parts.push(`${count(running)} running`)
  if (paused) parts.push('paused')
  else if (capacity === 0) parts.push('no worker')
  return parts.join(', ')
}

function QueueRate({ name, isCharted }: { name: string; isCharted: boolean }) {
  const { submitted, completed, failed } = ratesOf(name)
  const label = `${rate(completed)} completed, ${rate(submitted)} submitted, ${rate(failed)} failed`
  return (
    <span class="rate-cell" title={label}>
      {isCharted && <Chart lines={RATE_LINES} data={rateLines(name)} label={label} height={30} isSmall />}
      <span class="text">{rate(completed)}</span>
    </span>
  )
}

/** Figures side by side. */
export function Facts({
  facts,
}: {
  facts: readonly (readonly [name: string, value: string, isBad?: boolean])[]
}) {
  return (
    <dl class="facts">
      {facts.map(([name, value, isBad]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class={isBad ? 'danger-text' : ''}>{value}</dd>
        </div>
      ))}
    </dl>
  )
}

export function Incomplete() {
  return <p class="hint">A process did not answer in time, or there is more than is shown.</p>
}
