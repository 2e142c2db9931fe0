import { type Channel, channel } from 'node:diagnostics_channel'
import { masked } from '../secrets.ts'

/** Events that the library publishes on the diagnostics channels `soloflight:<event>`. Durations in ms. */
export interface TelemetryEvents {
  /** A result was served from this process's cache (`local`) or from the store. */
  hit: { key: string; local: boolean }
  /** A caller joined an open flight of this process. */
  join: { key: string }
  /** A claim was granted: this process is the processor. `takeover`: the lease of the previous holder had expired. */
  grant: { key: string; fence: number; takeover: boolean }
  /** This process waits for a processor elsewhere; `trace` is that processor's trace context, to link a span to. */
  park: { key: string; fence: number; trace: string | undefined }
  /** A work of this process has ended after `ms`. */
  work: { key: string; fence: number; ms: number; failed: boolean }
  /** The store has accepted a result or failure of this process. */
  settle: { key: string; fence: number; failed: boolean }
  /** This process has lost a lease. */
  lost: { key: string; fence: number }
  /** A waiter was settled after `ms`. `outcome`: 'result', 'lease', the code of the error, or 'error' if it has none. */
  wait: { key: string; ms: number; outcome: string }
  /** A handler of a queue ran in this process for `ms`, and its outcome was accepted. */
  attempt: {
    queue: string
    command: string
    id: string
    fence: number
    attempt: number
    ms: number
    failed: boolean
  }
  /** A handler of a service ran in this process for `ms`. `failed`: whether it has thrown. */
  serve: { service: string; handler: string; id: string; ms: number; failed: boolean }
  /** A process serves a service from now on (`up`), or no longer: it was closed, has died, or is paused. */
  process: { service: string; process: string; up: boolean }
  /** A batch of messages was pushed to a queue of a bus within `ms`. `pushed`: less than `messages` if the queue was full; 0 on an error. */
  push: { queue: string; messages: number; pushed: number; ms: number; error?: Error | undefined }
  /** A message of a queue of a bus was handed over. */
  deliver: { queue: string; id: number; redelivered: number }
  /**
   * This process is attached to a queue of a bus, or no longer. `remade`: the queue was lost with its server, and was made again;
   * `expired`: this process was paused for longer than its lease.
   */
  attachment: { queue: string; change: 'attached' | 'detached' | 'remade' | 'expired' | 'closed' }
  /** A subscriber of a topic of a bus has missed messages; undefined: it is not known how many. */
  gap: { topic: string; missed: number | undefined }
  /** An instance of a bus can be reached, or no longer. */
  instance: { instance: string; up: boolean }
  /** A result was served that has been stale for `staleFor` ms. */
  stale: { key: string; staleFor: number }
  /**
   * A result of this process's cache was served while Redis was unavailable: an invalidation of it may have been missed.
   * `staleFor`: how long it has been stale, ms; 0 while it is fresh.
   */
  unverified: { key: string; staleFor: number }
  /** A work runs without a claim (hit-for-pass): recent results of the key were not kept, so callers do not wait. */
  bypass: { key: string }
  /**
   * A stored value could not be decoded: another codec wrote it. A Locker computes it again; a bus drops the message: `fence` is
   * its id, or 0 for a message of a topic.
   */
  undecodable: { key: string; fence: number }
  /** A work ran for this process alone, because Redis was unavailable. */
  unshared: { key: string }
  /** A resource of an HTTP cache changed while Redis was unavailable, and its invalidation was discarded. */
  invalidationLost: { key: string }
  /**
   * A client of a gateway has changed something, or was refused: the audit event. `who`: the name of its token, undefined if
   * it has none. `action`: 'submit', 'cancel', 'retry', 'remove', 'erase', 'stop', 'start' and others. `count`: jobs that were
   * changed. `status`: of the answer.
   */
  'gateway:action': {
    who: string | undefined
    action: string
    queue: string | undefined
    id: string | undefined
    count: number | undefined
    status: number
  }
  /** A hook or listener of the user threw or rejected. */
  hook: { hook: string; error: unknown }
  /** The command connection or the subscription was established or lost. */
  connection: { link: 'commands' | 'subscription'; up: boolean; error?: Error | undefined }
}

/** The name of an event of telemetry. */
export type TelemetryEvent = keyof TelemetryEvents

/** Name of the diagnostics channel on which an event is published. */
export function channelName(event: TelemetryEvent): string {
  return `soloflight:${event}`
}

/** Held here because Node collects a channel without a strong reference, together with its subscribers. */
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
  serve: channel(channelName('serve')),
  process: channel(channelName('process')),
  push: channel(channelName('push')),
  deliver: channel(channelName('deliver')),
  attachment: channel(channelName('attachment')),
  gap: channel(channelName('gap')),
  instance: channel(channelName('instance')),
  stale: channel(channelName('stale')),
  unverified: channel(channelName('unverified')),
  bypass: channel(channelName('bypass')),
  undecodable: channel(channelName('undecodable')),
  unshared: channel(channelName('unshared')),
  invalidationLost: channel(channelName('invalidationLost')),
  'gateway:action': channel(channelName('gateway:action')),
  hook: channel(channelName('hook')),
  connection: channel(channelName('connection')),
}

/** Whether an event has subscribers: for callers that would otherwise create event data in vain. */
export function hasListeners(event: TelemetryEvent): boolean {
  return channels[event].hasSubscribers
}

export function emit<E extends TelemetryEvent>(event: E, data: TelemetryEvents[E]): void {
  const target = channels[event]
  if (target.hasSubscribers) target.publish(data)
}

/** Messages that were emitted, by code. */
const emitted = new Map<string, Set<string>>()

/** Different messages of one code, at most: a message may contain text that user code threw. */
const MAX_PER_CODE = 100

/**
 * Emits a process warning (`process.emitWarning`: on stderr, and to listeners of 'warning') once for each code and message.
 * Codes are stable. The stack of `cause` is the detail of the warning, if it is an error.
 */
export function warnOnce(code: `SOLOFLIGHT_${string}` | 'E_HOOK', text: string, cause?: unknown): void {
  const message = masked(text)
  const messages = emitted.get(code) ?? new Set()
  emitted.set(code, messages)
  if (messages.has(message) || messages.size >= MAX_PER_CODE) return
  messages.add(message)
  emitWarning(message, { type: 'SoloflightWarning', code }, cause)
}

/** Emits a process warning with credentials masked. The stack of `cause` is its detail, if it is an error. */
export function emitWarning(
  message: string,
  options: { type: string; code?: string },
  cause?: unknown,
): void {
  const detail = cause instanceof Error && { detail: masked(String(cause.stack)) }
  process.emitWarning(masked(message), { ...options, ...detail })
}
