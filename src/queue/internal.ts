/** Names of the queue for the other layers of this package. */

export { listQueues } from './queue-names.ts'
export type { QueueCensusItem } from './store/census-item.ts'
export type { CommandLoad, QueueLoad } from './store/load.ts'
export type { ListedQueues } from './store/register.ts'
