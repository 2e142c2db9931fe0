import type { JobStatus, RedisQueue } from '../../queue/index.ts'
import { noteAction } from '../clients/audit.ts'
import type { GatewayDeps } from '../deps.ts'
import { inSeconds } from '../duration.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, jsonAnswer } from '../http/answer.ts'
import { objectText, textOf } from '../http/json.ts'
import { queueName } from '../http/names.ts'
import { count, flag, name, type ParameterValues, text, word } from '../http/parameters.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from '../routes/route.ts'
import { type ScanBounds, type ScanPosition, type SearchedState, STATES, scanJobs } from './job-scan.ts'

/** Jobs of one page. */
const MAX_PAGE = 100
const DEFAULT_PAGE = 20

/** One search reads so much at most, and says how many jobs it has read. */
const SEARCH: Omit<ScanBounds, 'found'> = { scanned: 1_000, length: 16 * 1024 * 1024 }

/** One action changes so many jobs at most, and reads so much for that. */
const ACT: ScanBounds = { found: 1_000, scanned: 10_000, length: 64 * 1024 * 1024 }

/** Jobs that are changed at once. */
const AT_ONCE = 20

/** A longer payload is left out of a page. */
const MAX_SHOWN = 8 * 1024

const FILTER = {
  state: word('Only jobs in this state; `running` is `active`.', [...STATES, 'running']),
  command: name('Only jobs of this command.'),
  text: text('Only jobs whose payload contains this text, in letters of either case.', 1_024),
}

const SEARCHING = {
  ...FILTER,
  cursor: text('The cursor of the page before.', 32),
  limit: count('How many jobs at most.', 1, MAX_PAGE),
}

const ACTING = {
  ...FILTER,
  expect: count(
    'The number of jobs that match, as it was shown. With another number nothing is done.',
    0,
    ACT.found,
  ),
  dry: flag('Only tells how many match.'),
}

type Change = (queue: RedisQueue, id: string) => Promise<boolean>

/** What is done to the jobs in some states. */
const ACTIONS: Readonly<Record<string, { states: readonly SearchedState[]; change: Change }>> = {
  cancel: { states: ['active', 'waiting', 'delayed'], change: (queue, id) => queue.cancel(id) },
  retry: { states: ['failed', 'completed'], change: (queue, id) => queue.retry(id) },
  remove: { states: STATES, change: (queue, id) => queue.remove(id) },
}

/** Jobs are searched, and those that match are changed. */
export const SEARCH_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/jobs/:queue',
    scope: 'read',
    effect: 'reads',
    summary: 'The jobs of a queue that match a filter, page by page. One request reads 1000 jobs at most.',
    query: SEARCHING,
    answers: { 200: '`{ jobs, scanned, cursor }`: how many jobs were read; null behind the last one.' },
    handle: search,
  }),
  route({
    method: 'POST',
    path: '/jobs/:queue/:action',
    scope: 'admin',
    effect: 'changes',
    action: 'change',
    summary: 'Cancels, retries or removes the jobs that match a filter, up to 1000.',
    query: ACTING,
    answers: {
      200: '`{ matched, done, failed, complete }`; with `dry`, `{ matched, scanned, complete }`. Not complete: more may match.',
      404: 'There is no such action.',
      409: 'Another number of jobs matches: `count differs`.',
    },
    handle: act,
  }),
]

type FilterQuery = ParameterValues<typeof FILTER>

function filterOf({ state, command, text: wanted }: FilterQuery, allowed: readonly SearchedState[]) {
  const known = state === 'running' ? 'active' : state
  if (known !== undefined && !allowed.includes(known))
    throw new Problem(400, 'invalid parameter', {
      detail: `Expected \`state\` to be ${allowed.join(' or ')}`,
    })
  return { states: known === undefined ? allowed : [known], command, text: wanted || undefined }
}

function search(
  c: RouteContext,
  deps: GatewayDeps,
  { cursor, limit = DEFAULT_PAGE, ...query }: ParameterValues<typeof SEARCHING>,
): Promise<Answer> {
  const filter = filterOf(query, STATES)
  const from = positionOf(cursor)
  const bounds = { ...SEARCH, found: limit }
  return deps.queues.use(queueName(c), async (queue) => {
    const { jobs, scanned, next } = await deps.scans.run(() =>
      scanJobs(queue, filter, from, bounds, listedJobText, c.req.raw.signal),
    )
    const answer = objectText({
      jobs: `[${jobs.join(',')}]`,
      scanned: String(scanned),
      cursor: next ? `"${next.state}-${next.offset}"` : 'null',
    })
    return jsonAnswer(200, answer)
  })
}

/** @throws Problem 400 */
function positionOf(cursor: string | undefined): ScanPosition {
  if (cursor === undefined) return { state: 0, offset: 0 }
  const [, state, offset] = /^(\d)-(\d{1,15})$/.exec(cursor) ?? []
  if (state !== undefined && offset !== undefined) return { state: Number(state), offset: Number(offset) }
  throw new Problem(400, 'invalid parameter', { detail: 'Expected `cursor` to be that of a page' })
}

/** A job of a page. In the place of a long payload stands its length. */
function listedJobText({
  id,
  command,
  state,
  retries,
  stalls,
  waiters,
  payload,
  dueIn,
  failure,
}: JobStatus): string {
  const job = textOf(payload)
  const isShown = job.length <= MAX_SHOWN
  return objectText({
    id: JSON.stringify(id),
    command: JSON.stringify(command),
    state: JSON.stringify(state),
    retries: String(retries),
    stalls: String(stalls),
    waiters: String(waiters),
    job: isShown ? job : undefined,
    length: isShown ? undefined : String(job.length),
    due: dueIn === undefined ? undefined : String(inSeconds(Date.now() + dueIn)),
    failure: failure && JSON.stringify({ name: failure.name, message: failure.message.slice(0, MAX_SHOWN) }),
  })
}

async function act(
  c: RouteContext,
  deps: GatewayDeps,
  { expect, dry = false, ...query }: ParameterValues<typeof ACTING>,
): Promise<Answer> {
  const action = ACTIONS[c.req.param('action') ?? '']
  if (!action || !Object.hasOwn(ACTIONS, c.req.param('action') ?? ''))
    throw new Problem(404, 'no such action')
  const filter = filterOf(query, action.states)
  if (dry) noteAction(c, { isDry: true })
  if (!dry && expect === undefined)
    throw new Problem(400, 'invalid parameter', { detail: 'Expected `expect`, or `dry`' })
  return await deps.queues.use(queueName(c), async (queue) => {
    const start = { state: 0, offset: 0 }
    const { jobs, scanned, next } = await deps.scans.run(() =>
      scanJobs(queue, filter, start, ACT, ({ id }) => id, c.req.raw.signal),
    )
    const ids = [...new Set(jobs)]
    const matched = ids.length
    const complete = next === undefined
    if (dry) return jsonAnswer(200, JSON.stringify({ matched, scanned, complete }))
    if (matched !== expect)
      throw new Problem(409, 'count differs', { detail: `${matched} jobs match, expected ${expect}` })
    const done = await changeAll(queue, ids, action.change)
    noteAction(c, { count: done })
    return jsonAnswer(200, JSON.stringify({ matched, done, failed: matched - done, complete }))
  })
}

/** Changes jobs, some at once. Returns how many it has changed: the others have changed their state, or the store failed. */
async function changeAll(queue: RedisQueue, ids: readonly string[], change: Change): Promise<number> {
  let done = 0
  for (let at = 0; at < ids.length; at += AT_ONCE) {
    const changed = ids.slice(at, at + AT_ONCE).map((id) => change(queue, id).catch(() => false))
    done += (await Promise.all(changed)).filter(Boolean).length
  }
  return done
}
