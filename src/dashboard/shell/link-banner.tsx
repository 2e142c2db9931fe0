import { link, overview, retryNow } from '../data/live.ts'
import { useSignal } from '../data/signal.ts'
import { timeOfDay } from '../view/format.ts'

/** Says why what is shown may be old. Nothing in it changes each second: it would be read out again. */
export function LinkBanner() {
  const state = useSignal(link)
  const snapshot = useSignal(overview)
  const old = snapshot ? '; what you see is from then' : ''
  const store = snapshot?.store
  const text =
    state.state === 'lost'
      ? `The gateway has not answered since ${timeOfDay(state.since)}${old}. ${state.reason ? `It says: ${state.reason}. ` : ''}It is tried again until it answers.`
      : store && !store.reachable
        ? `Redis has not answered since ${timeOfDay(1000 * store.since)}; what you see is from then. The gateway tries again until it answers.`
        : ''
  return (
    <div class={`banner ${text ? 'shown' : ''}`}>
      <p role="status">{text}</p>
      {state.state === 'lost' && (
        <button type="button" onClick={retryNow}>
          Try now
        </button>
      )}
    </div>
  )
}
