import type { Address } from '../../test/support/daemon.ts'
import { LOCALHOST } from '../../test/support/ports.ts'
import { Child } from '../../test/support/process.ts'
import { portOf } from '../../test/support/redis-server.ts'
import { fire, type Volley } from '../cannon.ts'
import type { HttpHandlers, Site } from '../http-child.ts'
import { type Build, buildEnvironment } from '../library.ts'
import { atLeast, atMost, exactly, heading, table } from '../report.ts'
import { interleaved, type Rounds } from '../rounds.ts'
import { endChildren, type Stage } from '../stage.ts'
import { quantile, sum } from '../statistics.ts'

export type HttpChild = Child<HttpHandlers>

const LONG = 600_000
/** A second, of one page. */
const REFRESHES = 5
/** How long a refresh takes, ms. */
const TAKES = 50

/** `build`: the library that it measures. */
export function forkSite(build?: Build): Promise<HttpChild> {
  return Child.fork<HttpHandlers>(new URL('../http-child.ts', import.meta.url), {
    env: buildEnvironment(build),
  })
}

function addressOf({ server }: Stage): Address {
  return { host: LOCALHOST, port: portOf(server) }
}

/** Sites under load by turns, each in a process of its own. `runs`: how often their handlers ran meanwhile. */
async function underLoad<Name extends string>(
  sites: Readonly<Record<Name, Site>>,
  { quick }: Stage,
  rounds: number,
  seconds: number,
): Promise<{ volleys: Rounds<Name, Volley>; runs: (name: Name) => number }> {
  const names = Object.keys(sites) as Name[]
  const children = new Map<Name, HttpChild>()
  const ports = new Map<Name, number>()
  const runs = new Map<Name, number>()
  const load = (name: Name, forSeconds: number) => fire(ports.get(name) ?? 0, forSeconds)
  const runsOf = async (name: Name) => (await children.get(name)?.call('runs', name)) ?? 0
  try {
    for (const name of names) {
      const child = await forkSite()
      children.set(name, child)
      ports.set(name, await child.call('listen', name, sites[name]))
      await load(name, quick ? 1 : 5)
      runs.set(name, await runsOf(name))
    }
    const volleys = await interleaved(names, rounds, (name) => load(name, seconds))
    for (const name of names) runs.set(name, (await runsOf(name)) - (runs.get(name) ?? 0))
    return { volleys, runs: (name) => runs.get(name) ?? 0 }
  } finally {
    await endChildren(children.values())
  }
}

const rateOf = ({ rate }: Volley) => rate
const p99Of = ({ times }: Volley) => quantile(times, 0.99)
const failedOf = ({ failed }: Volley) => failed

/** One page under load: answered by a bare handler, out of a map, and by memoised handlers. */
export async function http(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 8
  const seconds = stage.quick ? 1 : 3
  heading(`http: hits of one page of 2 KB, 50 connections, ${rounds} rounds of ${seconds} s`)
  const site = (kind: Site['kind']): Site => ({
    kind,
    redis: addressOf(stage),
    ttl: LONG,
    staleWhileRevalidate: 0,
    takes: 0,
  })
  const sites = {
    bare: site('bare'),
    'plain cache': site('plain cache'),
    memoised: site('memoised'),
    'Fetch core': site('Fetch core'),
  }
  const { volleys, runs } = await underLoad(sites, stage, rounds, seconds)
  const names = ['bare', 'plain cache', 'memoised', 'Fetch core'] as const
  table(
    ['hits of one page', 'requests/s', 'of bare', 'p99 ms', 'failed', 'computed'],
    names.map((name) => [
      name,
      volleys.median(name, rateOf).toFixed(0),
      volleys.ratio(name, 'bare', rateOf).toFixed(2),
      volleys.median(name, p99Of).toFixed(2),
      sum(volleys.values(name, failedOf)),
      runs(name),
    ]),
  )
  exactly('pages computed while they are kept', [runs('memoised'), runs('Fetch core')], [0, 0])
  atLeast('a memoised handler, of a bare one', volleys.ratio('memoised', 'bare', rateOf), 0.85)
  atLeast('a memoised Fetch handler, of a bare one', volleys.ratio('Fetch core', 'bare', rateOf), 0.65)
}

/** A page while it is refreshed again and again by a handler that takes its time, and while it is not. */
export async function httpRefresh(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 8
  const seconds = stage.quick ? 2 : 5
  heading(
    `http-refresh: one page of 2 KB, refreshed ${REFRESHES} times a second, 50 connections, ${rounds} rounds of ${seconds} s`,
  )
  const site = { kind: 'memoised', redis: addressOf(stage), staleWhileRevalidate: LONG } as const
  const sites = {
    still: { ...site, ttl: LONG, takes: 0 },
    // A refresh begins when the ttl of the one before is over, and takes as long as its handler.
    refreshed: { ...site, ttl: 1_000 / REFRESHES - TAKES, takes: TAKES },
  }
  const { volleys, runs } = await underLoad(sites, stage, rounds, seconds)
  const perSecond = runs('refreshed') / (rounds * seconds)
  table(
    ['one page', 'requests/s', 'p99 ms', 'of still', 'refreshes/s', 'failed'],
    (['still', 'refreshed'] as const).map((name) => [
      name,
      volleys.median(name, rateOf).toFixed(0),
      volleys.median(name, p99Of).toFixed(2),
      volleys.ratio(name, 'still', p99Of).toFixed(2),
      (runs(name) / (rounds * seconds)).toFixed(1),
      sum(volleys.values(name, failedOf)),
    ]),
  )
  if (perSecond < 0.9 * REFRESHES) throw new Error(`Only ${perSecond.toFixed(1)} refreshes a second`)
  const share = volleys.ratio('refreshed', 'still', p99Of)
  atMost(`p99 while a page is refreshed ${REFRESHES} times a second, of p99 without`, share, 1.15)
}
