import { parseHolder, scopeOf } from '../holder.ts'
import type { AttemptRef, TakenAttempt, TakeRequest } from '../store.ts'
import { BatchItem, CallBatcher, type QueueCalls } from './queue-calls.ts'
import { toText } from './wire.ts'

/** The reply when a step has read enough. */
const AGAIN = 1
/** The reply when no job is ready, but some are due. */
const DUE = 2

/** Takes jobs for holders. The calls of one turn are one call of a script. */
export class TakeCalls {
  readonly #calls: QueueCalls
  readonly #takes: CallBatcher
  readonly #searches: CallBatcher

  constructor(calls: QueueCalls, queue: string) {
    const common = { maxItems: 64, valuesPerItem: 1, repliesTime: true }
    this.#calls = calls
    this.#takes = new CallBatcher(calls, calls.scripts.take, {
      ...common,
      tellsRepetition: true,
      sharedArgs: ({ commands }, repetition) => [
        repetition,
        ...commands.map(({ name }) => scopeOf(queue, name)),
      ],
    })
    this.#searches = new CallBatcher(calls, calls.scripts.findTaken, { ...common, sharedArgs: () => [] })
  }

  async take(request: TakeRequest, within: number): Promise<TakenAttempt | 'due' | undefined> {
    let reply: unknown
    do reply = await this.#take(request, within)
    while (reply === AGAIN)
    if (!Array.isArray(reply)) return reply === DUE ? 'due' : undefined
    const [id = '', fence, failures, options = '', payload] = reply.map(toText)
    this.#calls.fenceWatermark.observe(Number(fence))
    return { id, fence: Number(fence), failures: Number(failures), options, payload }
  }

  #take({ command, lease, secret }: TakeRequest, within: number): Promise<unknown> {
    return new Promise((resolve, reject) =>
      this.#takes.add(
        new BatchItem(
          undefined,
          this.#calls.command(command),
          (number) => [`${number} ${lease}`, secret],
          (values, at) => resolve(values[at]),
          reject,
        ),
        within,
      ),
    )
  }

  async findTaken(
    { command, lease, secret }: TakeRequest,
    age: number,
    within: number,
  ): Promise<AttemptRef | undefined> {
    const reply = await new Promise((resolve, reject) =>
      this.#searches.add(
        new BatchItem(
          undefined,
          undefined,
          () => [`${lease} ${Math.ceil(age)}`, secret],
          (values, at) => resolve(values[at]),
          reject,
        ),
        within,
      ),
    )
    if (!Array.isArray(reply)) return undefined
    const [id, fence, address] = reply.map(toText) as [string, string, string]
    return { worker: parseHolder(command, address), id, fence: Number(fence) }
  }
}
