import { type Channel, channel } from 'node:diagnostics_channel'

/** What the library tells about a resource, on the diagnostics channel `soloflight:<event>`. */
export interface TelemetryEvents {
  /** A result was served: out of this process's cache (`local`) or out of the store. */
  hit: { key: string; local: boolean }
  /** A caller joined a flight that was under way in this process. */
  join: { key: string }
  /** A claim was granted: this process is the processor. `takeover`: of a holder whose lease had run out. */
  grant: { key: string; fence: number; takeover: boolean }
  /** This process waits for another; `trace` is the trace context of that processor, to link a span to. */
  park: { key: string; fence: number; trace: string | undefined }
  /** The work of this process has ended; `ms` is how long it took. */
  work: { key: string; fence: number; ms: number; failed: boolean }
  /** A result or failure of this process was accepted by the store. */
  settle: { key: string; fence: number; failed: boolean }
  /** A lease of this process was lost. */
  lost: { key: string; fence: number }
  /** A waiter was settled. `outcome`: 'result', 'lease', the code of the error, or 'error' if it has none. */
  wait: { key: string; ms: number; outcome: string }
  /** A queue's handler was called in this process, and what came of it was accepted; `ms` is how long it took. */
  attempt: {
    queue: string
    command: string
    id: string
    fence: number
    attempt: number
    ms: number
    failed: boolean
  }
  /** A result was served although it has been over for `staleFor` ms. */
  stale: { key: string; staleFor: number }
  /**
   * A result of this process's cache was served because Redis was away: an invalidation of it may not have been heard.
   * `staleFor`: for how long it has been over, ms; 0 while it is fresh.
   */
  unverified: { key: string; staleFor: number }
  /** A work runs beside others: what is computed for the key has not been kept lately, so nobody waits. */
  bypass: { key: string }
  /** A stored value could not be read, because another codec wrote it. A Locker computes it anew. */
  undecodable: { key: string; fence: number }
  /** Work was done for this process alone, because Redis was away. */
  unshared: { key: string }
  /** A resource of an HTTP cache has changed while Redis was away, and that can be told to no other process any more. */
  invalidationLost: { key: string }
  /** A hook or listener of the user threw, or rejected. */
  hook: { hook: string; error: unknown }
  /** The command connection or the subscription came up or went down. */
  connection: { link: 'commands' | 'subscription'; up: boolean; error?: Error | undefined }
}

export type TelemetryEvent = keyof TelemetryEvents

/** Name of the diagnostics channel on which an event is published. */
export function channelName(event: TelemetryEvent): string {
  return `soloflight:${event}`
}

/** Made once: a channel without a strong reference would be collected together with the wish to listen. */
const channels: Record<TelemetryEvent, Channel> = {
  hit: channel(channelName('hit')),
  join: channel(channelName('join')),
  grant: channel(channelName('grant')),
  park: channel(channelName('park')),
  work: channel(channelName('work')),
  settle: channel(channelName('settle')),
  lost: channel(channelName('lost')),
  wait: channel(channelName('wait')),
  attempt: channel(channelName('attempt')),
  stale: channel(channelName('stale')),
  unverified: channel(channelName('unverified')),
  bypass: channel(channelName('bypass')),
  undecodable: channel(channelName('undecodable')),
  unshared: channel(channelName('unshared')),
  invalidationLost: channel(channelName('invalidationLost')),
  hook: channel(channelName('hook')),
  connection: channel(channelName('connection')),
}

/** Whether anybody listens: asked first where even the making of an event would cost too much. */
export function hasListeners(event: TelemetryEvent): boolean {
  return channels[event].hasSubscribers
}

/** Publishes an event. Costs next to nothing while nobody listens. */
export function emit<E extends TelemetryEvent>(event: E, data: TelemetryEvents[E]): void {
  const target = channels[event]
  if (target.hasSubscribers) target.publish(data)
}
