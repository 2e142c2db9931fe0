import { ClosedError, ConflictError, OverloadedError, UnknownCommandError } from '../errors.ts'
import { newId } from '../kernel/ids.ts'
import { callHook } from '../kernel/user-code.ts'
import { packOptions } from './job-options.ts'
import { checkName, identity } from './names.ts'
import { checkSubmitOptions, type ResolvedQueueOptions, type SubmitOptions } from './options.ts'
import { encodePayload } from './payload.ts'
import type { QueueStore, Submission, SubmitReply } from './store.ts'

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
    const { given, maxPayload, conflict, abortUnwanted, unknownCommands } = this.#options
    const { dedupe, ttl, errorTtl, attempts, backoff } = options
    // Without deduplication no other submission is compared with this one.
    const text = encodePayload(payload, maxPayload, dedupe !== false)
    return {
      id: idOf(command, dedupe, text),
      command,
      payload: text,
      options: packOptions(
        {
          ttl: ttl ?? (dedupe === false ? undefined : given.ttl),
          errorTtl: errorTtl ?? given.errorTtl,
          attempts: attempts ?? given.attempts,
          backoff: backoff ?? given.backoff,
        },
        this.#trace(),
      ),
      nonce: newId(),
      waits,
      conflict: options.conflict ?? conflict,
      delay: Math.round(options.delay ?? 0),
      priority: options.priority ?? 0,
      lifo: options.lifo ?? false,
      abortUnwanted: options.abortUnwanted ?? abortUnwanted,
      known: unknownCommands === 'refuse',
    }
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
      answered: (reply) => {
        if ('generation' in reply) resolve(reply)
        else reject(refusedBecause(reply.status, id, command))
      },
      failed: reject,
      notice: () => {},
    })
  })
}

/** What is thrown by calls after `close`. */
export function closed(): ClosedError {
  return new ClosedError('The queue is closed')
}
