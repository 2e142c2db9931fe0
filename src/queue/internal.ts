/** Names of the queue for the other layers of this package. */

export { listQueues } from './queue-names.ts'
export type { QueueCensusItem } from './store/census-item.ts'
export { type CommandLoad, MAX_LOAD_COMMANDS, type QueueLoad } from './store/load.ts'
export type { ListedQueues } from './store/register.ts'
export { MAX_DELAY } from './store/store.ts'
export { MAX_POST_JOBS } from './submitting/post.ts'
export { MAX_WAITED_COMMANDS } from './taking/worker-room.ts'
