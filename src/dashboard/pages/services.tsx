import type { Overview, ServiceView } from '../../gateway/overview/overview.ts'
import { Load } from '../view/bar.tsx'
import { counted, duration } from '../view/format.ts'
import { type Column, Table } from '../view/table.tsx'
import { Incomplete } from './queues.tsx'

export function ServicesPage({ overview }: { overview: Overview }) {
  const { services, at, complete } = overview
  return (
    <>
      <h1>Services</h1>
      {services.length === 0 && (
        <p class="empty card">No process offers a service. Those that do are listed here, with their load.</p>
      )}
      {services.map((service) => (
        <Service key={service.name} service={service} at={at} />
      ))}
      {!complete && <Incomplete />}
    </>
  )
}

type Process = ServiceView['processes'][number]

function Service({ service, at }: { service: ServiceView; at: number }) {
  const { name, processes } = service
  const busy = processes.reduce((total, process) => total + process.busy, 0)
  const capacity = processes.reduce<number | null>(
    (total, process) => (total === null || process.capacity === null ? null : total + process.capacity),
    0,
  )
  return (
    <section class="card flush">
      <div class="title">
        <h2>
          <bdi>{name}</bdi>
        </h2>
        <span class="quiet">{counted(processes.length, 'process', 'processes')}</span>
        <Load busy={busy} capacity={capacity} label={`Load of ${name}`} />
      </div>
      <Table
        caption={`Processes of the service ${name}`}
        columns={columnsOf(at)}
        rows={processes}
        keyOf={({ process }) => process}
        empty="No process offers it any more."
      />
    </section>
  )
}

function columnsOf(at: number): readonly Column<Process>[] {
  return [
    {
      head: 'Process',
      cell: ({ host, pid, process }) => (
        <span class="name" title={process}>
          <bdi>{host}</bdi>
          <span class="quiet"> pid {pid}</span>
        </span>
      ),
      size: 'wide',
    },
    { head: 'Version', cell: ({ version }) => <bdi>{version || '–'}</bdi> },
    {
      head: 'Load',
      cell: ({ busy, capacity, host }) => <Load busy={busy} capacity={capacity} label={`Load at ${host}`} />,
      size: 'bars',
    },
    { head: 'Lease left', cell: ({ left }) => duration(Math.max(0, left)), numeric: true, minor: true },
    { head: 'Runs for', cell: ({ since }) => duration(Math.max(0, at - since)), numeric: true },
  ]
}
