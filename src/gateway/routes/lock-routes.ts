import { z } from 'zod'
import { JsonText } from '../../kernel/codec/json-text.ts'
import { MAX_HELD_LEASE, recordKey } from '../../kernel/keys.ts'
import type { Peek, TokenLease } from '../../locker/index.ts'
import type { GatewayDeps } from '../deps.ts'
import { inSeconds } from '../duration.ts'
import type { RouteContext } from '../env.ts'
import { type Answer, emptyAnswer, jsonAnswer } from '../http/answer.ts'
import { handOver } from '../http/hand-over.ts'
import { checkProgress, objectText, readJson, readMembers, textOf } from '../http/json.ts'
import { leaseParameter } from '../http/lease.ts'
import { checkedKey } from '../http/names.ts'
import { duration, type ParameterValues } from '../http/parameters.ts'
import { errorOf } from '../http/reason.ts'
import { waitHasEnded, waitOf, waitParameter, whileWanted } from '../http/waiting.ts'
import { lockView } from '../overview/key-views.ts'
import { RECENT } from '../overview/recent-answers.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from './route.ts'

/** Longest time that a result is kept, ms: one year. */
const MAX_TTL = 366 * 24 * 60 * 60_000

const WAITING = { wait: waitParameter('How long to wait for the outcome.') }

const CLAIMING = {
  lease: leaseParameter('Duration of the lease.'),
  wait: waitParameter('How long to wait while another client has the key.'),
}

const KEEPING = { ttl: duration('How long the outcome is kept.', { max: MAX_TTL }) }

const RENEWING = { lease: leaseParameter('Duration of the lease from now on. As before if it is absent.') }

const RENEWAL_BODY = z.strictObject({ progress: z.json().optional() })

const LEASE = { 'X-Lease': 'The lease of the key, whole, as the claim gave it.' }
const LOST = 'The lease is over: `lease lost`.'

const WORK = { scope: 'work', effect: 'changes', headers: LEASE } as const

/**
 * One client computes a key, and all get its result. The lease of a claim is held by its token: any gateway accepts what comes
 * under it, and none renews it.
 */
export const LOCK_ROUTES: readonly Route[] = [
  route({
    method: 'GET',
    path: '/locks/:key',
    scope: 'read',
    effect: 'reads',
    summary: 'The state of a key: its lock and its result.',
    answers: { 200: 'Its state. Times are in seconds.' },
    handle: peekKey,
  }),
  ...(['GET', 'POST'] as const).map((method) =>
    route({
      method,
      path: '/locks/:key/wait',
      scope: 'read',
      effect: 'reads',
      summary: 'Waits for the outcome of the client that computes the key.',
      query: WAITING,
      answers: {
        200: '`{ status: "done", result }`.',
        500: 'It failed.',
        504: 'The wait has ended; without `wait`, there is no outcome yet.',
      },
      handle: waitForKey,
    }),
  ),
  route({
    method: 'POST',
    path: '/locks/:key/claim',
    scope: 'work',
    effect: 'changes',
    summary: 'Gives the lease of a key, or its result.',
    query: CLAIMING,
    answers: {
      200: '`{ status: "locked", fence, lease }`, or `{ status: "done", result }`.',
      423: 'The wait has ended, and another client has the key.',
    },
    handle: claimKey,
  }),
  route({
    ...WORK,
    method: 'PUT',
    path: '/locks/:key',
    summary: 'Publishes the result of a key.',
    query: KEEPING,
    body: { description: 'The result: any JSON, kept byte for byte.', required: true },
    answers: { 204: 'It was published.', 409: LOST },
    handle: publish,
  }),
  route({
    ...WORK,
    method: 'POST',
    path: '/locks/:key/fail',
    summary: 'Those that wait for the key get a failure.',
    query: KEEPING,
    body: { description: 'The reason: a text, or `{ name, message, code, … }`.' },
    answers: { 204: 'They were told.', 409: LOST },
    handle: fail,
  }),
  route({
    ...WORK,
    method: 'POST',
    path: '/locks/:key/release',
    summary: 'Another client may have the key.',
    answers: { 204: 'It was released.', 409: LOST },
    handle: release,
  }),
  route({
    ...WORK,
    method: 'PATCH',
    path: '/locks/:key',
    summary: 'Renews the lease of a key, and shows progress.',
    query: RENEWING,
    body: { description: 'Progress: any JSON.', schema: RENEWAL_BODY },
    answers: { 200: '`{ left }`, in seconds.', 409: LOST },
    handle: renew,
  }),
]

/** @throws Problem 400 */
function lockKey({ req }: RouteContext): string {
  return checkedKey('key', req.param('key') ?? '')
}

/** The state of a key. Times are in seconds. */
async function peekKey(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const { locker, overviewSources } = deps
  const key = lockKey(c)
  const { status, lock, value }: Peek = await locker.peek(key)
  // Nobody waits for a result that is there, unless it is being replaced.
  const isAwaited = lock !== undefined || status === 'free'
  const record = recordOf(key, deps)
  const view =
    isAwaited &&
    lockView(await overviewSources.answers.notOlderThan(RECENT), overviewSources.prefix, record, lock)
  const answer = {
    ...view,
    key,
    status,
    lock: lock && {
      holder: lock.holder,
      fence: lock.fence,
      left: inSeconds(lock.leaseLeft),
      parked: lock.parked,
    },
    value: value && {
      fence: value.fence,
      age: inSeconds(value.age),
      ttl: inSeconds(value.ttlLeft),
      stale: inSeconds(value.staleLeft),
    },
  }
  return jsonAnswer(200, JSON.stringify(answer))
}

/** The outcome of whoever computes the key, never a lease. */
async function waitForKey(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof WAITING>,
): Promise<Answer> {
  const key = lockKey(c)
  const result = await untilAnswered(c, deps, waitOf(c, query, deps), (waiting) =>
    deps.locker.wait(key, waiting),
  )
  if (result === WAIT_ENDED) throw new Problem(504, 'timeout', { detail: 'There is no outcome yet' })
  return doneAnswer(result)
}

function doneAnswer(result: unknown): Answer {
  return jsonAnswer(200, objectText({ status: '"done"', result: textOf(result) }))
}

const WAIT_ENDED: unique symbol = Symbol('the wait has ended')

/** The lease of a key, or its result. A lease whose client was gone before it was told goes back at once. */
async function claimKey(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof CLAIMING>,
): Promise<Answer> {
  const key = lockKey(c)
  const { lease: asked } = query
  const ticket = await untilAnswered(c, deps, waitOf(c, query, deps), (waiting) =>
    deps.locker.request(key, { ...waiting, renew: false, lease: asked }),
  )
  if (ticket === WAIT_ENDED) throw new Problem(423, 'locked', { detail: 'Another client has the key' })
  if (ticket.status === 'done') return doneAnswer(ticket.result)
  const { fence, token, lease } = ticket
  deps.clients.holdings.holdsKey({ key, record: recordOf(key, deps), fence, lease })
  const text = JSON.stringify({ status: 'locked', fence, lease: token })
  const { answer, sent } = await handOver(c, text, { 'x-lease': token })
  const settle = async () => {
    if (await sent) return
    // If the store does not answer, the lease ends by itself.
    await ticket.release().catch(() => {})
    keyEnded(ticket, deps)
  }
  void deps.lifecycle.track(settle)
  return answer
}

/** How a locker waits for the answer to a request. */
interface Waiting {
  readonly signal: AbortSignal
  readonly timeout: number
  /** The store has no result. */
  readonly onParked: () => void
}

/** Asks, and waits up to `wait` ms, but not before the store has said that there is no result: if it is 0, one step answers. */
function untilAnswered<T>(
  c: RouteContext,
  { lifecycle, clock }: GatewayDeps,
  wait: number,
  ask: (waiting: Waiting) => Promise<T>,
): Promise<T | typeof WAIT_ENDED> {
  return whileWanted(c, lifecycle, async (unwanted) => {
    const ended = new AbortController()
    const state = { isOver: wait === 0, isParked: false }
    const change = (what: keyof typeof state) => {
      state[what] = true
      if (state.isOver && state.isParked) ended.abort()
    }
    const timer = wait > 0 ? clock.after(wait, () => change('isOver')) : undefined
    const signal = AbortSignal.any([unwanted, ended.signal])
    try {
      return await ask({ signal, timeout: Number.POSITIVE_INFINITY, onParked: () => change('isParked') })
    } catch (error) {
      if (waitHasEnded(error)) return WAIT_ENDED
      throw error
    } finally {
      timer?.cancel()
    }
  })
}

function recordOf(key: string, { options }: GatewayDeps): string {
  return recordKey(options.prefix, key)
}

/** It is not held by a client any more. */
function keyEnded({ key, fence }: TokenLease, deps: GatewayDeps): void {
  deps.clients.holdings.keyEnded(recordOf(key, deps), fence)
}

/** The lease that the request names by its header X-Lease. @throws Problem 400 */
function leaseOf(c: RouteContext, { locker }: GatewayDeps): TokenLease {
  const token = c.req.header('x-lease')
  if (token === undefined) throw new Problem(400, 'lease is missing')
  const key = lockKey(c)
  const lease = heldBy(token)
  if (lease?.key === key) return lease
  throw new Problem(400, 'invalid lease', { detail: 'X-Lease is no lease of this key' })

  function heldBy(token: string): TokenLease | undefined {
    try {
      return locker.held(token)
    } catch (error) {
      if (error instanceof TypeError) return undefined
      throw error
    }
  }
}

type KeepingQuery = ParameterValues<typeof KEEPING>

/** The body is the result. */
async function publish(c: RouteContext, deps: GatewayDeps, { ttl }: KeepingQuery): Promise<Answer> {
  const lease = leaseOf(c, deps)
  const result = await readJson(c, deps)
  if (!result) throw new Problem(400, 'result is missing')
  await lease.publish(result, { ttl })
  keyEnded(lease, deps)
  return emptyAnswer()
}

/** The body is the reason. */
async function fail(c: RouteContext, deps: GatewayDeps, { ttl }: KeepingQuery): Promise<Answer> {
  const lease = leaseOf(c, deps)
  await lease.fail(errorOf(await readJson(c, deps)), { ttl })
  keyEnded(lease, deps)
  return emptyAnswer()
}

/** Another client may have the key. */
async function release(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const lease = leaseOf(c, deps)
  await lease.release()
  keyEnded(lease, deps)
  return emptyAnswer()
}

/** Renews the lease, and shows progress. */
async function renew(
  c: RouteContext,
  deps: GatewayDeps,
  query: ParameterValues<typeof RENEWING>,
): Promise<Answer> {
  const held = leaseOf(c, deps)
  const lease = query.lease ?? Math.min(held.lease, MAX_HELD_LEASE)
  const { texts } = await readMembers(c, deps, RENEWAL_BODY)
  const progress = texts.get('progress')
  checkProgress(progress)
  if (!(await held.renew(lease))) {
    keyEnded(held, deps)
    throw new Problem(409, 'lease lost')
  }
  const { key, fence } = held
  deps.clients.holdings.holdsKey({ key, record: recordOf(key, deps), fence, lease }, progress)
  if (progress !== undefined) await held.progress(JsonText.parse(progress))
  return jsonAnswer(200, JSON.stringify({ left: inSeconds(lease) }))
}
