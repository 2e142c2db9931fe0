import type {
  AttachReply,
  AttachRequest,
  ConsumeRequest,
  Detached,
  LeaveRequest,
  Lost,
  PublishRequest,
  Pushed,
  PushRequest,
  QueueInfo,
  Read,
  RenewalReply,
  Resumed,
  Taken,
  TakeRequest,
  TopicTerms,
} from '../../../src/bus/store/store.ts'
import type { QueueRecorder, Transition } from './recorder.ts'
import type { BusServer } from './server.ts'

/** The transitions of the records, as they run at the server. */
export interface BusPort {
  attach(queue: string, request: AttachRequest): AttachReply
  detach(queue: string, address: string): void
  renew(queue: string, address: string): RenewalReply
  push(queue: string, request: PushRequest): Pushed | Detached
  consume(queue: string, request: ConsumeRequest): boolean | Detached
  take(queue: string, request: TakeRequest): Taken | Lost | Detached
  leave(queue: string, request: LeaveRequest): void
  read(queue: string, address: string, after: number, want: number): Read | Detached
  inspect(queue: string): QueueInfo | undefined
  flush(queue: string): number
  remove(queue: string, address: string): boolean
  publish(topic: string, request: PublishRequest): number
  resume(topic: string, life: string, after: number, terms: TopicTerms): Resumed
  renewTopic(topic: string, terms: TopicTerms): void
}

/** The transitions of the records. Those of queues are recorded. */
export function portOf(server: BusServer, recorder: QueueRecorder): BusPort {
  const apply = <T>(
    queue: string,
    transition: Transition,
    run: (...args: Parameters<Parameters<BusServer['queue']>[1]>) => T,
  ): T =>
    server.queue(queue, (record, context) =>
      recorder.observe(queue, transition, record, () => run(record, context)),
    )
  return {
    attach: (queue, request) =>
      apply(queue, { kind: 'attach', ...request }, (record, at) =>
        record.attach(request, request.token === '', at),
      ),
    detach: (queue, address) =>
      apply(queue, { kind: 'detach', address }, (record, at) => record.detach(address, at)),
    renew: (queue, address) =>
      apply(queue, { kind: 'renew', address }, (record, at) => record.renew(address, at)),
    push: (queue, request) =>
      apply(queue, { kind: 'push', address: request.address }, (record, at) => record.push(request, at)),
    consume: (queue, request) =>
      apply(queue, { kind: 'consume', ...request }, (record, at) => record.consume(request, at)),
    take: (queue, request) =>
      apply(queue, { kind: 'take', ...request }, (record, at) => record.take(request, at)),
    leave: (queue, request) =>
      apply(queue, { kind: 'leave', ...request }, (record, at) => record.leave(request, at)),
    read: (queue, address, after, want) =>
      apply(queue, { kind: 'read', address }, (record, at) => record.read(address, after, want, at)),
    inspect: (queue) => apply(queue, { kind: 'inspect', address: '' }, (record, at) => record.inspect(at)),
    flush: (queue) => apply(queue, { kind: 'flush', address: '' }, (record, at) => record.flush(at)),
    remove: (queue, address) =>
      apply(queue, { kind: 'remove', address }, (record, at) => record.remove(address, at)),
    publish: (topic, request) =>
      server.topic(topic, (record, at) => record.publish(request, recorder.notePublished(topic, at))),
    resume: (topic, life, after, terms) =>
      server.topic(topic, (record, at) => record.resume(life, after, terms, at)),
    renewTopic: (topic, terms) => server.topic(topic, (record, at) => record.renew(terms, at)),
  }
}
