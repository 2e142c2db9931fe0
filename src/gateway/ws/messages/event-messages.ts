import { z } from 'zod'
import { type MessageType, message, name } from '../message.ts'
import type { Session, Subscription } from '../session.ts'

/** A feed of events of a queue. */
class Feed implements Subscription {
  readonly #ended = new AbortController()

  get signal(): AbortSignal {
    return this.#ended.signal
  }

  end(): void {
    this.#ended.abort()
  }
}

/** Events of queues and jobs. */
export const EVENT_MESSAGES: readonly MessageType[] = [
  message({
    type: 'watch',
    scope: 'read',
    summary: 'Subscribes to the events of a queue, or of one job of it, of all processes.',
    members: { queue: name, job: z.string().max(1_024).optional() },
    handle: async (session, { id, values: { queue, job } }) => {
      const feed = new Feed()
      session.subscribe(id, feed)
      try {
        await watch(session, id, feed.signal, queue, job)
      } catch (error) {
        await session.unsubscribe(id)
        throw error
      }
      return undefined
    },
  }),
]

/** Resolves when events arrive. The queue stays open until the feed has ended. */
function watch(
  session: Session,
  id: string | number,
  ended: AbortSignal,
  name: string,
  job: string | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const run = session.deps.queues.wait(name, async (queue) => {
      const stop = await queue.watch((event) => {
        if (!ended.aborted && (job === undefined || event.id === job))
          void session.push(id, { event: JSON.stringify(event) })
      })
      resolve()
      await new Promise<void>((done) => {
        if (ended.aborted) done()
        else ended.addEventListener('abort', () => done(), { once: true })
      })
      stop()
    })
    run.catch(reject)
  })
}
