import { OverloadedError, TimeoutError } from '../errors.ts'
import { Fifo } from '../kernel/collections.ts'
import type { Call } from '../services/index.ts'

/**
 * Answers a request: `reply(error)`, or `reply(null, result)`; the first of these counts. Before it, any number of `reply(null,
 * part, true)`: parts of the reply, for a requester that reads it by `stream`; other requesters do not get them. In that case the
 * result may be an AsyncIterable, whose values are sent as they are read.
 */
export interface ReplyFunction<Result> {
  /** @throws OverloadedError if 10,000 parts wait for the requester to read them. */
  (error: unknown, result?: Result | AsyncIterable<Result>, isPart?: boolean): void
  /** The call behind the request: its caller, the time left, and the signal that aborts when the reply is no longer wanted. */
  readonly call: Call
}

/** Parts of one reply that may wait to be read. */
const MAX_PARTS = 10_000

/** Receives a request, and calls `reply`. */
type Answer<Result> = (reply: ReplyFunction<Result>) => void

/** Resolves with the result of a request. */
export function replyAtOnce<Result>(
  call: Call,
  answer: Answer<Result>,
): Promise<Result | AsyncIterable<Result> | undefined> {
  return new Promise((resolve, reject) => {
    const reply = (error: unknown, result?: Result | AsyncIterable<Result>, isPart = false) => {
      if (error !== null && error !== undefined) reject(error)
      else if (!isPart) resolve(result)
    }
    // Otherwise a request without a reply would take up capacity for ever.
    const onAbort = () => reject(new TimeoutError('The request was not replied to in time'))
    call.signal.addEventListener('abort', onAbort, { once: true })
    answer(Object.assign(reply, { call }))
  })
}

type End<Result> =
  | { readonly kind: 'error'; readonly error: unknown }
  | { readonly kind: 'result'; readonly result: Result | AsyncIterable<Result> | undefined }

/** Yields the parts of a reply, and its result unless that is undefined. */
export async function* replyInParts<Result>(call: Call, answer: Answer<Result>): AsyncGenerator<Result> {
  const parts = new Fifo<Result>()
  let end: End<Result> | undefined
  let wake = () => {}
  const reply = (error: unknown, result?: Result | AsyncIterable<Result>, isPart = false) => {
    if (end) return
    if (error !== null && error !== undefined) end = { kind: 'error', error }
    else if (!isPart) end = { kind: 'result', result }
    else if (parts.size >= MAX_PARTS) throw new OverloadedError(`${MAX_PARTS} parts of a reply wait`)
    else parts.push(result as Result)
    wake()
  }
  call.signal.addEventListener('abort', () => wake(), { once: true })
  answer(Object.assign(reply, { call }))
  while (!call.signal.aborted) {
    while (parts.size > 0) yield parts.shift() as Result
    if (end) return yield* resultOf(end)
    await new Promise<void>((resolve) => {
      wake = resolve
    })
  }
}

async function* resultOf<Result>(end: End<Result>): AsyncGenerator<Result> {
  if (end.kind === 'error') throw end.error
  const { result } = end
  if (isAsyncIterable(result)) yield* result
  else if (result !== undefined) yield result
}

function isAsyncIterable<T>(value: T | AsyncIterable<T>): value is AsyncIterable<T> {
  return typeof (value as Partial<AsyncIterable<T>> | null | undefined)?.[Symbol.asyncIterator] === 'function'
}
