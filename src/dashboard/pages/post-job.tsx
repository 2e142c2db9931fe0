import { useState } from 'preact/hooks'
import { postJob } from '../data/jobs.ts'
import { go } from '../navigation.ts'
import { FormDialog } from '../view/dialog.tsx'
import { say } from '../view/notice.tsx'

/** Opens the form for a new job. `queue`: undefined if it is asked for. */
export function PostButton({ queue }: { queue: string | undefined }) {
  const [isOpen, setOpen] = useState(false)
  return (
    <>
      <button type="button" onClick={() => setOpen(true)}>
        Post a job
      </button>
      {isOpen && <PostDialog queue={queue} onClose={() => setOpen(false)} />}
    </>
  )
}

function PostDialog({ queue, onClose }: { queue: string | undefined; onClose: () => void }) {
  const run = async (form: FormData) => {
    const text = (name: string) => String(form.get(name) ?? '').trim()
    const body = text('job')
    const name = queue ?? text('queue')
    assertJson(body)
    const params = {
      command: text('command') || undefined,
      delay: text('delay') || undefined,
      priority: text('priority') || undefined,
      attempts: text('attempts') || undefined,
    }
    const id = await postJob(name, { body, params })
    say(`Job ${id} is posted`)
    go({ page: 'job', queue: name, id })
  }
  return (
    <FormDialog
      title={queue === undefined ? 'Post a job' : `Post a job to ${queue}`}
      action="Post"
      run={run}
      onClose={onClose}
    >
      {queue === undefined && (
        <label>
          Queue
          <input name="queue" required maxLength={256} autocomplete="off" spellcheck={false} />
        </label>
      )}
      <label>
        Job, as JSON
        <textarea name="job" required rows={6} spellcheck={false} placeholder={'{ "to": "you" }'} />
      </label>
      <div class="columns">
        <label>
          Command
          <input name="command" placeholder="job" maxLength={256} autocomplete="off" spellcheck={false} />
        </label>
        <label>
          Delay
          <input name="delay" placeholder="0, or 30s, 5m" autocomplete="off" />
        </label>
        <label>
          Priority
          <input name="priority" inputMode="numeric" placeholder="0" autocomplete="off" />
        </label>
        <label>
          Attempts
          <input name="attempts" inputMode="numeric" placeholder="1" autocomplete="off" />
        </label>
      </div>
    </FormDialog>
  )
}

function assertJson(text: string): void {
  try {
    JSON.parse(text)
  } catch (error) {
    throw new Error(`This is not JSON: ${(error as Error).message}`)
  }
}
