/** What a queue of this process answers to a census. Ages in ms, when it was answered. */
export type QueueCensusItem = {
  readonly queue: string
  readonly prefix: string
  readonly command: string
} & (
  | {
      readonly kind: 'worker'
      readonly concurrency: number
      /** Handlers that run or are about to. */
      readonly busy: number
      /** It has no handler, but a slot for each call of `take` that waits. */
      readonly takes?: true
    }
  | {
      readonly kind: 'running'
      readonly id: string
      readonly fence: number
      readonly attempt: number
      /** How long its handler has run. */
      readonly age: number
    }
  | {
      /** A job whose outcome callers of this process wait for. */
      readonly kind: 'waiting'
      readonly id: string
      /** How long they have waited. */
      readonly age: number
      readonly waiters: number
    }
)
