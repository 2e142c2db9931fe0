import { useState } from 'preact/hooks'
import { reasonOf } from '../data/http.ts'
import { type Action, actOnAll, countAll, type Matching } from '../data/jobs.ts'
import { may, noticeRefusal } from '../data/session.ts'
import type { Filter } from '../router.ts'
import { FormDialog } from '../view/dialog.tsx'
import { count, counted } from '../view/format.ts'
import { ACTION_NAMES, ACTIONS, STATE_NAMES } from '../view/job-words.ts'
import { say } from '../view/notice.tsx'

const PAST: Readonly<Record<Action, string>> = { retry: 'retried', remove: 'removed', cancel: 'cancelled' }

interface AllActionsProps {
  readonly queue: string
  readonly filter: Filter
  readonly onDone: () => void
}

/** Buttons that act on all jobs that match. They are counted first. */
export function AllActions({ queue, filter, onDone }: AllActionsProps) {
  const [state, setState] = useState<'idle' | 'counting' | { action: Action; matching: Matching }>('idle')
  if (!may('admin')) return null
  const ask = async (action: Action) => {
    setState('counting')
    try {
      setState({ action, matching: await countAll(queue, action, filter) })
    } catch (error) {
      noticeRefusal(error)
      say(`They cannot be counted: ${reasonOf(error)}`, true)
      setState('idle')
    }
  }
  return (
    <p class="buttons">
      {ACTIONS[filter.state].map((action) => (
        <button key={action} type="button" disabled={state === 'counting'} onClick={() => ask(action)}>
          {ACTION_NAMES[action]} all that match…
        </button>
      ))}
      {typeof state === 'object' && (
        <Confirm {...state} queue={queue} filter={filter} onDone={onDone} onClose={() => setState('idle')} />
      )}
    </p>
  )
}

interface ConfirmProps extends AllActionsProps {
  readonly action: Action
  readonly matching: Matching
  readonly onClose: () => void
}

function Confirm({ action, matching: { matched, complete }, queue, filter, onDone, onClose }: ConfirmProps) {
  const { state, command, text } = filter
  const name = ACTION_NAMES[action]
  const run = async () => {
    const { done, failed } = await actOnAll(queue, action, filter, matched)
    say(`${counted(done, 'job')} ${PAST[action]}${failed > 0 ? `, ${count(failed)} not` : ''}`, failed > 0)
    onDone()
  }
  return (
    <FormDialog
      title={`${name} ${counted(matched, `${STATE_NAMES[state].toLowerCase()} job`)}?`}
      action={`${name} ${count(matched)}`}
      isDangerous={action !== 'retry'}
      run={run}
      onClose={onClose}
    >
      <p>
        Of the queue <Name text={queue} />
        {command && (
          <>
            , of the command <Name text={command} />
          </>
        )}
        {text && (
          <>
            , with <Name text={text} /> in the payload
          </>
        )}
        . If another number of jobs matches by then, nothing is done.
      </p>
      {!complete && <p>More jobs may match: they are left for the next time.</p>}
    </FormDialog>
  )
}

function Name({ text }: { text: string }) {
  return (
    <b>
      <bdi>{text}</bdi>
    </b>
  )
}
