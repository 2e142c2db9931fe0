export const STATES = ['waiting', 'active', 'delayed', 'failed', 'completed'] as const

/** A state of jobs, as the routes name it. */
export type State = (typeof STATES)[number]

/** Which jobs of a queue are shown. */
export interface Filter {
  readonly state: State
  readonly command: string
  /** A text that their payloads contain. */
  readonly text: string
}

/** A page, as the fragment of the URL names it. */
export type Route =
  | { readonly page: 'queues' }
  | { readonly page: 'queue'; readonly queue: string; readonly filter: Filter }
  | { readonly page: 'job'; readonly queue: string; readonly id: string }
  | { readonly page: 'keys' }
  | { readonly page: 'workers' }
  | { readonly page: 'services' }
  | { readonly page: 'unknown' }

export const NO_FILTER: Filter = { state: 'waiting', command: '', text: '' }

export function routeOf(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2)
  const [page = '', ...rest] = path.split('/')
  const names = rest.map(decoded)
  const [first, second] = names
  if (names.includes(undefined) || names.length > 2) return { page: 'unknown' }
  if (page === '' && names.length === 0) return { page: 'queues' }
  if (page === 'queues' && first && second === undefined)
    return { page: 'queue', queue: first, filter: filterOf(new URLSearchParams(query)) }
  if (page === 'jobs' && first && second) return { page: 'job', queue: first, id: second }
  if ((page === 'keys' || page === 'workers' || page === 'services') && names.length === 0) return { page }
  return { page: 'unknown' }
}

function decoded(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment)
  } catch {
    return undefined
  }
}

function filterOf(query: URLSearchParams): Filter {
  const state = STATES.find((each) => each === query.get('state')) ?? NO_FILTER.state
  return { state, command: query.get('command') ?? '', text: query.get('text') ?? '' }
}

export function hrefOf(route: Route): string {
  switch (route.page) {
    case 'queue': {
      const query = new URLSearchParams()
      const { state, command, text } = route.filter
      if (state !== NO_FILTER.state) query.set('state', state)
      if (command) query.set('command', command)
      if (text) query.set('text', text)
      const filter = query.toString()
      return `#/queues/${encodeURIComponent(route.queue)}${filter && `?${filter}`}`
    }
    case 'job':
      return `#/jobs/${encodeURIComponent(route.queue)}/${encodeURIComponent(route.id)}`
    case 'queues':
    case 'unknown':
      return '#/'
    default:
      return `#/${route.page}`
  }
}
