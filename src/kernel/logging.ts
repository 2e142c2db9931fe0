import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { masked } from '../secrets.ts'
import { messageOf } from './codec/codec.ts'
import { describeFailure } from './codec/failure.ts'
import { type Check, checkFunction, oneOf } from './options.ts'
import { channelName, type TelemetryEvent, type TelemetryEvents, warnOnce } from './telemetry.ts'

const LEVELS = ['error', 'warn', 'info', 'debug'] as const

/** Levels of a log, the most severe first. */
export type LogLevel = (typeof LEVELS)[number]

/** A logger: the console, pino, or any with these methods. */
export type Logger = { [Level in LogLevel]: (...args: never[]) => unknown }

/** The level of an event and its text; others if the event is a special one. */
type Row<E extends TelemetryEvent> = readonly [
  level: LogLevel,
  text: string,
  special?: readonly [applies: (data: TelemetryEvents[E]) => boolean, level: LogLevel, text: string],
]

/** Ordinary calls are debug; what an operator should look at is warn; what is wrong in the program or lost is error. */
const EVENTS: { readonly [E in TelemetryEvent]: Row<E> } = {
  hit: ['debug', 'a result was served from the cache'],
  join: ['debug', 'a caller joined a flight'],
  grant: [
    'debug',
    'a lease was granted',
    [({ takeover }) => takeover, 'warn', 'a lease was taken over from a processor that let it expire'],
  ],
  park: ['debug', 'a flight waits for another process'],
  work: ['debug', 'a work has ended', [({ failed }) => failed, 'info', 'a work has failed']],
  settle: ['debug', 'an outcome was accepted'],
  lost: ['warn', 'a lease was lost'],
  wait: ['debug', 'a caller was settled'],
  attempt: ['debug', 'a job has ended', [({ failed }) => failed, 'warn', 'an attempt of a job has failed']],
  serve: [
    'debug',
    'a call was served',
    [({ failed }) => failed, 'info', 'a handler of a service has failed'],
  ],
  process: [
    'info',
    'a process serves a service',
    [({ up }) => !up, 'warn', 'a process serves a service no more'],
  ],
  push: [
    'debug',
    'messages were pushed',
    [({ messages, pushed }) => pushed < messages, 'info', 'messages were not pushed'],
  ],
  deliver: [
    'debug',
    'a message was handed over',
    [({ redelivered }) => redelivered > 0, 'info', 'a message was delivered again'],
  ],
  attachment: [
    'info',
    'a queue is attached, or no more',
    [
      ({ change }) => change === 'remade' || change === 'expired',
      'warn',
      'a queue was lost with its server, or this process stood still for longer than its lease',
    ],
  ],
  gap: ['warn', 'a subscriber has missed messages'],
  instance: [
    'info',
    'an instance of a bus is up',
    [({ up }) => !up, 'warn', 'an instance of a bus was lost'],
  ],
  stale: ['debug', 'a stale result was served'],
  unverified: ['debug', 'a cached result was served while Redis is away'],
  bypass: ['debug', 'a work runs beside others'],
  undecodable: ['warn', 'a stored value could not be decoded'],
  unshared: ['info', 'a work runs for this process alone: Redis is away'],
  invalidationLost: ['error', 'an invalidation was discarded while Redis was away'],
  'gateway:action': [
    'info',
    'a client of a gateway has changed something',
    [({ action }) => action === 'submit', 'debug', 'a client of a gateway has posted jobs'],
  ],
  hook: ['error', 'a hook or listener has thrown'],
  connection: ['info', 'a connection is up', [({ up }) => !up, 'warn', 'a connection was lost']],
}

/**
 * Writes the telemetry of all layers of this process to a logger, from `level` to error, until the returned function is
 * called. Every entry has the field `event`, its name, and the fields of the event, with credentials in URLs masked. Events
 * below the level cost nothing.
 *
 * A logger with a method `child` and without a method `log` (pino, bunyan, that of Fastify) is called as `(fields, text)`; any
 * other (the console, winston) as `(text, fields)`. An exception of the logger is a process warning with the code E_HOOK.
 *
 * @throws TypeError if a method of the logger is missing, or the level is unknown.
 * @example
 * const stop = logTo(console, 'warn')
 */
export function logTo(logger: Logger, level: LogLevel = 'info'): () => void {
  checkLogger('logger', logger)
  checkLogLevel('level', level)
  const write = logWriter(logger, level, '`logTo`')
  const isWanted = (of: LogLevel) => isAtLeast(of, level)
  const undo = (Object.keys(EVENTS) as TelemetryEvent[]).map((event) => {
    const [usual, text, [applies, unusual, otherText] = []] = EVENTS[event] as Row<never>
    if (!isWanted(usual) && !(unusual && isWanted(unusual))) return () => {}
    const listener = (data: unknown) => {
      const isUnusual = applies?.(data as never) === true && unusual !== undefined
      write(isUnusual ? unusual : usual, isUnusual ? (otherText ?? text) : text, {
        event,
        ...(data as object),
      })
    }
    subscribe(channelName(event), listener)
    return () => unsubscribe(channelName(event), listener)
  })
  return () => {
    for (const stop of undo) stop()
  }
}

/** Checks a logger. @throws TypeError if one of its methods is missing. */
export const checkLogger: Check = (path, logger) => {
  for (const name of LEVELS) checkFunction(`${path}.${name}`, (logger as Partial<Logger> | undefined)?.[name])
}

export const checkLogLevel: Check = oneOf(LEVELS)

function isAtLeast(level: LogLevel, least: LogLevel): boolean {
  return LEVELS.indexOf(level) <= LEVELS.indexOf(least)
}

/** Writes an entry to a logger. Its fields may hold anything: credentials in them are masked. Never throws. */
export type LogWriter = (level: LogLevel, text: string, fields: object) => void

/** Entries from `least` to error, in the order of arguments that the logger expects. `what`: the part that logs, for a warning. */
export function logWriter(logger: Logger, least: LogLevel, what: string): LogWriter {
  const fieldsFirst = takesFieldsFirst(logger)
  return (level, text, data) => {
    if (!isAtLeast(level, least)) return
    guarded(what, () => {
      const message = `soloflight: ${text}`
      const fields = fieldsOf(data)
      const args = fieldsFirst ? [fields, message] : [message, fields]
      return logger[level](...(args as never[]))
    })
  }
}

/** pino, bunyan and their like. winston has `child` too, but takes the text first. */
function takesFieldsFirst(logger: object): boolean {
  const { child, log } = logger as { child?: unknown; log?: unknown }
  return typeof child === 'function' && typeof log !== 'function'
}

/** The fields of an event for a log: texts without credentials, errors as plain data without their stack. */
function fieldsOf(data: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(data).map(([name, value]) => {
      if (name === 'error') return [name, value === undefined ? undefined : describeFailure(value)]
      return [name, typeof value === 'string' ? masked(value) : value]
    }),
  )
}

/** Calls a logger, whose errors must neither end the process nor be logged by itself again. */
function guarded(what: string, log: () => unknown): void {
  const onError = (error: unknown) => warnOnce('E_HOOK', `${what} failed: ${messageOf(error)}`, error)
  try {
    const returned = log()
    const { then } = (returned ?? {}) as { then?: unknown }
    if (typeof then === 'function') then.call(returned, undefined, onError)
  } catch (error) {
    onError(error)
  }
}
