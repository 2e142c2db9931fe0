import type { Overview, WorkerView } from '../../gateway/overview/overview.ts'
import { hrefOf, NO_FILTER } from '../router.ts'
import { Load } from '../view/bar.tsx'
import { counted, duration } from '../view/format.ts'
import { type Column, Table } from '../view/table.tsx'
import { Facts, Incomplete } from './queues.tsx'

export function WorkersPage({ overview }: { overview: Overview }) {
  const { workers, at, complete } = overview
  const rows = [...workers].sort(byPlace)
  const processes = new Set(rows.map(({ host, pid, id }) => (pid === null ? id : `${host} ${pid}`))).size
  const hosts = new Set(rows.flatMap(({ pid, host }) => (pid === null ? [] : host))).size
  const busy = rows.reduce((total, row) => total + row.busy, 0)
  const places = rows.reduce((total, row) => total + row.concurrency, 0)
  return (
    <>
      <h1>Workers</h1>
      <Facts
        facts={[
          ['Processes', `${processes}`],
          ['Hosts', `${hosts}`],
          ['Jobs running', `${busy}`],
          ['Jobs at once', `${places}`],
        ]}
      />
      <section class="card flush" aria-label="All workers">
        <Table
          caption="Workers: processes that take jobs of a command"
          columns={columnsOf(at)}
          rows={rows}
          keyOf={({ id, queue, command }) => JSON.stringify([id, queue, command])}
          empty="No worker is connected. Jobs wait until one is."
        />
      </section>
      {!complete && <Incomplete />}
      <p class="hint">{counted(workers.length, 'worker')}. A process has one for each command of a queue.</p>
    </>
  )
}

function byPlace(one: WorkerView, other: WorkerView): number {
  const text = ({ host, pid, id, queue, command }: WorkerView) =>
    `${host}\n${pid ?? 0}\n${id}\n${queue}\n${command}`
  return text(one) < text(other) ? -1 : 1
}

function columnsOf(at: number): readonly Column<WorkerView>[] {
  return [
    {
      head: 'Process',
      cell: ({ host, pid, id }) => (
        <span class="name" title={id}>
          <bdi>{host || id}</bdi>
          {pid !== null && <span class="quiet"> pid {pid}</span>}
        </span>
      ),
      size: 'wide',
    },
    {
      head: 'Queue',
      cell: ({ queue }) => (
        <a href={hrefOf({ page: 'queue', queue, filter: NO_FILTER })}>
          <bdi>{queue}</bdi>
        </a>
      ),
    },
    { head: 'Command', cell: ({ command }) => <bdi>{command}</bdi> },
    {
      head: 'Load',
      cell: ({ busy, concurrency, host, command }) => (
        <Load busy={busy} capacity={concurrency} label={`Load of ${command} at ${host}`} />
      ),
      size: 'bars',
    },
    { head: 'Runs for', cell: ({ since }) => duration(Math.max(0, at - since)), numeric: true },
  ]
}
