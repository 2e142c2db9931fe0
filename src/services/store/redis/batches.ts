import type { Addressed, Dispatch, DispatchHandler, Load } from '../store.ts'

/** Services that one script registers or unregisters at most. It blocks the server, so it must be short. */
export const MAX_SERVICES = 50

/** A call to be dealt. A class, not a literal: see kernel/collections.ts. */
export class DispatchItem {
  readonly dispatch: Dispatch
  readonly handler: DispatchHandler

  constructor(dispatch: Dispatch, handler: DispatchHandler) {
    this.dispatch = dispatch
    this.handler = handler
  }

  get bytes(): number {
    return this.dispatch.message.body.length
  }
}

/** A report to be sent. */
export class ReportItem {
  readonly load: Load
  readonly replies: readonly Addressed[]
  readonly bytes: number
  readonly resolve: () => void
  readonly reject: (error: Error) => void

  constructor(
    load: Load,
    replies: readonly Addressed[],
    resolve: () => void,
    reject: (error: Error) => void,
  ) {
    this.load = load
    this.replies = replies
    this.bytes = replies.reduce((sum, { message }) => sum + message.body.length, 0)
    this.resolve = resolve
    this.reject = reject
  }
}

/** A service that is to be unregistered, and the message after its last call. */
export class UnregisterItem {
  readonly service: string
  readonly message: Buffer
  readonly resolve: () => void
  readonly reject: (error: Error) => void

  constructor(service: string, message: Buffer, resolve: () => void, reject: (error: Error) => void) {
    this.service = service
    this.message = message
    this.resolve = resolve
    this.reject = reject
  }

  get bytes(): number {
    return this.message.length
  }
}
