import { ClosedError, ConflictError, OverloadedError, UnknownCommandError } from '../../errors.ts'
import { newId } from '../../kernel/ids.ts'
import { callHook } from '../../kernel/work/user-code.ts'
import { checkSubmitOptions, type ResolvedQueueOptions, type SubmitOptions } from '../options.ts'
import type { QueueStore, Submission, SubmitReply } from '../store/store.ts'
import { checkName, identity } from './dedupe-id.ts'
import { packOptions } from './job-options.ts'
import { encodePayload } from './payload.ts'

/** Made by a constructor: see kernel/churn.ts. */
class MadeSubmission implements Submission {
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

  /** `packed`: what of the options the worker reads. */
  constructor(
    id: string,
    command: string,
    payload: string,
    packed: string,
    waits: boolean,
    options: SubmitOptions,
    own: ResolvedQueueOptions,
  ) {
    this.id = id
    this.command = command
    this.payload = payload
    this.options = packed
    this.awaited = waits
    this.conflict = options.conflict ?? own.conflict
    this.delay = Math.round(options.delay ?? 0)
    this.priority = options.priority ?? 0
    this.lifo = options.lifo ?? false
    this.abortUnwanted = options.abortUnwanted ?? own.abortUnwanted
    this.requiresWorker = own.unknownCommands === 'refuse'
  }
}

/** Makes submissions out of what a caller says. */
export class Submissions {
  readonly #options: ResolvedQueueOptions

  constructor(options: ResolvedQueueOptions) {
    this.#options = options
  }

  /** Throws TypeError, CodecError, TooLargeError. */
  make(command: string, payload: unknown, options: SubmitOptions, waits: boolean): Submission {
    checkName('command', command)
    checkSubmitOptions(options)
    const { given, maxPayload } = this.#options
    const { dedupe, ttl, errorTtl, attempts, backoff } = options
    // Without deduplication no other submission is compared with this one.
    const text = encodePayload(payload, maxPayload, dedupe !== false)
    const packed = packOptions(
      {
        ttl: ttl ?? (dedupe === false ? undefined : given.ttl),
        errorTtl: errorTtl ?? given.errorTtl,
        attempts: attempts ?? given.attempts,
        backoff: backoff ?? given.backoff,
      },
      this.#trace(),
    )
    return new MadeSubmission(
      idOf(command, dedupe, text),
      command,
      text,
      packed,
      waits,
      options,
      this.#options,
    )
  }

  /** The trace context that the user's hook returns, if it returns one. */
  #trace(): string | undefined {
    const { trace } = this.#options
    const context: unknown = trace && callHook(undefined, 'trace', trace)
    return typeof context === 'string' ? context : undefined
  }
}

function idOf(command: string, dedupe: SubmitOptions['dedupe'], payload: string): string {
  if (dedupe === false) return newId()
  return dedupe === undefined ? identity(command, 'payload', payload) : identity(command, 'key', dedupe)
}

/** Why a job was refused by the store. */
export function refusedBecause(
  status: Exclude<SubmitReply, { generation: number }>['status'],
  key: string,
  command: string,
): Error {
  if (status === 'conflict')
    return new ConflictError('Another payload runs, or is kept, under the same key', { key })
  if (status === 'unknown') return new UnknownCommandError(`No worker for \`${command}\` is known`, { key })
  return new OverloadedError('Too many wait for this job already', { key })
}

/** Hands in what nobody waits for yet. Rejects as `enqueue` does. */
export function handIn(
  store: QueueStore,
  submission: Submission,
  within: number,
): Promise<SubmitReply & { status: 'created' | 'joined' | 'cached' }> {
  const { id, command } = submission
  return new Promise((resolve, reject) => {
    store.submit(submission, within, {
      onReply: (reply) => {
        if ('generation' in reply) resolve(reply)
        else reject(refusedBecause(reply.status, id, command))
      },
      onError: reject,
      onNotice: () => {},
    })
  })
}

/** What is thrown by calls after `close`. */
export function closed(): ClosedError {
  return new ClosedError('The queue is closed')
}
