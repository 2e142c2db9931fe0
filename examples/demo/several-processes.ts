import { randomUUID } from 'node:crypto'
import { subscribe } from 'node:diagnostics_channel'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { channelName, Locker } from '../../src/index.ts'
import type { Found } from './folder.ts'
import { digestOf, makeReport } from './report.ts'
import { SETTINGS } from './settings.ts'
import { fact, showFolder, showReport, tally, time, title } from './show.ts'
import { reasonOf, Stop } from './stop.ts'
import { Team } from './team.ts'

const PROCESSES = 4
const CALLERS = 5

/** Several processes on one Redis: the one that computes is killed half-way, and another takes over. */
export async function inSeveralProcesses(folder: string, found: Found, redis: string): Promise<void> {
  // A key of its own: what an earlier run has left is not in the way.
  const key = `report:${randomUUID()}`
  await using locker = await lockerOn(redis, key)
  title(`${PROCESSES * CALLERS} callers in ${PROCESSES} processes, one computation, one kill -9`)
  showFolder(folder, found)
  fact('redis', `${shown(redis)}, keys ${SETTINGS.prefix}:* that expire within a minute`)
  fact('lease', `${SETTINGS.lease} ms: a processor that is silent for so long is replaced`)
  console.log()
  await using team = new Team(PROCESSES, { REDIS_URL: redis })
  await team.fromAll('ready')

  const began = performance.now()
  const say = (what: string) => fact(time(performance.now() - began), what)
  team.tellAll({ kind: 'ask', folder, key, callers: CALLERS })
  const first = await team.next('begun')
  say(`process ${first.from.pid} is the processor`)
  say(`the ${await parked(locker, key)} others are parked until it publishes`)
  const half = await team.next('half-way')
  await team.kill(first.from)
  const killed = performance.now()
  say(`process ${first.from.pid} is killed (SIGKILL) at step ${half.done} of ${half.total}`)
  team.tellAll({ kind: 'go on' })
  const second = await team.next('begun')
  const after = time(performance.now() - killed)
  say(`process ${second.from.pid} takes over, ${after} after the kill, and begins anew`)
  const received = await team.fromAll('received')
  const took = performance.now() - began
  const { ms, from } = await team.next('finished')
  say(`process ${from.pid} has published: everybody alive has the result`)

  const late = performance.now()
  const report = await locker.run(key, ({ signal }) => makeReport(folder, { signal, onStep: () => {} }))
  const wait = performance.now() - late
  showReport(report)
  const finished = team.heard('finished') + locker.stats().works
  fact('computations', `${finished} finished, of ${team.heard('begun')} begun`)
  for (const { from, reports } of received) {
    fact(`process ${from.pid}`, tally(reports.map((digest) => `report ${digest}`)))
  }
  const callers = received.length * CALLERS
  fact('took', `${time(took)}, the death included, where ${callers} computations take ${time(callers * ms)}`)
  fact('saved', time((callers - 1) * ms))
  fact('fences', `${first.fence}, then ${second.fence}: a late publish of the first is refused`)
  fact('late caller', `report ${digestOf(report)} after ${time(wait)} in another process, out of the cache`)
  await failure(team, join(folder, 'no-such-folder'))
  console.log()
  if (finished !== 1) throw new Stop(`expected 1 computation, got ${finished}`)
}

/** The same failure for everyone. */
async function failure(team: Team, folder: string): Promise<void> {
  const before = team.heard('begun')
  team.tellAll({ kind: 'ask', folder, key: `report:${randomUUID()}`, callers: CALLERS })
  const failed = await team.fromAll('failed')
  const attempts = team.heard('begun') - before
  fact('a failure', `${tally(failed.flatMap(({ failures }) => failures))}; attempts: ${attempts}`)
}

/** How many other processes wait: all of them, in a moment. */
async function parked(locker: Locker, key: string): Promise<number> {
  const deadline = performance.now() + 5_000
  for (;;) {
    const { lock } = await locker.peek(key)
    if (!lock || lock.parked === PROCESSES - 1 || performance.now() > deadline) return lock?.parked ?? 0
    await sleep(10)
  }
}

/** A locker on a Redis that answers. */
async function lockerOn(redis: string, key: string): Promise<Locker> {
  let reason: unknown
  subscribe(channelName('connection'), (event) => {
    if (typeof event === 'object' && event !== null && 'error' in event) reason = event.error ?? reason
  })
  const locker = newLocker(redis)
  try {
    await locker.peek(key)
    return locker
  } catch (error) {
    await locker.close()
    throw Stop.because(`Redis at ${shown(redis)} cannot be used`, reason ?? error)
  }
}

function newLocker(redis: string): Locker {
  try {
    return new Locker({ ...SETTINGS, redis })
  } catch (error) {
    throw new Stop(reasonOf(error))
  }
}

/** A URL without its password. */
function shown(redis: string): string {
  return redis.replace(/\/\/.*@/, '//…@')
}
