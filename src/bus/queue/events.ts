/** Data of a message beside its value. */
export interface MessageInfo {
  /** Number of earlier deliveries to consumers that did not acknowledge it. */
  readonly redelivered: number
  /** The key that it was pushed with. */
  readonly key: string | undefined
  /** Fence of an exclusive consumer: grows with each takeover. */
  readonly fence: number | undefined
}

/** A message, as an iteration yields it. */
export interface QueueMessage<M> extends MessageInfo {
  readonly value: M
  readonly id: number
}

/** Events of a Queue. */
export interface QueueEvents<M> {
  attaching: []
  /** `existed`: whether the queue existed; otherwise it was made. */
  attached: [existed: boolean]
  detaching: []
  detached: []
  consuming: [on: boolean]
  message: [value: M, id: number, info: MessageInfo]
  /** The queue was closed, or has expired, here or elsewhere. */
  closed: []
}
