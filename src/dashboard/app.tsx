import { useEffect, useRef } from 'preact/hooks'
import { overview } from './data/live.ts'
import { session } from './data/session.ts'
import { useSignal } from './data/signal.ts'
import { route } from './navigation.ts'
import { JobPage } from './pages/job.tsx'
import { KeysPage } from './pages/keys.tsx'
import { QueuePage } from './pages/queue.tsx'
import { QueuesPage } from './pages/queues.tsx'
import { ServicesPage } from './pages/services.tsx'
import { SignIn } from './pages/sign-in.tsx'
import { WorkersPage } from './pages/workers.tsx'
import type { Route } from './router.ts'
import { Header } from './shell/header.tsx'
import { LinkBanner } from './shell/link-banner.tsx'
import { Notice } from './view/notice.tsx'

export function App() {
  const who = useSignal(session)
  const shown = useSignal(route)
  const isSignedOut = who?.tokens === true && who.scopes.length === 0
  const wasSignedOut = useRef(isSignedOut)
  useEffect(() => {
    // The form that had the focus has gone, or has come.
    if (wasSignedOut.current !== isSignedOut) document.getElementById('main')?.focus()
    wasSignedOut.current = isSignedOut
  }, [isSignedOut])
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to content
      </a>
      <Header session={who} route={shown} />
      <LinkBanner />
      <main id="main" tabIndex={-1}>
        {isSignedOut ? <SignIn /> : <Page route={shown} />}
      </main>
      <Notice />
    </>
  )
}

/** The fragment names the page, so it cannot name the place of the content. */
function skip(event: MouseEvent): void {
  event.preventDefault()
  document.getElementById('main')?.focus()
}

function Page({ route }: { route: Route }) {
  const snapshot = useSignal(overview)
  const key = route.page === 'queue' || route.page === 'job' ? `${route.page} ${route.queue}` : route.page
  useFocusOfPage(key)
  useMark(snapshot !== undefined)
  if (!snapshot) return <p class="empty">Waiting for the gateway…</p>
  switch (route.page) {
    case 'queues':
      return <QueuesPage overview={snapshot} />
    case 'queue':
      return <QueuePage key={route.queue} overview={snapshot} queue={route.queue} filter={route.filter} />
    case 'job':
      return (
        <JobPage key={`${route.queue} ${route.id}`} overview={snapshot} queue={route.queue} id={route.id} />
      )
    case 'keys':
      return <KeysPage overview={snapshot} />
    case 'workers':
      return <WorkersPage overview={snapshot} />
    case 'services':
      return <ServicesPage overview={snapshot} />
    case 'unknown':
      return (
        <>
          <h1>No such page</h1>
          <p>
            <a href="#/">All queues</a>
          </p>
        </>
      )
  }
}

/** A new page begins at its heading: for the keyboard, for a screen reader, and in the title. */
function useFocusOfPage(key: string): void {
  const before = useRef(key)
  useEffect(() => {
    const heading = document.querySelector('h1')
    document.title = heading ? `${heading.textContent} – soloflight` : 'soloflight'
    if (before.current === key) return
    before.current = key
    window.scrollTo(0, 0)
    document.getElementById('main')?.focus({ preventScroll: true })
  })
}

/** For the tests: when the page had its first data. */
function useMark(isReady: boolean): void {
  useEffect(() => {
    if (isReady && performance.getEntriesByName('interactive').length === 0) performance.mark('interactive')
  }, [isReady])
}
