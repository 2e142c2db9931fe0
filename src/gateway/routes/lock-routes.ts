import type { Hono } from 'hono'
import { JsonText } from '../../kernel/codec/json-text.ts'
import type { Done, Peek, TokenLease } from '../../locker/index.ts'
import type { GatewayDeps } from '../deps.ts'
import { inSeconds } from '../duration.ts'
import type { GatewayEnv, RouteContext } from '../env.ts'
import { handOver } from '../http/hand-over.ts'
import { checkProgress, objectText, readJson, readMembers, textOf } from '../http/json.ts'
import { MAX_LEASE, MIN_LEASE } from '../http/lease.ts'
import { checkedKey, Query } from '../http/query.ts'
import { errorOf } from '../http/reason.ts'
import { emptyResponse, jsonResponse } from '../http/responses.ts'
import { waitHasEnded, waitOf, whileWanted } from '../http/waiting.ts'
import { Problem } from '../problem.ts'

/** How long the store may take to answer a claim that does not wait, ms. */
const CLAIM_WITHIN = 1_000

/** Longest time that a result is kept, ms: one year. */
const MAX_TTL = 366 * 24 * 60 * 60_000

/**
 * `/locks/:key`: one client computes a key, and all get its result. The lease of a claim is held by its token: any gateway
 * accepts what comes under it, and none renews it.
 */
export function lockRoutes(app: Hono<GatewayEnv>, deps: GatewayDeps): void {
  const { access } = deps
  const answers = (answer: typeof peekKey) => (c: RouteContext) => answer(c, deps)
  app.get('/locks/:key', access.route('read', 'reads', answers(peekKey)))
  app.get('/locks/:key/wait', access.route('read', 'reads', answers(waitForKey)))
  app.post('/locks/:key/wait', access.route('read', 'reads', answers(waitForKey)))
  app.post('/locks/:key/claim', access.route('work', 'changes', answers(claimKey)))
  app.put('/locks/:key', access.route('work', 'changes', answers(publish)))
  app.post('/locks/:key/fail', access.route('work', 'changes', answers(fail)))
  app.post('/locks/:key/release', access.route('work', 'changes', answers(release)))
  app.patch('/locks/:key', access.route('work', 'changes', answers(renew)))
}

/** @throws Problem 400 */
function lockKey({ req }: RouteContext): string {
  return checkedKey('key', req.param('key') ?? '')
}

/** The state of a key. Times are in seconds. */
async function peekKey(c: RouteContext, { locker }: GatewayDeps): Promise<Response> {
  new Query(c, [])
  const key = lockKey(c)
  const { status, lock, value }: Peek = await locker.peek(key)
  const answer = {
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
  return jsonResponse(200, JSON.stringify(answer))
}

/** The outcome of whoever computes the key, never a lease. */
async function waitForKey(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const key = lockKey(c)
  const wait = waitOf(c, new Query(c, ['wait']), deps)
  const result = await whileWanted(c.req.raw, deps.lifecycle, (signal) =>
    unlessWaitEnds(() => deps.locker.wait(key, { signal, timeout: Math.max(wait, CLAIM_WITHIN) })),
  )
  if (result === WAIT_ENDED) throw new Problem(504, 'timeout', { detail: 'There is no outcome yet' })
  return doneResponse(result)
}

function doneResponse(result: unknown): Response {
  return jsonResponse(200, objectText({ status: '"done"', result: textOf(result) }))
}

const WAIT_ENDED: unique symbol = Symbol('the wait has ended')

/** By the timeout of the call, or because nobody wants the answer any more. */
async function unlessWaitEnds<T>(call: () => Promise<T>): Promise<T | typeof WAIT_ENDED> {
  try {
    return await call()
  } catch (error) {
    if (waitHasEnded(error)) return WAIT_ENDED
    throw error
  }
}

/** The lease of a key, or its result. A lease whose client was gone before it was told goes back at once. */
async function claimKey(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const key = lockKey(c)
  const query = new Query(c, ['lease', 'wait'])
  const lease = query.duration('lease', { min: MIN_LEASE, max: MAX_LEASE })
  const ticket = await claimed(c, deps, key, lease, waitOf(c, query, deps))
  if (ticket === WAIT_ENDED)
    throw new Problem(423, 'locked', { detail: 'The wait has ended before the key was free' })
  if (ticket.status === 'done') return doneResponse(ticket.result)
  const { fence, token } = ticket
  const answer = JSON.stringify({ status: 'locked', fence, lease: token })
  const { response, sent } = await handOver(c, answer, { 'x-lease': token })
  const settle = async () => {
    // If the store does not answer, the lease ends by itself.
    if (!(await sent)) await ticket.release().catch(() => {})
  }
  void deps.lifecycle.track(settle)
  return response
}

async function claimed(
  c: RouteContext,
  { locker, lifecycle }: GatewayDeps,
  key: string,
  lease: number | undefined,
  wait: number,
): Promise<TokenLease | Done<unknown> | typeof WAIT_ENDED> {
  // A claim has no answer of its own that another has the lease: it waits.
  if (wait === 0 && (await locker.peek(key)).status === 'locked') return WAIT_ENDED
  return await whileWanted(c.req.raw, lifecycle, (signal) =>
    unlessWaitEnds(() =>
      locker.request(key, { renew: false, lease, signal, timeout: Math.max(wait, CLAIM_WITHIN) }),
    ),
  )
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

function ttlOf(query: Query): { ttl: number | undefined } {
  return { ttl: query.duration('ttl', { max: MAX_TTL }) }
}

/** The body is the result. */
async function publish(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const options = ttlOf(new Query(c, ['ttl']))
  const lease = leaseOf(c, deps)
  const result = await readJson(c.req.raw, deps)
  if (!result) throw new Problem(400, 'result is missing')
  await lease.publish(result, options)
  return emptyResponse()
}

/** The body is the reason. */
async function fail(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const options = ttlOf(new Query(c, ['ttl']))
  const lease = leaseOf(c, deps)
  await lease.fail(errorOf(await readJson(c.req.raw, deps)), options)
  return emptyResponse()
}

/** Another client may have the key. */
async function release(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  new Query(c, [])
  await leaseOf(c, deps).release()
  return emptyResponse()
}

/** Renews the lease, and shows progress. */
async function renew(c: RouteContext, deps: GatewayDeps): Promise<Response> {
  const query = new Query(c, ['lease'])
  const held = leaseOf(c, deps)
  const lease = query.duration('lease', { min: MIN_LEASE, max: MAX_LEASE }) ?? Math.min(held.lease, MAX_LEASE)
  const { progress } = await readMembers(c.req.raw, deps, ['progress'])
  checkProgress(progress?.text)
  if (!(await held.renew(lease))) throw new Problem(409, 'lease lost')
  if (progress) await held.progress(JsonText.parse(progress.text))
  return jsonResponse(200, JSON.stringify({ left: inSeconds(lease) }))
}
