import { ClosedError, ConflictError, OverloadedError, UnknownCommandError } from '../../errors.ts'
import { callHook } from '../../kernel/hooks.ts'
import { newId } from '../../kernel/keys.ts'
import { checkSubmitOptions, type ResolvedQueueOptions, type SubmitOptions } from '../options.ts'
import type { QueueStore, Submission, SubmitReply } from '../store/store.ts'
import { checkName, dedupeId } from './dedupe-id.ts'
import { packOptions } from './job-options.ts'
import { encodePayload } from './payload.ts'

/** A class, so that it is allocated by a constructor: see kernel/collections.ts. */
class NewSubmission implements Submission {
  readonly id: string
  readonly command: string
  readonly payload: string
  readonly options: string
  readonly nonce: string = newId()
  readonly awaited: boolean
  readonly conflict: Submission['conflict']
  readonly delay: number
  readonly priority: number
  readonly lifo: boolean
  readonly abortUnwanted: boolean
  readonly requiresWorker: boolean

  /** `packed`: the options for the worker, as text. */
  constructor(
    id: string,
    command: string,
    payload: string,
    packed: string,
    awaited: boolean,
    options: SubmitOptions,
    defaults: ResolvedQueueOptions,
  ) {
    this.id = id
    this.command = command
    this.payload = payload
    this.options = packed
    this.awaited = awaited
    this.conflict = options.conflict ?? defaults.conflict
    this.delay = Math.round(options.delay ?? 0)
    this.priority = options.priority ?? 0
    this.lifo = options.lifo ?? false
    this.abortUnwanted = options.abortUnwanted ?? defaults.abortUnwanted
    this.requiresWorker = defaults.unknownCommands === 'refuse'
  }
}

/** Creates submissions from the arguments of a call. */
export class SubmissionFactory {
  readonly #options: ResolvedQueueOptions

  constructor(options: ResolvedQueueOptions) {
    this.#options = options
  }

  /** Throws TypeError, CodecError, TooLargeError. */
  create(command: string, payload: unknown, options: SubmitOptions, waits: boolean): Submission {
    checkName('command', command)
    checkSubmitOptions(options)
    const { sentWithJob, maxPayload } = this.#options
    const { dedupe, ttl, errorTtl, attempts, backoff } = options
    // Without deduplication the payload is compared with no other, so it needs no canonical form.
    const text = encodePayload(payload, maxPayload, dedupe !== false)
    const packed = packOptions(
      {
        ttl: ttl ?? (dedupe === false ? undefined : sentWithJob.ttl),
        errorTtl: errorTtl ?? sentWithJob.errorTtl,
        attempts: attempts ?? sentWithJob.attempts,
        backoff: backoff ?? sentWithJob.backoff,
      },
      this.#trace(),
    )
    return new NewSubmission(
      jobIdFor(command, dedupe, text),
      command,
      text,
      packed,
      waits,
      options,
      this.#options,
    )
  }

  /** The trace context that the `trace` hook returns, if it returns a string. */
  #trace(): string | undefined {
    const { trace } = this.#options
    const context: unknown = trace && callHook(undefined, 'trace', trace)
    return typeof context === 'string' ? context : undefined
  }
}

function jobIdFor(command: string, dedupe: SubmitOptions['dedupe'], payload: string): string {
  if (dedupe === false) return newId()
  return dedupe === undefined ? dedupeId(command, 'payload', payload) : dedupeId(command, 'key', dedupe)
}

/** The error for a submission that the store refused. */
export function refusalError(
  status: Exclude<SubmitReply, { generation: number }>['status'],
  key: string,
  command: string,
): Error {
  if (status === 'conflict')
    return new ConflictError('Another payload runs, or is kept, under the same key', { key })
  if (status === 'unknown') return new UnknownCommandError(`No worker for \`${command}\` is known`, { key })
  return new OverloadedError('Too many wait for this job already', { key })
}

/** Submits a job without a waiter. Rejects as `enqueue` does. */
export function submitDetached(
  store: QueueStore,
  submission: Submission,
  within: number,
): Promise<SubmitReply & { status: 'created' | 'joined' | 'cached' }> {
  const { id, command } = submission
  return new Promise((resolve, reject) => {
    store.submit(submission, within, {
      onReply: (reply) => {
        if ('generation' in reply) resolve(reply)
        else reject(refusalError(reply.status, id, command))
      },
      onError: reject,
      onNotice: () => {},
    })
  })
}

/** The error of calls after `close`. */
export function closedError(): ClosedError {
  return new ClosedError('The queue is closed')
}
