/** The callbacks of one signal share one listener: Node warns of more than ten listeners on a signal. */
interface SignalListeners {
  readonly calls: Set<{ aborted: () => void }>
  readonly listener: () => void
}

const listenersOf = new WeakMap<AbortSignal, SignalListeners>()

/** Calls `aborted` once when the signal aborts; it must not have aborted yet. The returned function unsubscribes. */
export function onAbort(signal: AbortSignal, aborted: () => void): () => void {
  const waiting = listenersOf.get(signal) ?? listen(signal)
  const call = { aborted }
  waiting.calls.add(call)
  return () => {
    if (!waiting.calls.delete(call) || waiting.calls.size > 0) return
    signal.removeEventListener('abort', waiting.listener)
    if (listenersOf.get(signal) === waiting) listenersOf.delete(signal)
  }
}

function listen(signal: AbortSignal): SignalListeners {
  const calls: SignalListeners['calls'] = new Set()
  const listener = () => {
    listenersOf.delete(signal)
    for (const call of calls) if (calls.delete(call)) call.aborted()
  }
  const waiting = { calls, listener }
  signal.addEventListener('abort', listener, { once: true })
  listenersOf.set(signal, waiting)
  return waiting
}
