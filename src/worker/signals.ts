/** Calls `onSignal` at each of these signals of the process, until the returned function is called. */
export function listenToSignals(signals: readonly NodeJS.Signals[], onSignal: () => void): () => void {
  for (const signal of signals) process.on(signal, onSignal)
  return () => {
    for (const signal of signals) process.removeListener(signal, onSignal)
  }
}
