import type { Overview } from '../../gateway/overview/overview.ts'
import { addToHistory } from './history.ts'
import { Refusal } from './http.ts'
import { noticeRefusal, readSession, session } from './session.ts'
import { Signal } from './signal.ts'

/**
 * The connection to the gateway.
 *
 *   state       event                                  next state
 *   connecting  an overview arrives                    live
 *   live        the stream ends, or is silent for 5 s  lost; connects again after 1 s, later after 10 s at most
 *   lost        an overview arrives                    live
 *   live        the page has been hidden for 30 s      resting, until it is seen
 *   any         the session has ended                  idle, until somebody signs in
 */
export type Link =
  | { readonly state: 'idle' }
  | { readonly state: 'connecting' }
  | { readonly state: 'live' }
  | { readonly state: 'resting' }
  /** `since`: ms since 1970, by the clock of this computer; `reason`: what the gateway says, if it answers. */
  | { readonly state: 'lost'; readonly since: number; readonly reason: string | undefined }

export const link = new Signal<Link>({ state: 'idle' })

/** The last snapshot, which stays while the gateway is away. */
export const overview = new Signal<Overview | undefined>(undefined)

/** One snapshot comes a second; after so long without one, the gateway is away, ms. */
const SILENCE = 5_000
/** How long a page is hidden before it rests, ms. */
const HIDDEN = 30_000
const FIRST_RETRY = 1_000
const LAST_RETRY = 10_000

let source: EventSource | undefined
let silence: ReturnType<typeof setTimeout> | undefined
let retry: ReturnType<typeof setTimeout> | undefined
let hidden: ReturnType<typeof setTimeout> | undefined
let wait = FIRST_RETRY
let lastHeard = Date.now()

/** Follows the gateway for as long as the page is open. */
export function follow(): void {
  session.subscribe(() => {
    if (session.value && session.value.scopes.length > 0) {
      if (link.value.state === 'idle') open()
    } else {
      stop()
      overview.value = undefined
      link.value = { state: 'idle' }
    }
  })
  window.addEventListener('online', retryNow)
  document.addEventListener('visibilitychange', () => {
    clearTimeout(hidden)
    if (document.hidden) hidden = setTimeout(rest, HIDDEN)
    else if (link.value.state === 'resting') open()
    else retryNow()
  })
  begin()
}

/** Leaves the connection to others: a browser has six for all pages of a host. */
function rest(): void {
  if (link.value.state !== 'live' && link.value.state !== 'connecting') return
  stop()
  link.value = { state: 'resting' }
}

/** Tries again at once, if the gateway is away. */
export function retryNow(): void {
  if (link.value.state !== 'lost') return
  clearTimeout(retry)
  wait = FIRST_RETRY
  begin()
}

/** Asks who we are, which also tells why a stream would be refused. */
function begin(): void {
  readSession()
    .then(() => {
      if (link.value.state === 'lost' && session.value && session.value.scopes.length > 0) open()
    })
    .catch((error: unknown) => {
      noticeRefusal(error)
      lose(error instanceof Refusal ? error.message : undefined)
    })
}

function open(): void {
  stop()
  if (link.value.state === 'idle' || link.value.state === 'resting') link.value = { state: 'connecting' }
  lastHeard = Date.now()
  source = new EventSource('overview/events')
  source.onmessage = ({ data }: MessageEvent) => hear(JSON.parse(data as string) as Overview)
  source.onerror = () => lose(undefined)
  listen()
}

function hear(snapshot: Overview): void {
  lastHeard = Date.now()
  wait = FIRST_RETRY
  addToHistory(snapshot)
  if (link.value.state !== 'live') link.value = { state: 'live' }
  overview.value = snapshot
  listen()
}

function listen(): void {
  clearTimeout(silence)
  silence = setTimeout(() => lose(undefined), SILENCE)
}

function lose(reason: string | undefined): void {
  stop()
  const since = link.value.state === 'lost' ? link.value.since : lastHeard
  link.value = { state: 'lost', since, reason }
  retry = setTimeout(begin, wait)
  wait = Math.min(2 * wait, LAST_RETRY)
}

function stop(): void {
  source?.close()
  source = undefined
  clearTimeout(silence)
  clearTimeout(retry)
}
