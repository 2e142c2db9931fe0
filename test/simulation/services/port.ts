import type {
  Addressed,
  Announcement,
  Dealt,
  Dispatch,
  DispatchReply,
  Health,
  Load,
  Message,
  Registration,
} from '../../../src/services/store/store.ts'
import type { ServicesServer } from './server.ts'

/** The transitions of the store, as they run at the server for one process. */
export interface ServicesPort {
  /** `request` names the request: one that is sent twice has the effect of one. */
  dispatch(dispatch: Dispatch, request: string): DispatchReply
  dispatchAll(service: string, message: Message, request: string): Dealt[]
  report(service: string, load: Load, replies: readonly Addressed[]): void
  register(registrations: readonly Registration[]): void
  unregister(service: string, message: Message): void
  mark(service: string, message: Message): void
  check(service: string, process: string): Health
  count(service: string): number
  prune(service: string, probe: Message): string[]
  send(to: string, message: Message): boolean
  announce(announcement: Announcement): void
  readSetting(service: string, name: string): Buffer | undefined
  writeSetting(service: string, name: string, bytes: Buffer | undefined): boolean
}

/** The transitions of the records, for the process with this address. */
export function portOf(server: ServicesServer, address: string): ServicesPort {
  return {
    dispatch: (dispatch, request) =>
      server.once(request, () => {
        const [reply] = server.apply(dispatch.service, (record, at) => record.dispatch([dispatch], at))
        return reply ?? { kind: 'none' }
      }),
    dispatchAll: (service, message, request) =>
      server.once(request, () =>
        server
          .apply(service, (record, at) => record.dispatchAll(message, at))
          .map((dealt) => ({ kind: 'dealt', ...dealt })),
      ),
    report: (service, load, replies) =>
      server.apply(service, (record, at) => record.report(address, load, replies, at)),
    register: (registrations) => {
      for (const registration of registrations)
        server.apply(registration.service, (record, at) => record.register(address, registration, at))
    },
    unregister: (service, message) =>
      server.apply(service, (record, at) => record.unregister(address, message, at)),
    mark: (service, message) => server.apply(service, (record, at) => record.mark(address, message, at)),
    check: (service, process) => server.apply(service, (record, at) => record.check(process, at)),
    count: (service) => server.apply(service, (record) => record.processes.size),
    prune: (service, probe) => server.apply(service, (record, at) => record.prune(probe, at)),
    send: (to, message) => server.send(to, message),
    announce: (announcement) => server.announce(announcement),
    readSetting: (service, name) => server.apply(service, (record) => record.settings.get(name)),
    writeSetting: (service, name, bytes) =>
      server.apply(service, (record, at) => record.writeSetting(name, bytes, at)),
  }
}
