/** What waits for a signal: one listener for all of it, since Node warns of more than ten on one signal. */
interface Waiting {
  readonly calls: Set<{ aborted: () => void }>
  readonly listener: () => void
}

const waitings = new WeakMap<AbortSignal, Waiting>()

/** Calls `aborted` once when the signal, which has not aborted yet, does. The returned function takes that back. */
export function onAbort(signal: AbortSignal, aborted: () => void): () => void {
  const waiting = waitings.get(signal) ?? listen(signal)
  const call = { aborted }
  waiting.calls.add(call)
  return () => {
    if (!waiting.calls.delete(call) || waiting.calls.size > 0) return
    signal.removeEventListener('abort', waiting.listener)
    if (waitings.get(signal) === waiting) waitings.delete(signal)
  }
}

function listen(signal: AbortSignal): Waiting {
  const calls: Waiting['calls'] = new Set()
  const listener = () => {
    waitings.delete(signal)
    for (const call of calls) if (calls.delete(call)) call.aborted()
  }
  const waiting = { calls, listener }
  signal.addEventListener('abort', listener, { once: true })
  waitings.set(signal, waiting)
  return waiting
}
