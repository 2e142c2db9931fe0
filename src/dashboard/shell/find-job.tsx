import { useState } from 'preact/hooks'
import { reasonOf } from '../data/http.ts'
import { findJob } from '../data/jobs.ts'
import { overview } from '../data/live.ts'
import { noticeRefusal } from '../data/session.ts'
import { go } from '../navigation.ts'
import type { Route } from '../router.ts'
import { say } from '../view/notice.tsx'

/** Goes to the job of an id: of the queue that is shown, or else of the first queue that has it. */
export function FindJob({ route }: { route: Route }) {
  const [isSearching, setSearching] = useState(false)
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    const id = String(new FormData(form).get('id') ?? '').trim()
    if (id === '' || isSearching) return
    setSearching(true)
    try {
      const here = 'queue' in route ? [route.queue] : []
      const names = new Set([...here, ...(overview.value?.queues ?? []).map(({ name }) => name)])
      const queue = await findJob([...names], id)
      if (queue === undefined) say(`None of ${names.size} queues has a job with this id`, true)
      else {
        form.reset()
        go({ page: 'job', queue, id })
      }
    } catch (error) {
      noticeRefusal(error)
      say(`Not found: ${reasonOf(error)}`, true)
    } finally {
      setSearching(false)
    }
  }
  return (
    <form class="find" role="search" onSubmit={submit}>
      <input
        name="id"
        type="search"
        aria-label="Find a job by its id"
        placeholder="Find a job by its id"
        autocomplete="off"
        spellcheck={false}
      />
    </form>
  )
}
