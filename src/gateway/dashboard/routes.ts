import type { RouteContext } from '../env.ts'
import { Answer, emptyAnswer } from '../http/answer.ts'
import { Problem } from '../problem.ts'
import { type Route, route } from '../routes/route.ts'
import { type Asset, encodingFor, loadAssets } from './assets.ts'
import { SESSION_ROUTES } from './session-routes.ts'

/** The name of the page among the files of the dashboard. */
const PAGE = 'index.html'

/** Nothing is loaded from elsewhere, no script or style stands in the page, and no text becomes a script. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ')

const PAGE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': POLICY,
  'cross-origin-opener-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
  // It names the other files, whose names change with their content.
  'cache-control': 'no-cache',
}

const ASSET_HEADERS: Readonly<Record<string, string>> = {
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'public, max-age=31536000, immutable',
}

/** The dashboard: a page that says nothing of jobs, its files, and the sessions of browsers. */
export const DASHBOARD_ROUTES: readonly Route[] = [
  // Below a base path: '/jobs/' and '/jobs'.
  route({ method: 'GET', path: ['', '/'], scope: 'public', effect: 'reads', handle: getPage }),
  route({ method: 'GET', path: '/assets/:name', scope: 'public', effect: 'reads', handle: getAsset }),
  ...SESSION_ROUTES,
]

async function getPage(c: RouteContext): Promise<Answer> {
  const { pathname } = new URL(c.req.url)
  // The page names its files relative to itself.
  if (!pathname.endsWith('/')) return emptyAnswer(308, { location: `${pathname.split('/').at(-1)}/` })
  const page = (await loadAssets()).get(PAGE)
  if (!page) throw new Problem(404, 'no dashboard', { detail: 'It is not built: `npm run build` makes it' })
  return answer(c, page, PAGE_HEADERS)
}

async function getAsset(c: RouteContext): Promise<Answer> {
  const name = c.req.param('name') ?? ''
  const asset = name === PAGE ? undefined : (await loadAssets()).get(name)
  if (!asset) throw new Problem(404, 'no such route')
  return answer(c, asset, ASSET_HEADERS)
}

function answer(c: RouteContext, { type, bytes }: Asset, headers: Readonly<Record<string, string>>): Answer {
  const encoding = encodingFor(c.req.header('accept-encoding'))
  const described = {
    ...headers,
    'content-type': type,
    vary: 'accept-encoding',
    ...(encoding !== 'identity' && { 'content-encoding': encoding }),
  }
  return new Answer(200, described, bytes[encoding])
}
