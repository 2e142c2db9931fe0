import { parseTagVersions, serializeTagVersions } from '../../../src/locker/cache/tag-guard.ts'
import type { ClaimReply, Outcome, Store } from '../../../src/locker/store/store.ts'
import { keyOf } from './keys.ts'
import type { Mutation } from './mutation.ts'
import type { Plan } from './plan.ts'
import type { Port } from './port.ts'

/** The same store with some of its methods replaced. */
function wrapped(store: Store, changes: Partial<Store>): Store {
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(changes, name) ?? Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

const asValid = (outcome: Outcome): Outcome => ({ ...outcome, invalidated: false })

/** A store that never reports that a result was invalidated. */
function withoutInvalidations(store: Store): Store {
  return wrapped(store, {
    claim: (claim, within, claimer) =>
      store.claim(claim, within, {
        sending: () => claimer.sending(),
        claimFailed: (error, attempt) => claimer.claimFailed(error, attempt),
        claimed: (reply, attempt) =>
          claimer.claimed(
            reply.status === 'done' ? { ...reply, outcome: asValid(reply.outcome) } : reply,
            attempt,
          ),
        notice: (notice) =>
          claimer.notice(
            notice.kind === 'outcome' ? { ...notice, outcome: asValid(notice.outcome) } : notice,
          ),
      }),
    settle: async (settlement, within) => ({
      ...(await store.settle(settlement, within)),
      invalidated: false,
    }),
    renew: async (grant, within) => ({ ...(await store.renew(grant, within)), invalidated: false }),
  })
}

/** A store whose replies to claims are changed. */
function withReplies(store: Store, change: (reply: ClaimReply) => ClaimReply): Store {
  return wrapped(store, {
    claim: (claim, within, claimer) =>
      store.claim(claim, within, {
        sending: () => claimer.sending(),
        claimFailed: (error, attempt) => claimer.claimFailed(error, attempt),
        notice: (notice) => claimer.notice(notice),
        claimed: (reply, attempt) => claimer.claimed(change(reply), attempt),
      }),
  })
}

/** A port that remembers calls, so that a repeated call behaves differently. */
function counting(port: Port, again: (port: Port) => Partial<Port>): Port {
  return { ...port, ...again(port) }
}

/** All processes have caches with long ttls, and the run is long enough to show stale entries. */
function relyOnCaches(plan: Plan): void {
  const duration = Math.max(plan.duration, 8000)
  plan.mix.invalidate = 0.4
  Object.assign(plan, { calm: false, cached: 1, duration, ttls: [10 * duration], calls: 60, evicts: false })
}

/** The planted bugs. Each is planted alone, and the checker must find it. */
export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'a claim that is not idempotent',
    shownBy: 43,
    server: (port) =>
      counting(port, ({ claim }) => {
        const seen = new Map<string, number>()
        return {
          claim: (wanted) => {
            const token = `${wanted.nonce}.${wanted.attempt}`
            const times = seen.get(token) ?? 0
            seen.set(token, times + 1)
            return claim({ ...wanted, attempt: wanted.attempt + times * 1000 })
          },
        }
      }),
  },
  {
    name: 'a publish that is not idempotent',
    shownBy: 39,
    server: (port) =>
      counting(port, ({ settle }) => {
        const accepted = new Set<string>()
        return {
          settle: async (settlement) => {
            const name = `${settlement.record} ${settlement.fence}`
            if (accepted.has(name)) return { accepted: false, invalidated: false }
            const reply = await settle(settlement)
            if (reply.accepted) accepted.add(name)
            return reply
          },
        }
      }),
  },
  {
    name: 'an unfenced publish',
    server: (port, server) => ({
      ...port,
      settle: async (settlement) => {
        const reply = await port.settle(settlement)
        if (reply.accepted || settlement.kind === 'error') return reply
        const { record: key, bytes, fence, ttl } = settlement
        server.apply(key, (record, at) => {
          const times = { freshUntil: at.now + ttl, staleUntil: 0, acceptedAt: at.now }
          record.value = { bytes, fence, tags: '', ...times }
        })
        return { accepted: true, invalidated: false }
      },
    }),
  },
  {
    name: 'a fence that starts over when the record is lost',
    surroundings: (at) => ({ ...at, micros: 1, highestFence: 0 }),
  },
  {
    name: 'a renewal that ignores its grant',
    server: (port, server) => ({
      ...port,
      renew: async (grant) => {
        const reply = await port.renew(grant)
        if (reply.held || !server.find(grant.record)?.lease) return reply
        server.apply(grant.record, ({ lease }, at) => {
          if (lease) lease.expiresAt = at.now + grant.lease
        })
        return { held: true, invalidated: false }
      },
    }),
  },
  {
    name: 'a parked flight that does not poll',
    client: (store) =>
      withReplies(store, (reply) => (reply.status === 'parked' ? { ...reply, leaseLeft: 1e9 } : reply)),
  },
  {
    name: 'an unwanted grant is not released',
    shownBy: 11,
    client: (store, world) =>
      wrapped(store, {
        release: async (release, within) => {
          const { fence } = release
          const used = world.history.works.some(
            (work) => work.key === keyOf(release.record) && work.fence === fence,
          )
          return used ? store.release(release, within) : { released: true, fence: undefined }
        },
      }),
  },
  {
    name: 'a late reply to a claim is ignored',
    shownBy: 14,
    client: (store) =>
      wrapped(store, {
        claim: (claim, within, claimer) => {
          let refused = false
          store.claim(claim, within, {
            sending: () => claimer.sending(),
            notice: (notice) => claimer.notice(notice),
            claimFailed: (error, attempt) => {
              refused = true
              claimer.claimFailed(error, attempt)
            },
            claimed: (reply, attempt) => {
              if (!refused) claimer.claimed(reply, attempt)
            },
          })
        },
      }),
  },
  {
    name: 'a release that notifies no flight',
    shownBy: 247,
    surroundings: (at) => ({
      ...at,
      notify: (park, notice) => notice.kind === 'free' || at.notify(park, notice),
    }),
  },
  {
    name: 'an invalidation that spares the running grant',
    shownBy: 20,
    server: (port, server) => ({
      ...port,
      invalidate: async (key) => {
        const invalidated = server.find(key)?.invalidatedUpTo
        const reply = await port.invalidate(key)
        if (invalidated !== undefined) {
          server.apply(key, (record) => {
            record.invalidatedUpTo = invalidated
          })
        }
        return reply
      },
    }),
  },
  {
    name: 'an invalidated value is given to later callers',
    shownBy: 81,
    client: (store) => withoutInvalidations(store),
  },
  {
    name: 'a cache that does not hear of invalidations',
    shownBy: 11,
    client: (store) =>
      wrapped(store, {
        listen: (listener) =>
          store.listen({
            up: () => listener.up(),
            down: () => listener.down(),
            invalidated: () => {},
            tagInvalidated: (tag, version) => listener.tagInvalidated(tag, version),
          }),
      }),
  },
  {
    name: 'a lost subscription that is not noticed',
    shownBy: 21,
    plan: (plan) => {
      relyOnCaches(plan)
      plan.faults.deafen = 6
    },
    client: (store) =>
      wrapped(store, {
        listen: (listener) =>
          store.listen({
            up: () => {},
            down: () => {},
            invalidated: (key, fence) => listener.invalidated(key, fence),
            tagInvalidated: (tag, version) => listener.tagInvalidated(tag, version),
          }),
      }),
  },
  {
    name: 'a cache that does not hear of tags',
    shownBy: 50,
    plan: (plan) => {
      relyOnCaches(plan)
      plan.fresh.tags = { a: ['t'], b: ['t', 'u'], c: ['u'] }
    },
    client: (store) =>
      wrapped(store, {
        listen: (listener) =>
          store.listen({
            up: () => listener.up(),
            down: () => listener.down(),
            invalidated: (key, fence) => listener.invalidated(key, fence),
            tagInvalidated: () => {},
          }),
      }),
  },
  {
    name: 'versions of tags that never change',
    server: (port) => ({ ...port, tagVersions: async (tags) => tags.map(() => 1) }),
  },
  {
    name: 'versions of tags that are read after the work',
    server: (port) => ({
      ...port,
      settle: async (settlement) => {
        const tags = [...parseTagVersions(settlement.tags).keys()]
        const versions = await port.tagVersions(tags, 1000)
        const note = serializeTagVersions(new Map(tags.map((tag, index) => [tag, versions[index] ?? 0])))
        return port.settle({ ...settlement, tags: note })
      },
    }),
  },
  {
    name: 'an invalidation that spares stale values',
    shownBy: 83,
    server: (port, server) => ({
      ...port,
      invalidate: async (key) => {
        const value = server.find(key)?.value
        const { freshUntil = 0, staleUntil = 0 } = value ?? {}
        const reply = await port.invalidate(key)
        server.apply(key, (record, at) => {
          if (value) Object.assign(value, { freshUntil: Math.min(freshUntil, at.now), staleUntil })
          record.expiresAt = Math.max(record.expiresAt, staleUntil)
        })
        return reply
      },
    }),
  },
  {
    name: 'a stale value without its staleness',
    client: (store) =>
      withReplies(store, (reply) =>
        'stale' in reply && reply.stale ? { ...reply, stale: { ...reply.stale, staleFor: 0 } } : reply,
      ),
  },
  {
    name: 'a stale value as if it were fresh',
    client: (store) =>
      withReplies(store, (reply) =>
        reply.stale
          ? {
              status: 'done',
              outcome: { ...reply.stale, kind: 'value', ttlLeft: 0, invalidated: false, staleLeft: 0 },
            }
          : reply,
      ),
  },
  {
    name: 'an unstored value is stored',
    shownBy: 12,
    server: (port) => ({
      ...port,
      settle: (settlement) =>
        port.settle(settlement.kind === 'unstored' ? { ...settlement, kind: 'value' } : settlement),
    }),
  },
  {
    name: 'a lease that others wait for is released without a notice',
    shownBy: 88,
    server: (port, server) => ({
      ...port,
      releaseIfUnwanted: async (grant) => {
        server.apply(grant.record, (record) => record.parks.clear())
        return port.releaseIfUnwanted(grant)
      },
    }),
  },
]
