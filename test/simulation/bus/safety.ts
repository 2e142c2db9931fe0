import type { PushCall } from './history.ts'
import type { BusWorld } from './world.ts'

/** Errors after which a message was certainly not pushed. */
const NOT_PUSHED = ['E_QUEUE_FULL', 'E_NOT_ATTACHED', 'E_CLOSED']

/** Checks the pushes of a run: B4. (Checks during the run: recorder.ts, deliveries.ts, calls.ts and topic.ts.) */
export function checkSafety(world: BusWorld): void {
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
  if (NOT_PUSHED.includes(ending.code) || !ending.sent)
    violate(`${call.no} has ${ending.code}, and is in ${call.queue} as ${entries[0]?.id}`)
}
