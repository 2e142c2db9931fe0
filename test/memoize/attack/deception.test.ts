// Cache deception: a victim is lured to a URL that looks like a static file, then the attacker requests the same URL. See "Web
// Cache Deception" (Gil, 2017), "Cached and Confused" (Mirheidari et al., 2020) and "Gotta Cache 'em all" (Doyhenard, 2024).

import { type App, attacks, type Row } from '../../support/attack-scene.ts'

/** The router ignores what follows `/account`, as many do. The page states no freshness. */
const lenient =
  (who: string): App =>
  ({ url, field }) => {
    const path = new URL(url.replaceAll('\\', '/'), 'http://shop.example').pathname.toLowerCase()
    const account = decodeURIComponent(path).includes('/account')
    return { headers: {}, body: account ? `account of ${field(who) ?? 'nobody'}` : `static ${url}` }
  }

const PATHS = [
  '/account',
  '/account/x.css',
  '/account/x.js?v=1',
  '/account/favicon.ico',
  '/account/robots.txt',
  '/account/.css',
  '/account/..%2fx.css',
  '/account;x.css',
  '/account;a=b;c/x.css',
  '/account,x.css',
  '/account:x.css',
  '/account!x.css',
  '/account~x.css',
  '/account$x.css',
  '/account.css',
  '/account%2fx.css',
  '/account%2f%2e%2e%2fx.css',
  '/account%00x.css',
  '/account%0ax.css',
  '/account%0d%0ax.css',
  '/account%09x.css',
  '/account%23x.css',
  '/account%3fx.css',
  '/account%3bx.css',
  '/account%20.css',
  '/account%c3%a9.css',
  '/account?x.css',
  '/account?x=/y.css',
  '/account#x.css',
  '/account/./x.css',
  '/account//x.css',
  '/static/..%2faccount',
  '/static/../account',
  '/static/..;/account',
  '/static/%2e%2e/account',
  '/static%5c..%5caccount',
  '/static\\..\\account',
  '//account/x.css',
  '/ACCOUNT/x.css',
  '/%61ccount/x.css',
]

/** How the application knows the user, and what the attacker sends instead. */
const WHO: [name: string, victim: string, attacker: string][] = [
  ['cookie', 'Cookie: sid=victim', ''],
  ['cookie', 'Cookie: sid=victim', 'Cookie: sid=attacker'],
  ['authorization', 'Authorization: Bearer victim', ''],
  ['authorization', 'Authorization: Bearer victim', 'Authorization: Bearer attacker'],
]

const ROWS = PATHS.flatMap((path): Row[] =>
  WHO.map(([who, victim, attacker]) => ({
    attack: `${path}, ${victim}${attacker && ` and ${attacker}`}`,
    sends: `GET ${path}\n${victim}`,
    asks: `GET ${path}${attacker && `\n${attacker}`}`,
    // Some servers refuse some of these.
    gets: { lacks: 'victim' },
    app: lenient(who),
    options: { ttl: 60_000 },
  })),
)

/** The reverse: the victim does not get the attacker's page. */
const REVERSED = WHO.map(
  ([who, victim, attacker]): Row => ({
    attack: `his own account, ${victim}, after ${attacker || 'a request without'}`,
    sends: `GET /account${attacker && `\n${attacker}`}`,
    asks: `GET /account\n${victim}`,
    gets: { status: 200, has: /account of .*victim/ },
    app: lenient(who),
    options: { ttl: 60_000 },
  }),
)

attacks('deception', ROWS)
attacks('deception, reversed', REVERSED)
