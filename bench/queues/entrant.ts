import type { OpenQueues } from './queue.ts'

/** One library among the others. */
export interface QueueEntrant {
  /** The package that it is, for its version. */
  package?: string
  load: () => Promise<{ open: OpenQueues }>
}

/** Everybody, by name. */
export const QUEUE_ENTRANTS = {
  soloflight: { load: () => import('./soloflight.ts') },
  'bee-queue': { package: 'bee-queue', load: () => import('./bee-queue.ts') },
  BullMQ: { package: 'bullmq', load: () => import('./bullmq.ts') },
} as const satisfies Record<string, QueueEntrant>

export type QueueName = keyof typeof QUEUE_ENTRANTS
