import { useState } from 'preact/hooks'
import { reasonOf } from '../data/http.ts'
import { type Link, link } from '../data/live.ts'
import { type Session, signOut } from '../data/session.ts'
import { useSignal } from '../data/signal.ts'
import type { Route } from '../router.ts'
import { say } from '../view/notice.tsx'
import { FindJob } from './find-job.tsx'

const PAGES: readonly {
  readonly href: string
  readonly name: string
  readonly pages: readonly Route['page'][]
}[] = [
  { href: '#/', name: 'Queues', pages: ['queues', 'queue', 'job'] },
  { href: '#/keys', name: 'Keys', pages: ['keys'] },
  { href: '#/workers', name: 'Workers', pages: ['workers'] },
  { href: '#/services', name: 'Services', pages: ['services'] },
]

export function Header({ session, route }: { session: Session | undefined; route: Route }) {
  const isSignedIn = session !== undefined && session.scopes.length > 0
  return (
    <header>
      <a class="brand" href="#/">
        <Mark />
        soloflight
      </a>
      {isSignedIn && (
        <>
          <nav aria-label="Pages">
            {PAGES.map(({ href, name, pages }) => (
              <a key={name} href={href} aria-current={pages.includes(route.page) ? 'page' : undefined}>
                {name}
              </a>
            ))}
          </nav>
          <FindJob route={route} />
          <LinkState />
          {session.tokens && <SignOut name={session.name} />}
        </>
      )}
    </header>
  )
}

function Mark() {
  return (
    <svg viewBox="0 0 32 32" width="20" height="20" aria-hidden="true">
      <circle cx="16" cy="16" r="12" class="ring" />
      <circle cx="16" cy="16" r="5" class="core" />
    </svg>
  )
}

const STATES: Readonly<Record<Link['state'], string>> = {
  idle: 'Not connected',
  connecting: 'Connecting',
  live: 'Live',
  resting: 'Resting',
  lost: 'Not connected',
}

function LinkState() {
  const { state } = useSignal(link)
  return (
    <span class={`link-state ${state}`}>
      <span class="dot" aria-hidden="true" />
      {STATES[state]}
    </span>
  )
}

function SignOut({ name }: { name: string | undefined }) {
  const [isLeaving, setLeaving] = useState(false)
  const leave = () => {
    setLeaving(true)
    signOut()
      .catch((error: unknown) => say(`Not signed out: ${reasonOf(error)}`, true))
      .finally(() => setLeaving(false))
  }
  return (
    <button type="button" class="plain" disabled={isLeaving} onClick={leave}>
      Sign out{name !== undefined && <bdi> {name}</bdi>}
    </button>
  )
}
