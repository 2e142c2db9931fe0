import { useEffect, useMemo, useState } from 'preact/hooks'
import type { QueueView, StoreView } from '../../gateway/overview/overview.ts'
import { JobList, type JobListState } from '../data/job-list.ts'
import type { JobRow } from '../data/jobs.ts'
import { useSignal } from '../data/signal.ts'
import { go } from '../navigation.ts'
import { type Filter, hrefOf, STATES, type State } from '../router.ts'
import { count, counted, inline, timeAt } from '../view/format.ts'
import { STATE_NAMES } from '../view/job-words.ts'
import { type Column, Table } from '../view/table.tsx'
import { AllActions } from './all-actions.tsx'

/** The jobs of a queue by state, and what can be done with all that match. */
export function Jobs({ queue, filter, store }: { queue: QueueView; filter: Filter; store: StoreView }) {
  const { name } = queue
  const { state, command, text } = filter
  const list = useMemo(() => new JobList(name, { state, command, text }), [name, state, command, text])
  const shown = useSignal(list.state)
  const [isPaged, setPaged] = useState(false)
  useEffect(() => {
    setPaged(false)
    void list.refresh()
    return () => list.stop()
  }, [list])
  // It follows the queue, until somebody goes on in the list or searches.
  const { totals, waiting, running, delayed, failed } = queue
  const changes = JSON.stringify([totals, waiting, running, delayed, failed, store.since])
  // It runs when the counts have changed
  useEffect(() => {
    if (store.reachable && !isPaged && text === '' && list.state.value.status !== 'reading')
      void list.refresh()
  }, [changes])
  const goOn = () => {
    setPaged(true)
    void list.more()
  }
  return (
    <section class="card flush jobs">
      <h2>Jobs</h2>
      <nav class="tabs" aria-label="States">
        {STATES.map((each) => (
          <a
            key={each}
            href={hrefOf({ page: 'queue', queue: name, filter: { ...filter, state: each } })}
            aria-current={each === state ? 'true' : undefined}
          >
            {STATE_NAMES[each]} <CountOf queue={queue} state={each} />
          </a>
        ))}
      </nav>
      <FilterForm key={`${state} ${command} ${text}`} queue={queue} filter={filter} />
      <Searched shown={shown} filter={filter} onStop={() => list.stop()} />
      {shown.jobs.length > 0 && <AllActions queue={name} filter={filter} onDone={() => list.refresh()} />}
      <Table
        caption={`${STATE_NAMES[state]} jobs of ${name}`}
        columns={columnsOf(name, state)}
        rows={shown.jobs}
        keyOf={({ id }) => id}
        empty={shown.status === 'reading' ? 'Reading…' : emptyText(filter)}
      />
      {typeof shown.status === 'object' && (
        <p class="failure">The list cannot be read: {shown.status.failed}.</p>
      )}
      {shown.cursor !== undefined && (
        <p class="more">
          <button type="button" disabled={shown.status === 'reading' || list.isFull} onClick={goOn}>
            {text === '' ? 'Show more' : 'Search on'}
          </button>
          {list.isFull && (
            <span class="hint">The list has {shown.jobs.length} jobs: a filter finds others.</span>
          )}
        </p>
      )}
    </section>
  )
}

function CountOf({ queue, state }: { queue: QueueView; state: State }) {
  if (state === 'completed') return null
  return <span class="count">{count(queue[state === 'active' ? 'running' : state])}</span>
}

function emptyText({ state, command, text }: Filter): string {
  if (text !== '') return 'No job was found.'
  return `No job is ${STATE_NAMES[state].toLowerCase()}${command && ' of this command'}.`
}

function FilterForm({ queue, filter }: { queue: QueueView; filter: Filter }) {
  const { name, commands } = queue
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const text = String(form.get('text') ?? '')
    go({
      page: 'queue',
      queue: name,
      filter: { ...filter, text, command: String(form.get('command') ?? '') },
    })
  }
  const names = new Set([
    ...commands.map(({ command }) => command),
    ...(filter.command ? [filter.command] : []),
  ])
  return (
    <form class="filter" onSubmit={submit}>
      <label>
        <span class="unseen">Command</span>
        <select
          name="command"
          value={filter.command}
          onChange={({ currentTarget }) => currentTarget.form?.requestSubmit()}
        >
          <option value="">All commands</option>
          {[...names].map((command) => (
            <option key={command} value={command}>
              {command}
            </option>
          ))}
        </select>
      </label>
      <label class="grows">
        <span class="unseen">Text in the payload</span>
        <input
          name="text"
          type="search"
          defaultValue={filter.text}
          placeholder="Text in the payload"
          autocomplete="off"
          spellcheck={false}
        />
      </label>
      <button type="submit">Search</button>
      {(filter.text || filter.command) && (
        <a href={hrefOf({ page: 'queue', queue: name, filter: { ...filter, text: '', command: '' } })}>
          Show all
        </a>
      )}
    </form>
  )
}

/** How far a search has come. */
function Searched({ shown, filter, onStop }: { shown: JobListState; filter: Filter; onStop: () => void }) {
  if (filter.text === '') return null
  const { jobs, scanned, cursor, status } = shown
  const end = status === 'reading' ? '' : cursor === undefined ? ' All were looked at.' : ' There are more.'
  return (
    <p class="searched">
      <span>
        {counted(jobs.length, 'job')} found among {counted(scanned, 'job')}.{end}
      </span>
      {status === 'reading' && (
        <button type="button" onClick={onStop}>
          Stop
        </button>
      )}
    </p>
  )
}

function columnsOf(queue: string, state: State): readonly Column<JobRow>[] {
  return [
    {
      head: 'Id',
      cell: ({ id }) => (
        <a class="id" href={hrefOf({ page: 'job', queue, id })} title={id}>
          {id}
        </a>
      ),
      size: 'id-column',
    },
    { head: 'Command', cell: ({ command }) => <bdi>{command}</bdi>, size: 'command-column' },
    { head: 'Payload', cell: (row) => <Payload row={row} /> },
    state === 'failed'
      ? {
          head: 'Failure',
          cell: ({ failure }) => <span class="preview">{failure?.message ?? failure?.name ?? ''}</span>,
        }
      : state === 'delayed'
        ? { head: 'Due', cell: ({ due }) => (due === undefined ? '–' : timeAt(1000 * due)) }
        : { head: 'Waiters', cell: ({ waiters }) => count(waiters), numeric: true },
    { head: 'Tried', cell: ({ retries, stalls }) => count(retries + stalls), numeric: true },
  ]
}

function Payload({ row: { job, length } }: { row: JobRow }) {
  if (length !== undefined) return <span class="quiet">{count(length)} characters</span>
  return <code class="preview">{inline(job)}</code>
}
