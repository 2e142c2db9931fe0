import { z } from 'zod'
import type { Access } from '../access.ts'
import type { GatewayDeps } from '../deps.ts'
import type { Caller, RouteContext } from '../env.ts'
import { type Answer, emptyAnswer, jsonAnswer } from '../http/answer.ts'
import { readMembers } from '../http/json.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from '../routes/route.ts'
import { cookieOf, SESSION_SECONDS } from './cookie-sessions.ts'

const TOKEN = z.strictObject({ token: z.string().max(4096) })

/** Sessions of browsers: the event streams and WebSockets of a page cannot send a header. */
export const SESSION_ROUTES: readonly Route[] = [
  route({ method: 'GET', path: '/session', scope: 'anyone', effect: 'reads', handle: getSession }),
  route({ method: 'POST', path: '/session', scope: 'anyone', effect: 'changes', handle: startSession }),
  route({ method: 'DELETE', path: '/session', scope: 'anyone', effect: 'changes', handle: endSession }),
]

function getSession(c: RouteContext, { access }: GatewayDeps): Answer {
  return jsonAnswer(200, sessionText(access, access.caller(c)))
}

async function startSession(c: RouteContext, deps: GatewayDeps): Promise<Answer> {
  const { values } = await readMembers(c, deps, TOKEN)
  const started = deps.access.startSession(values.token)
  if (!started) throw new Problem(401, 'token required', { headers: { 'www-authenticate': 'Bearer' } })
  const { caller, session } = started
  return jsonAnswer(200, sessionText(deps.access, caller), {
    'set-cookie': cookieOf(session, { ...cookieOptions(c, deps), age: SESSION_SECONDS }),
  })
}

function endSession(c: RouteContext, deps: GatewayDeps): Answer {
  return emptyAnswer(204, { 'set-cookie': cookieOf('', { ...cookieOptions(c, deps), age: 0 }) })
}

/** What a caller may do, if there is one. */
function sessionText({ needsToken }: Access, caller: Caller | undefined): string {
  return JSON.stringify({ tokens: needsToken, scopes: caller?.scopes ?? [], name: caller?.name })
}

/** For whom a cookie is. The browser says by Origin whether it came by TLS, which a proxy may have ended. */
function cookieOptions({ req }: RouteContext, { options }: GatewayDeps) {
  const isSecure = new URL(req.url).protocol === 'https:' || (req.header('origin') ?? '').startsWith('https:')
  return { host: req.header('host'), basePath: options.basePath, isSecure }
}
