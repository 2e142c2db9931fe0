import { ServiceRecord } from '../../../src/services/store/service-record.ts'
import type { Message, ServicesStore, StoreListener } from '../../../src/services/store/store.ts'
import type { ServicesMutation } from './mutation.ts'

/** The same store with some of its methods replaced. */
function wrapped(store: ServicesStore, changes: Partial<ServicesStore>): ServicesStore {
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(changes, name) ?? Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** The same store, whose messages are changed, or dropped with undefined, before they are read. */
function reading(
  store: ServicesStore,
  change: (message: Message) => Message | undefined,
  changes: Partial<StoreListener> = {},
): ServicesStore {
  return wrapped(store, {
    open: (listener) =>
      store.open({
        onMessage: (message) => {
          const changed = change(message)
          if (changed) listener.onMessage(changed)
        },
        onAnnouncement: (announcement) => listener.onAnnouncement(announcement),
        onUp: () => listener.onUp(),
        ...changes,
      }),
  })
}

/** The same store, that does not send some messages. */
function silent(store: ServicesStore, kind: string): ServicesStore {
  return wrapped(store, {
    send: async (to, message, within) => (message.kind === kind ? true : store.send(to, message, within)),
  })
}

/** A message with one of its fields replaced. */
function withField({ kind, fields, body }: Message, index: number, value: string): Message {
  return { kind, fields: fields.with(index, value), body }
}

/** A record that counts no call as over. */
class ForgetfulRecord extends ServiceRecord {
  override report(...[process, load, replies, context]: Parameters<ServiceRecord['report']>): void {
    super.report(process, { ...load, finished: 0 }, replies, context)
  }

  override register(...[process, registration, context]: Parameters<ServiceRecord['register']>): void {
    const known = this.processes.get(process)
    super.register(process, registration, context)
    const entry = this.processes.get(process)
    if (known && entry) entry.finished = 0
  }
}

/** A record that deals calls to processes that do not listen. */
class TrustingRecord extends ServiceRecord {
  override dispatch(...[dispatches, context]: Parameters<ServiceRecord['dispatch']>) {
    const send = (to: string, messages: readonly Message[]) => {
      context.send(to, messages)
      return true
    }
    return super.dispatch(dispatches, { ...context, send })
  }
}

/** A record that never strikes off a process because its lease is over. */
class PatientRecord extends ServiceRecord {
  override check(...[process, context]: Parameters<ServiceRecord['check']>) {
    return super.check(process, { ...context, now: 0 })
  }

  override dispatch(...[dispatches, context]: Parameters<ServiceRecord['dispatch']>) {
    return super.dispatch(dispatches, { ...context, now: 0 })
  }

  override register(...[process, registration, context]: Parameters<ServiceRecord['register']>): void {
    super.register(process, registration, { ...context, now: 0 })
  }
}

/** The known bugs. Each is planted alone, and the checks must find it. */
export const SERVICES_MUTATIONS: readonly ServicesMutation[] = [
  {
    name: 'a dispatch sent twice that deals twice',
    shownBy: 15,
    plan: (plan) => Object.assign(plan.faults, { cut: 12 }),
    server: (port) => {
      let times = 0
      return { ...port, dispatch: (dispatch, request) => port.dispatch(dispatch, `${request} ${++times}`) }
    },
  },
  {
    name: 'a call that is dealt to two processes',
    server: (port) => ({
      ...port,
      dispatch: (dispatch, request) => {
        const reply = port.dispatch(dispatch, request)
        if (reply.kind === 'dealt')
          port.dispatch({ ...dispatch, preferred: '', avoided: [reply.process] }, `${request} again`)
        return reply
      },
    }),
  },
  { name: 'a record that does not lower the load', record: (service) => new ForgetfulRecord(service) },
  {
    name: 'a process that does not listen, and is not struck off',
    plan: (plan) => Object.assign(plan.faults, { kill: 4 }),
    record: (service) => new TrustingRecord(service),
  },
  {
    name: 'leases that never end',
    plan: (plan) => Object.assign(plan.faults, { kill: 4 }),
    record: (service) => new PatientRecord(service),
  },
  {
    name: 'leases that callers never check',
    plan: (plan) => Object.assign(plan.faults, { kill: 4 }),
    client: (store) => wrapped(store, { check: async () => 1e6 }),
  },
  {
    name: 'a lost process that is believed not to have run the call',
    shownBy: 12,
    client: (store) => {
      const turns = new Map<string, string>()
      const remembering = wrapped(store, {
        dispatch: (dispatch, within, handler) => {
          const [id = '', , , , turn = ''] = dispatch.message.fields
          turns.set(id, turn)
          store.dispatch(dispatch, within, handler)
        },
      })
      return reading(remembering, (message) => {
        const [id = '', process = ''] = message.fields
        if (message.kind !== 'l') return message
        return { ...message, kind: 'n', fields: [id, process, 'closing', turns.get(id) ?? '1'] }
      })
    },
  },
  {
    name: 'calls to a process that may have run them, and say they did not',
    client: (store) =>
      wrapped(store, {
        dispatch: (dispatch, within, handler) =>
          store.dispatch(dispatch, within, {
            onReply: (reply) => handler.onReply(reply.kind === 'dealt' ? { kind: 'none' } : reply),
            onError: (error) => handler.onError(error),
          }),
      }),
  },
  {
    name: 'a lost reply that nobody asks for',
    shownBy: 2,
    plan: (plan) => Object.assign(plan.faults, { deafen: 8 }),
    client: (store) => silent(store, 'q'),
  },
  {
    name: 'a question that is not answered with the reply',
    shownBy: 3,
    plan: (plan) => Object.assign(plan.faults, { deafen: 8 }),
    client: (store) => silent(store, 'v'),
  },
  {
    name: 'a mark that is ignored',
    plan: (plan) => Object.assign(plan.faults, { deafen: 8 }),
    client: (store) => reading(store, (message) => (message.kind === 's' ? undefined : message)),
  },
  {
    name: 'a mark that does not count lost calls',
    shownBy: 2,
    plan: (plan) => Object.assign(plan.faults, { deafen: 8 }),
    client: (store) =>
      reading(store, (message) => (message.kind === 's' ? withField(message, 0, '0') : message)),
  },
  {
    name: 'a late reply of an earlier try that is ignored',
    plan: (plan) => {
      Object.assign(plan, { calls: 80, spikes: 0, refused: 0, latency: 0.2 })
      Object.assign(plan.faults, { pause: 0, kill: 0, cut: 0, deafen: 0, freeze: 0, close: 0, flush: 0 })
      Object.assign(plan.mix, { pemit: 1, stream: 0, broadcast: 0, kills: 0, unregister: 0 })
    },
    client: (store) => {
      const last = new Map<string, string>()
      const noting = wrapped(store, {
        dispatch: (dispatch, within, handler) => {
          const [id = ''] = dispatch.message.fields
          store.dispatch(dispatch, within, {
            onReply: (reply) => {
              if (reply.kind === 'dealt') last.set(id, reply.process)
              handler.onReply(reply)
            },
            onError: (error) => handler.onError(error),
          })
        },
      })
      return reading(noting, (message) => {
        const [id = '', process] = message.fields
        const earlier = 've'.includes(message.kind) && last.has(id) && last.get(id) !== process
        return earlier ? undefined : message
      })
    },
  },
  {
    name: 'a process that closes, and does not hand back its backlog',
    shownBy: 2,
    plan: (plan) => {
      Object.assign(plan.faults, { close: 4 })
      Object.assign(plan.mix, { unregister: 0.2 })
    },
    client: (store) =>
      wrapped(silent(store, 'n'), {
        report: (service, load, replies, within) => {
          const kept = replies.filter(({ message }) => message.fields[2] !== 'closing')
          return store.report(service, load, kept, within)
        },
      }),
  },
  {
    name: 'chunks out of order',
    plan: (plan) => Object.assign(plan.mix, { stream: 0.5 }),
    client: (store) =>
      reading(store, (message) =>
        message.kind === 'd' ? withField(message, 2, String(Number(message.fields[2]) ^ 1)) : message,
      ),
  },
  {
    name: 'a stream that ends before its last chunk',
    shownBy: 20,
    plan: (plan) => Object.assign(plan.mix, { stream: 0.5 }),
    client: (store) =>
      reading(store, (message) => {
        const chunks = Number(message.fields[2] ?? 0)
        return message.kind === 'v' && chunks > 1 ? withField(message, 2, String(chunks - 1)) : message
      }),
  },
  {
    name: 'a reply that is given to another call',
    client: (store) => {
      let last: Buffer | undefined
      return reading(store, (message) => {
        if (message.kind !== 'v' || message.fields.length > 2) return message
        const changed = { ...message, body: last ?? message.body }
        last ??= message.body
        return changed
      })
    },
  },
  {
    name: 'an abort that does not reach the handler',
    plan: (plan) => Object.assign(plan.mix, { abort: 0.6 }),
    client: (store) => silent(store, 'a'),
  },
  {
    name: 'a deadline that does not reach the handler',
    shownBy: 2,
    client: (store) =>
      reading(store, (message) => (message.kind === 'c' ? withField(message, 3, '-') : message)),
  },
  {
    name: 'a registration that is not renewed',
    plan: (plan) => Object.assign(plan.faults, { flush: 3 }),
    client: (store) => {
      let registered = false
      return wrapped(store, {
        register: async (registrations, within) => {
          if (registered) return registrations.map(() => undefined)
          registered = true
          return store.register(registrations, within)
        },
      })
    },
  },
  {
    name: 'a broadcast that waits for all but one',
    plan: (plan) => Object.assign(plan.mix, { broadcast: 0.5 }),
    server: (port) => ({
      ...port,
      dispatchAll: (service, message, request) => port.dispatchAll(service, message, request).slice(1),
    }),
  },
]
