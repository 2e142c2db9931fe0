import { Attachment } from '../../../../src/bus/queue/attachment.ts'
import { Consumer } from '../../../../src/bus/queue/consumer.ts'
import { Consuming } from '../../../../src/bus/queue/consuming.ts'
import { LostMessages } from '../../../../src/bus/queue/lost-messages.ts'
import type { Instance, PushRequest, QueueStore, TopicStore } from '../../../../src/bus/store/store.ts'
import type { BusPlan } from '../plan.ts'
import type { BusMutation } from './mutation.ts'
import {
  CredulousRecord,
  FencelessRecord,
  KeylessRecord,
  MourningRecord,
  OvercountingRecord,
  TailRecord,
  TurnlessRecord,
  UncountingRecord,
  UnrenewedRecord,
} from './records.ts'

/** An instance with other methods of its queues or topics. */
function wrapped(
  instance: Instance,
  changed: { readonly queues?: Partial<QueueStore>; readonly topics?: Partial<TopicStore> },
): Instance {
  return new Proxy(instance, {
    get: (target, name) => {
      if (name === 'queues') return { ...target.queues, ...changed.queues }
      if (name === 'topics') return { ...target.topics, ...changed.topics }
      const value = Reflect.get(target, name, target) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** Replaces a property of a prototype until the returned function is called. */
function replaced(prototype: object, name: string, property: PropertyDescriptor): () => void {
  const original = Object.getOwnPropertyDescriptor(prototype, name)
  if (!original) throw new Error(`Expected a property ${name}`)
  Object.defineProperty(prototype, name, { ...property, configurable: true })
  return () => void Object.defineProperty(prototype, name, original)
}

const only = (mode: keyof BusPlan['modes']) => ({
  default: 0,
  reliable: 0,
  exclusive: 0,
  reader: 0,
  [mode]: 1,
})

/** The known bugs. Each is planted alone, and the checks must find it. */
export const BUS_MUTATIONS: readonly BusMutation[] = [
  {
    name: 'a take that forgets what the consumer has',
    shownBy: 85,
    plan: (plan) => {
      plan.modes = only('reliable')
      Object.assign(plan.faults, { cut: 8 })
    },
    server: (port) => ({
      ...port,
      take: (queue, request) => port.take(queue, { ...request, have: Number.POSITIVE_INFINITY }),
    }),
  },
  {
    name: 'messages of a default consumer that are returned when its lease ends',
    plan: (plan) => {
      plan.modes = only('default')
      Object.assign(plan.faults, { kill: 6, pause: 6 })
    },
    server: (port) => ({
      ...port,
      consume: (queue, request) => port.consume(queue, { ...request, reliable: true }),
    }),
  },
  { name: 'returned messages that go to the tail', queue: () => new TailRecord() },
  { name: 'a count of deliveries that stays 0', queue: () => new UncountingRecord() },
  {
    name: 'a count of deliveries that counts what was not handed over',
    plan: (plan) => {
      plan.calm = true
      plan.modes = only('reliable')
      plan.mix.stops = 0.2
    },
    queue: () => new OvercountingRecord(),
  },
  {
    name: 'an acknowledgement of a message that another consumer holds',
    plan: (plan) => {
      plan.modes = only('reliable')
      plan.mix.late = 1
      Object.assign(plan.faults, { pause: 8, cut: 8 })
    },
    queue: () => new CredulousRecord(),
  },
  {
    name: 'messages of one key that are held at the same time',
    plan: (plan) => Object.assign(plan, { keys: 1, modes: only('reliable') }),
    queue: () => new KeylessRecord(),
  },
  {
    name: 'a turn of a key that is not passed on',
    plan: (plan) => Object.assign(plan, { keys: 1, modes: only('reliable') }),
    queue: () => new TurnlessRecord(),
  },
  {
    name: 'an exclusive consumer that is not released when its lease ends',
    plan: (plan) => {
      plan.modes = only('exclusive')
      Object.assign(plan.faults, { kill: 6, pause: 6 })
    },
    queue: () => new MourningRecord(),
  },
  {
    name: 'a fence that does not grow',
    plan: (plan) => Object.assign(plan, { modes: only('exclusive') }),
    queue: () => new FencelessRecord(),
  },
  { name: 'a renewal that does not reach the consumer', queue: () => new UnrenewedRecord() },
  {
    name: 'two batches of a pusher at once',
    plan: (plan) => Object.assign(plan.mix, { burst: 0.9 }),
    client: (instance) => {
      const { queues } = instance
      const push: QueueStore['push'] = async (queue, request, within) => {
        const half = Math.ceil(request.messages.length / 2)
        const part = (number: number, from: number, to?: number): PushRequest => ({
          ...request,
          number: 2 * request.number + number,
          messages: request.messages.slice(from, to),
        })
        const [first, second] = await Promise.all([
          queues.push(queue, part(0, 0, half), within),
          queues.push(queue, part(1, half), within),
        ])
        if (first.kind === 'detached' || second.kind === 'detached') return { kind: 'detached' }
        return { ...first, count: first.count + second.count }
      }
      return wrapped(instance, { queues: { push } })
    },
  },
  {
    name: 'a batch that is pushed twice when it is sent twice',
    plan: (plan) => Object.assign(plan.faults, { cut: 10 }),
    server: (port) => {
      let times = 0
      return { ...port, push: (queue, request) => port.push(queue, { ...request, number: ++times }) }
    },
  },
  {
    name: 'messages that are handed over after the lease',
    plan: (plan) => {
      plan.mix.iterate = 1
      Object.assign(plan.faults, { pause: 10 })
    },
    install: () => replaced(Consumer.prototype, 'isValid', { get: () => true }),
  },
  {
    name: 'a consumer that does not count the lease of its attachment',
    shownBy: 19,
    plan: (plan) => {
      Object.assign(plan, { ttl: Math.ceil(plan.lease / 2) })
      plan.mix.iterate = 1
      Object.assign(plan.faults, { pause: 10 })
    },
    install: () => replaced(Attachment.prototype, 'isLeaseValid', { get: () => true }),
  },
  {
    name: 'messages that were not handed over, and are not returned by stop',
    plan: (plan) => Object.assign(plan.mix, { stops: 0.2 }),
    client: (instance) => {
      const { queues } = instance
      const leave: QueueStore['leave'] = (queue, { address, acked, unhanded }, within) =>
        queues.leave(queue, { address, acked: [...acked, ...unhanded], unhanded: [] }, within)
      return wrapped(instance, { queues: { leave } })
    },
  },
  {
    name: 'a consumption that begins while its queue is detached',
    shownBy: 15,
    plan: (plan) => {
      plan.modes = only('default')
      Object.assign(plan.acts, { attach: 3, consume: 6 })
    },
    install: () => replaced(Consuming.prototype, 'postpone', { value: () => {} }),
  },
  {
    name: 'a queue that is made again, and not consumed again',
    plan: (plan) => Object.assign(plan.faults, { flush: 4 }),
    client: (instance) => {
      const { queues } = instance
      const consumed = new Set<string>()
      return wrapped(instance, {
        queues: {
          consume: async (queue, request, within) => {
            if (consumed.has(request.address)) return true
            const reply = await queues.consume(queue, request, within)
            if (reply === true) consumed.add(request.address)
            return reply
          },
          take: async (queue, request, within) => {
            const reply = await queues.take(queue, request, within)
            if (reply.kind !== 'lost') return reply
            return { kind: 'taken', messages: [], isAll: true, askAfter: undefined, fence: 0 }
          },
        },
      })
    },
  },
  {
    name: 'an acknowledgement of a lost message that succeeds',
    plan: (plan) => {
      plan.modes = only('reliable')
      plan.mix.late = 1
    },
    install: () => replaced(LostMessages.prototype, 'has', { value: () => false }),
  },
  {
    name: 'an acknowledgement that is confirmed before it is executed',
    plan: (plan) => {
      plan.modes = only('reliable')
      plan.refused = 0.3
    },
    client: (instance) => {
      const { queues } = instance
      const take: QueueStore['take'] = (queue, request, within) =>
        queues.take(queue, request, within).catch((error: Error) => {
          if (request.acked.length === 0) throw error
          return { kind: 'taken', messages: [], isAll: false, askAfter: undefined, fence: 0 }
        })
      return wrapped(instance, { queues: { take } })
    },
  },
  {
    name: 'a push that is sent again to a queue that is lost, though it may have been pushed',
    plan: (plan) => {
      Object.assign(plan.faults, { cut: 15, flush: 6 })
      plan.acts.push = 10
    },
    client: (instance) => {
      const { queues } = instance
      const push: QueueStore['push'] = async (queue, request, within) => {
        const reply = await queues.push(queue, request, within)
        return reply.kind === 'detached' ? { ...reply, isRepeated: false } : reply
      }
      return wrapped(instance, { queues: { push } })
    },
  },
  {
    name: 'a reader that passes over a message',
    plan: (plan) => Object.assign(plan, { modes: { ...only('reader'), reliable: 1 } }),
    server: (port) => ({
      ...port,
      read: (queue, address, after, want) => port.read(queue, address, after > 0 ? after + 1 : after, want),
    }),
  },
  {
    name: 'a subscriber that trusts a jump',
    shownBy: 136,
    plan: (plan) => {
      Object.assign(plan, { keep: 0, retain: false })
      Object.assign(plan.acts, { publish: 6, subscribe: 1 })
      Object.assign(plan.faults, { deafen: 8 })
    },
    client: (instance) => {
      const { topics } = instance
      const listen: TopicStore['listen'] = (topic, listener) => {
        let last: { readonly life: string; readonly number: number } | undefined
        let missed = 0
        return topics.listen(topic, {
          onUp: () => {
            last = undefined
            listener.onUp()
          },
          onDown: () => listener.onDown(),
          onMessages: (life, first, messages) => {
            if (last?.life === life && first > last.number + 1 - missed) missed = first - last.number - 1
            last = { life, number: first + messages.length - 1 }
            listener.onMessages(life, first - missed, messages)
          },
        })
      }
      return wrapped(instance, { topics: { listen } })
    },
  },
  {
    name: 'a gap that is told too small',
    plan: (plan) => {
      Object.assign(plan, { keep: 0, retain: false })
      Object.assign(plan.acts, { publish: 6, subscribe: 1 })
      Object.assign(plan.faults, { deafen: 8 })
    },
    server: (port) => ({
      ...port,
      resume: (topic, life, after, terms) => {
        const reply = port.resume(topic, life, after, terms)
        return reply.life === life && reply.last > after + 1 ? { ...reply, last: reply.last - 1 } : reply
      },
    }),
  },
  {
    name: 'a publication that is published twice when it is sent twice',
    plan: (plan) => {
      Object.assign(plan.acts, { publish: 6, subscribe: 1 })
      Object.assign(plan.faults, { cut: 10 })
    },
    server: (port) => {
      let times = 0
      return {
        ...port,
        publish: (topic, request) => port.publish(topic, { ...request, publisher: String(++times) }),
      }
    },
  },
]
