import { z } from 'zod'
import type { QueueWatcher } from '../../events/queue-watches.ts'
import { begin } from '../handles.ts'
import { type MessageType, message, name } from '../message.ts'
import type { Subscription } from '../subscriptions.ts'

/** A watch of a queue. All of a gateway share one. */
class Watch implements Subscription {
  #leave: (() => void) | undefined
  #isOver = false

  get isOver(): boolean {
    return this.#isOver
  }

  started(leave: () => void): void {
    if (this.#isOver) leave()
    else this.#leave = leave
  }

  end(): void {
    this.#isOver = true
    this.#leave?.()
  }
}

/** Events of queues and jobs. */
export const EVENT_MESSAGES: readonly MessageType[] = [
  message({
    type: 'watch',
    scope: 'read',
    summary:
      'Subscribes to the events of a queue, or of one job of it, with the lines of its log, of all processes. `gap`: some may be missing.',
    members: { queue: name, job: z.string().max(1_024).optional() },
    handle: async (session, { id, values: { queue, job } }) => {
      const watch = new Watch()
      const tell = (members: Record<string, string>) => {
        if (!watch.isOver) void session.push(id, members)
      }
      await begin(session, id, watch, async () => {
        const watcher: QueueWatcher = {
          onEvent: (event) => {
            const isAsked = job === undefined ? event.event !== 'log' : event.id === job
            if (isAsked) tell({ event: JSON.stringify(event) })
          },
          onGap: () => tell({ gap: 'null' }),
        }
        watch.started(await session.deps.watches.watch(queue, watcher, session.caller))
      })
      return undefined
    },
  }),
]
