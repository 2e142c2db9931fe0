import { SoloflightError, UnavailableError } from '../../../src/errors.ts'
import type { BusCall, CallEnding, PushCall } from './history.ts'
import type { BusActor, BusWorld } from './world.ts'

/** Tolerance of time bounds, ms. */
export const EPSILON = 100

/** Records a call until it is settled. Resolves with how it ended. `within`: its time limit, ms. */
export async function record<Call extends BusCall>(
  world: BusWorld,
  call: Call,
  promise: Promise<unknown>,
): Promise<CallEnding> {
  const { history } = world
  history.calls.push(call)
  history.say(() => `p${call.process} #${call.no} ${call.name}`)
  const ending = await promise.then(
    (value): CallEnding => ({ kind: 'value', value: Number(value) }),
    (error: unknown): CallEnding => endingOf(error),
  )
  history.say(() => `p${call.process} #${call.no} ${call.name.split(' ')[0]}: ${JSON.stringify(ending)}`)
  call.ended = { ...history.moment(), ending }
  checkCall(world, call)
  return ending
}

export function callOf(
  { history, scheduler }: BusWorld,
  { process }: BusActor,
  name: string,
  within: number,
): BusCall {
  const deadline = scheduler.now + within
  return {
    ...{ no: ++history.made, process: process.id, name, deadline, ended: undefined },
    begun: history.moment(),
  }
}

function endingOf(error: unknown): CallEnding {
  const known = error instanceof SoloflightError
  const sent = !(error instanceof UnavailableError) || error.sent
  const message = known ? error.message : error instanceof Error ? `${error.stack}` : String(error)
  return { kind: 'error', code: known ? error.code : 'E_FOREIGN', message, sent }
}

/** Errors that any call may end with. */
const USUAL = ['E_UNAVAILABLE', 'E_CLOSED', 'E_NOT_ATTACHED', 'E_ALREADY_ATTACHED']
const ERRORS: Record<string, readonly string[]> = {
  push: [...USUAL, 'E_QUEUE_FULL'],
  ack: [...USUAL, 'E_LEASE_LOST'],
}

/** B4: a call is settled by its deadline, and with an error that may be. */
export function checkCall(world: BusWorld, call: BusCall): void {
  const { history, scheduler, plan } = world
  checkDeadline(world, call, call.ended?.at ?? scheduler.now)
  const ending = call.ended?.ending
  if (ending?.kind !== 'error') return
  const [kind = ''] = call.name.split(' ')
  const isUsual = (ERRORS[kind] ?? USUAL).includes(ending.code)
  const isCalm = plan.calm && !world.actors[call.process]?.closing
  if (!isUsual || (isCalm && ending.code === 'E_UNAVAILABLE'))
    history.violate(
      'B4',
      `#${call.no} ${call.name} of p${call.process} has ${ending.code}: ${ending.message}`,
    )
}

/** A paused process gets the time of the pause in addition. */
function checkDeadline(world: BusWorld, call: BusCall, settledAt: number): void {
  const process = world.actors[call.process]?.process
  if (!process) return
  const paused = process.pauses
    .filter(({ from, until }) => from <= settledAt && until >= call.begun.at)
    .reduce((sum, { from, until }) => sum + Math.min(until, settledAt) - from, 0)
  const due = call.deadline + paused + EPSILON
  if (settledAt <= due || process.diedAt <= due) return
  world.history.violate(
    'B4',
    `#${call.no} ${call.name} of p${call.process} was settled ${(settledAt - due).toFixed(1)} ms late`,
  )
}

/** Checks the pushes of a run: B4. (Checks during the run: recorder.ts, deliveries.ts, above and topic.ts.) */
export function checkPushes(world: BusWorld): void {
  const { history } = world
  const violate = (what: string) => history.violate('B4', what)
  const last = new Map<string, { readonly no: number; readonly id: number }>()
  for (const call of history.pushes) {
    checkEnding(world, call, violate)
    for (const { id, life } of history.entriesOf(call.no)) {
      const sender = `${call.member} ${life}`
      const before = last.get(sender)
      if (before && before.id > id)
        violate(`${before.no} was pushed before ${call.no}, and has the id ${before.id}`)
      last.set(sender, { no: call.no, id })
    }
  }
}

function checkEnding({ history }: BusWorld, call: PushCall, violate: (what: string) => void): void {
  if (!call.ended) return
  const { ending, tick } = call.ended
  const entries = history.entriesOf(call.no)
  if (ending.kind === 'value') {
    const isThere = entries.some(
      (one) => one.id === ending.value && one.queue === call.queue && one.pushed.tick < tick,
    )
    if (!isThere) violate(`${call.no} was pushed as ${ending.value}, it is said, and is not in ${call.queue}`)
    return
  }
  if (entries.length === 0) return
  const isQuiet = !history.isDisturbed(call.process, call.begun.at, call.ended.at)
  const isUnsent = ending.code === 'E_NOT_ATTACHED' || ending.code === 'E_CLOSED'
  // Over a lost connection it may have been sent before.
  if (ending.code === 'E_QUEUE_FULL' || !ending.sent || (isUnsent && isQuiet))
    violate(`${call.no} has ${ending.code}, and is in ${call.queue} as ${entries[0]?.id}`)
}
