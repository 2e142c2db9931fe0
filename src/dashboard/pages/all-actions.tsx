import { useState } from 'preact/hooks'
import type { QueueView } from '../../gateway/overview/overview.ts'
import type { JobListState } from '../data/job-list.ts'
import { type Action, actOnAll } from '../data/jobs.ts'
import { may } from '../data/session.ts'
import type { Filter, State } from '../router.ts'
import { FormDialog } from '../view/dialog.tsx'
import { count, counted } from '../view/format.ts'
import { say } from '../view/notice.tsx'
import { countOf, STATE_NAMES } from './jobs.tsx'

/** What can be done with the jobs of a state. */
const ACTIONS: Readonly<Record<State, readonly Action[]>> = {
  waiting: ['cancel', 'remove'],
  delayed: ['cancel', 'remove'],
  active: ['cancel'],
  failed: ['retry', 'remove'],
  completed: ['remove'],
}

export const ACTION_NAMES: Readonly<Record<Action, string>> = { retry: 'Retry', remove: 'Remove', cancel: 'Cancel' }
const PAST: Readonly<Record<Action, string>> = { retry: 'retried', remove: 'removed', cancel: 'cancelled' }

interface AllActionsProps {
  readonly queue: QueueView
  readonly filter: Filter
  readonly list: JobListState
  /** Looks at all jobs, so that it is known how many match. */
  readonly onSearch: () => void
  readonly onDone: () => void
}

/** Buttons that act on all jobs that match, of which there are as many as they say. */
export function AllActions({ queue, filter, list, onSearch, onDone }: AllActionsProps) {
  const [asked, setAsked] = useState<{ action: Action; matching: number } | undefined>(undefined)
  if (!may('admin')) return null
  const matching = matchingOf(queue, filter, list)
  if (matching === 0) return null
  if (matching === undefined)
    return (
      <p class="buttons">
        <button type="button" disabled={list.status === 'reading'} onClick={onSearch}>
          Count all that match
        </button>
      </p>
    )
  return (
    <p class="buttons">
      {ACTIONS[filter.state].map((action) => (
        <button key={action} type="button" onClick={() => setAsked({ action, matching })}>
          {ACTION_NAMES[action]} all {count(matching)}
        </button>
      ))}
      {asked && (
        <Confirm {...asked} queue={queue.name} filter={filter} onDone={onDone} onClose={() => setAsked(undefined)} />
      )}
    </p>
  )
}

/** How many jobs match; undefined if that is not known yet. */
function matchingOf(queue: QueueView, { state, command, text }: Filter, list: JobListState): number | undefined {
  if (list.cursor === undefined && list.status === 'resting') return list.jobs.length
  if (text !== '' || state === 'completed') return undefined
  if (command === '') return countOf(queue, state)
  const view = queue.commands.find((each) => each.command === command)
  return view && countOf(view, state)
}

interface ConfirmProps {
  readonly action: Action
  readonly matching: number
  readonly queue: string
  readonly filter: Filter
  readonly onDone: () => void
  readonly onClose: () => void
}

function Confirm({ action, matching, queue, filter, onDone, onClose }: ConfirmProps) {
  const { state, command, text } = filter
  const jobs = counted(matching, `${STATE_NAMES[state].toLowerCase()} job`)
  const run = async () => {
    const { done, failed } = await actOnAll(queue, action, filter, matching)
    say(`${counted(done, 'job')} ${PAST[action]}${failed > 0 ? `, ${count(failed)} not` : ''}`, failed > 0)
    onDone()
  }
  return (
    <FormDialog
      title={`${ACTION_NAMES[action]} ${jobs}?`}
      action={`${ACTION_NAMES[action]} ${count(matching)}`}
      isDangerous={action !== 'retry'}
      run={run}
      onClose={onClose}
    >
      <p>
        Of the queue <b><bdi>{queue}</bdi></b>
        {command && (
          <>
            , of the command <b><bdi>{command}</bdi></b>
          </>
        )}
        {text && (
          <>
            , with <b><bdi>{text}</bdi></b> in the payload
          </>
        )}
        . If there are more or fewer by then, nothing is done.
      </p>
    </FormDialog>
  )
}
