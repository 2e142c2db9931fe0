import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { channelName, type TelemetryEvents } from '../kernel/telemetry.ts'

/**
 * Writes the audit events of the gateway of this process to stderr until the returned function is called: one line of JSON
 * each. 'changes' leaves out posts.
 */
export function writeAudit(which: 'changes' | 'all'): () => void {
  const name = channelName('gateway:action')
  const listener = (data: unknown) => {
    const { action, ...event } = data as TelemetryEvents['gateway:action']
    if (which === 'changes' && action === 'submit') return
    const line = JSON.stringify({ audit: action, at: new Date().toISOString(), ...event })
    process.stderr.write(`${line}\n`)
  }
  subscribe(name, listener)
  return () => void unsubscribe(name, listener)
}
