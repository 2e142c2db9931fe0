import type { Address } from '../../test/support/daemon.ts'
import { LOCALHOST } from '../../test/support/ports.ts'
import { Child } from '../../test/support/process.ts'
import { portOf } from '../../test/support/redis-server.ts'
import { fire, type Volley } from '../cannon.ts'
import type { HttpHandlers, Site } from '../http-child.ts'
import { figure, heading, table } from '../report.ts'
import { rotated, type Stage } from '../stage.ts'
import { median, quantile, sum } from '../statistics.ts'

type HttpChild = Child<HttpHandlers>
type Kind = Site['kind']

const KINDS: readonly Kind[] = ['bare', 'plain cache', 'memoised', 'Fetch core']
const LONG = 600_000

function forkSite(): Promise<HttpChild> {
  return Child.fork<HttpHandlers>(new URL('../http-child.ts', import.meta.url))
}

function addressOf({ server }: Stage): Address {
  return { host: LOCALHOST, port: portOf(server) }
}

/** One page under load: answered by a bare handler, out of a map, and by memoised handlers, each in a process of its own. */
export async function http(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 3 : 8
  const seconds = stage.quick ? 1 : 3
  heading(`http: hits of one page under autocannon, 50 connections, ${rounds} rounds of ${seconds} s`)
  const redis = addressOf(stage)
  const ports = new Map<Kind, number>()
  const children = new Map<Kind, HttpChild>()
  const volleys = new Map<Kind, Volley[]>(KINDS.map((kind) => [kind, []]))
  try {
    for (const kind of KINDS) {
      const child = await forkSite()
      children.set(kind, child)
      const site = { kind, redis, ttl: LONG, staleWhileRevalidate: 0, takes: 0 }
      ports.set(kind, await child.call('listen', kind, site))
      await fire(ports.get(kind) ?? 0, stage.quick ? 1 : 5)
    }
    for (let round = 0; round < rounds; round++) {
      for (const kind of rotated(KINDS, round))
        volleys.get(kind)?.push(await fire(ports.get(kind) ?? 0, seconds))
    }
    for (const kind of ['memoised', 'Fetch core'] as const) {
      const runs = await children.get(kind)?.call('runs', kind)
      if (runs !== 1) throw new Error(`The handler behind ${kind} has run ${runs} times`)
    }
  } finally {
    await Promise.all([...children.values()].map((child) => child.kill()))
  }
  const rate = (kind: Kind) => median((volleys.get(kind) ?? []).map((volley) => volley.rate))
  const late = (kind: Kind) => median((volleys.get(kind) ?? []).map(({ times }) => quantile(times, 0.99)))
  table(
    ['hits of one page', 'requests/s', 'of bare', 'p99 ms', 'failed'],
    KINDS.map((kind) => [
      kind,
      rate(kind).toFixed(0),
      (rate(kind) / rate('bare')).toFixed(2),
      late(kind).toFixed(2),
      sum((volleys.get(kind) ?? []).map(({ failed }) => failed)),
    ]),
  )
  const part = rate('memoised') / rate('bare')
  figure({
    what: 'a memoised handler, of a bare one',
    wanted: 'at least 0.8',
    measured: part.toFixed(2),
    reached: part >= 0.8,
    kind: 'time',
  })
}

/** The same page while it is refreshed again and again by a handler that takes its time, and while it is not. */
export async function httpRefresh(stage: Stage): Promise<void> {
  const rounds = stage.quick ? 2 : 6
  const seconds = stage.quick ? 2 : 5
  heading(
    `http-refresh: p99 while one page is refreshed every second, 50 connections, ${rounds} rounds of ${seconds} s`,
  )
  const redis = addressOf(stage)
  const kinds = { still: { ttl: LONG, takes: 0 }, refreshed: { ttl: 950, takes: 50 } }
  type Name = keyof typeof kinds
  const names: readonly Name[] = ['still', 'refreshed']
  const children = new Map<Name, HttpChild>()
  const ports = new Map<Name, number>()
  const times = new Map<Name, number[]>(names.map((name) => [name, []]))
  let refreshes = 0
  try {
    for (const name of names) {
      const child = await forkSite()
      children.set(name, child)
      const site: Site = { kind: 'memoised', redis, staleWhileRevalidate: LONG, ...kinds[name] }
      ports.set(name, await child.call('listen', name, site))
      await fire(ports.get(name) ?? 0, stage.quick ? 1 : 5)
    }
    const before = (await children.get('refreshed')?.call('runs', 'refreshed')) ?? 0
    for (let round = 0; round < rounds; round++) {
      for (const name of rotated(names, round)) {
        const volley = await fire(ports.get(name) ?? 0, seconds)
        if (volley.failed > 0) throw new Error(`${volley.failed} requests failed`)
        times.get(name)?.push(quantile(volley.times, 0.99))
      }
    }
    refreshes = ((await children.get('refreshed')?.call('runs', 'refreshed')) ?? 0) - before
  } finally {
    await Promise.all([...children.values()].map((child) => child.kill()))
  }
  const p99 = (name: Name) => median(times.get(name) ?? [])
  const ratio = p99('refreshed') / p99('still')
  table(
    ['one page', 'p99 ms', 'refreshes'],
    [
      ['not refreshed', p99('still').toFixed(2), 0],
      ['refreshed', p99('refreshed').toFixed(2), refreshes],
    ],
  )
  figure({
    what: `p99 while it is refreshed ${refreshes} times, of p99 without`,
    wanted: 'at most 1.1, over 20 refreshes or more',
    measured: ratio.toFixed(2),
    reached: ratio <= 1.1 && refreshes >= 20,
    kind: 'time',
  })
}
