import type { SubmitReply, WorkerListener } from '../../../src/queue/store/store.ts'
import { jobOf, type QueueMutation, wrapped } from './mutation.ts'
import type { QueuePort } from './port.ts'
import type { QueueServer } from './server.ts'

/** A port whose `finish` ignores the fence: a refused outcome is accepted while another attempt runs. */
function unfenced(port: QueuePort, server: QueueServer): QueuePort {
  return {
    ...port,
    finish: async (ending, within) => {
      const reply = await port.finish(ending, within)
      const job = jobOf(server, ending.id)
      if (reply !== 'lost' || !job || job.finished || job.worker === '') return reply
      job.fence = ending.fence
      job.state = { kind: 'active', worker: port.inbox + ending.worker.nonce }
      return port.finish(ending, within)
    },
  }
}

/** A worker listener with some of its methods replaced. */
function listener(of: WorkerListener, changes: Partial<WorkerListener>): WorkerListener {
  return {
    onDelivery: (delivery) => of.onDelivery(delivery),
    onCancelled: (id, fence) => of.onCancelled(id, fence),
    onDue: (ms) => of.onDue(ms),
    onCapacityRequested: () => of.onCapacityRequested(),
    ...changes,
  }
}

/** The known bugs. Each is planted alone, and the checks must find it. */
export const QUEUE_MUTATIONS: readonly QueueMutation[] = [
  {
    name: 'a finish that is not fenced',
    shownBy: 105,
    plan: (plan) => Object.assign(plan.faults, { pause: 8 }),
    server: unfenced,
  },
  {
    name: 'a finish that is not idempotent',
    shownBy: 82,
    server: (port) => {
      const accepted = new Set<string>()
      return {
        ...port,
        finish: async (ending, within) => {
          const name = `${ending.id} ${ending.fence}`
          if (accepted.has(name)) return 'lost'
          const reply = await port.finish(ending, within)
          if (reply !== 'lost') accepted.add(name)
          return reply
        },
      }
    },
  },
  {
    name: 'a submission sent twice that creates twice',
    shownBy: 58,
    plan: (plan) => Object.assign(plan.faults, { cut: 20 }),
    server: (port) => {
      const times = new Map<string, number>()
      return {
        ...port,
        submit: (submission) => {
          const time = times.get(submission.nonce) ?? 0
          times.set(submission.nonce, time + 1)
          const nonce = time === 0 ? submission.nonce : `${submission.nonce.slice(0, 20)}${time + 10}`
          return port.submit({ ...submission, nonce })
        },
      }
    },
  },
  {
    name: 'a post sent twice that is posted twice',
    plan: (plan) => {
      Object.assign(plan.faults, { cut: 20 })
      plan.mix.post = 0.5
    },
    server: (port) => {
      const times = new Map<string, number>()
      return {
        ...port,
        submitAll: (post, within) => {
          const time = times.get(post.nonce) ?? 0
          times.set(post.nonce, time + 1)
          if (time === 0 || post.key !== post.nonce) return port.submitAll(post, within)
          const renamed = (id: string) => `${id.slice(0, 20)}${time + 10}`
          const nonce = renamed(post.nonce)
          const jobs = post.jobs.map((job) => ({ ...job, nonce, id: renamed(job.id) }))
          return port.submitAll({ ...post, key: nonce, nonce, jobs }, within)
        },
      }
    },
  },
  {
    name: 'a post that is another one under its key, and is taken for the same',
    plan: (plan) => {
      plan.mix.post = 0.5
    },
    server: (port) => ({
      ...port,
      submitAll: (post, within) => port.submitAll({ ...post, digest: '' }, within),
    }),
  },
  {
    name: 'a post of which a part is there',
    plan: (plan) => {
      plan.mix.post = 0.5
    },
    server: (port) => ({
      ...port,
      submitAll: (post, within) => port.submitAll({ ...post, jobs: post.jobs.slice(0, 2) }, within),
    }),
  },
  {
    name: 'a fence that starts over when the record is lost',
    shownBy: 5,
    plan: (plan) => Object.assign(plan.faults, { flush: 3 }),
    context: (at) => ({ ...at, micros: 1, highestFence: 0 }),
  },
  {
    name: 'a stall that is not counted',
    shownBy: 6,
    server: (port, server) => ({
      ...port,
      processDue: async (jobs, terms, within) => {
        const before = jobs.map(({ id }) => jobOf(server, id)?.stalls ?? 0)
        const ticks = await port.processDue(jobs, { ...terms, maxStalls: 1e9 }, within)
        for (const [index, { id, status }] of ticks.entries()) {
          const job = jobOf(server, id)
          if (status === 'stalled' && job) job.stalls = before[index] ?? 0
        }
        return ticks
      },
    }),
  },
  {
    name: 'due jobs that are never processed',
    shownBy: 4,
    client: (store) => wrapped(store, { findDue: async () => ({ jobs: [], nextIn: undefined }) }),
  },
  {
    name: 'waits that never poll',
    shownBy: 17,
    client: (store) => {
      const asked = new Set<string>()
      return wrapped(store, {
        submit: (submission, within, listener) => {
          asked.add(submission.nonce)
          store.submit(submission, within, listener)
        },
        queryOutcome: async (query, within) => {
          if (asked.has(query.nonce)) return { status: 'pending' }
          asked.add(query.nonce)
          return store.queryOutcome(query, within)
        },
      })
    },
  },
  {
    name: 'a submission that is answered twice',
    shownBy: 2,
    client: (store) =>
      wrapped(store, {
        submit: (submission, within, listener) => {
          const twice = (reply: SubmitReply) => {
            listener.onReply(reply)
            listener.onReply(reply)
          }
          store.submit(submission, within, {
            onReply: twice,
            onError: (error) => listener.onError(error),
            onNotice: (notice) => listener.onNotice(notice),
          })
        },
      }),
  },
  {
    name: 'a slot that is not released',
    shownBy: 5,
    server: (port) => ({
      ...port,
      finish: (ending, within) => port.finish({ ...ending, releasesSlot: ending.kind === 'value' }, within),
    }),
  },
  {
    name: 'a capacity that is ignored after the worker was forgotten',
    shownBy: 4,
    client: (store) => {
      const offered = new Set<string>()
      return wrapped(store, {
        setCapacity: async (worker, slots, of, within, former) => {
          if (offered.has(worker.nonce)) return { since: 0, assigned: 0, more: false }
          const assignment = await store.setCapacity(worker, slots, of, within, former)
          offered.add(worker.nonce)
          return assignment
        },
      })
    },
  },
  {
    name: 'a rerun that is dropped',
    shownBy: 5,
    server: (port, server) => ({
      ...port,
      finish: (ending, within) => {
        const job = jobOf(server, ending.id)
        if (job && ending.kind === 'value') job.next = undefined
        return port.finish(ending, within)
      },
    }),
  },
  {
    name: 'a cancel that does not tell the worker',
    shownBy: 4,
    context: (at) => ({
      ...at,
      notifyWorker: (worker, notice) => {
        if (notice.kind !== 'cancelled') at.notifyWorker(worker, notice)
      },
    }),
    server: (port) => ({
      ...port,
      renew: async (attempt, lease, within) => {
        const state = await port.renew(attempt, lease, within)
        return state === 'cancelled' ? 'held' : state
      },
    }),
  },
  {
    name: 'a lease that is never renewed',
    shownBy: 2,
    client: (store) => {
      const accepted = new Set<string>()
      return wrapped(store, {
        renew: async (attempt, lease, within) => {
          const name = `${attempt.id} ${attempt.fence}`
          if (accepted.has(name)) return 'held'
          accepted.add(name)
          return store.renew(attempt, lease, within)
        },
      })
    },
  },
  {
    name: 'a renewal that takes back what is lost',
    shownBy: 19,
    client: (store) =>
      wrapped(store, {
        renew: async (attempt, lease, within) => {
          const state = await store.renew(attempt, lease, within)
          return state === 'lost' ? 'held' : state
        },
      }),
  },
  {
    name: 'a delivery that is believed for too long',
    shownBy: 5,
    client: (store) =>
      wrapped(store, {
        setCapacity: (worker, slots, of, within, former) => {
          const deliver: WorkerListener['onDelivery'] = (delivery) =>
            of.onDelivery({ ...delivery, leaseLeft: 1e6 })
          return store.setCapacity(worker, slots, listener(of, { onDelivery: deliver }), within, former)
        },
        renew: async (attempt, lease, within) => {
          const state = await store.renew(attempt, lease, within)
          return state === 'lost' ? 'held' : state
        },
      }),
  },
  {
    name: 'a lost subscription that is not noticed',
    shownBy: 15,
    plan: (plan) => Object.assign(plan.faults, { deafen: 8 }),
    client: (store) => wrapped(store, { listen: () => () => {} }),
  },
  {
    name: 'a resume that delivers nothing',
    shownBy: 6,
    server: (port) => ({ ...port, resume: async () => {} }),
  },
  {
    name: 'an outcome that is forgotten too soon',
    shownBy: 9,
    server: (port) => ({
      ...port,
      finish: (ending, within) => port.finish({ ...ending, outcomeRetention: 0 }, within),
    }),
  },
  {
    name: 'an outcome that is changed after it was accepted',
    shownBy: 2,
    server: (port, server) => ({
      ...port,
      finish: async (ending, within) => {
        const reply = await port.finish(ending, within)
        const job = jobOf(server, ending.id)
        if (reply !== 'lost' && job?.outcome && ending.kind === 'value')
          job.outcome = { ...job.outcome, bytes: Buffer.from('{"v":[]}') }
        return reply
      },
    }),
  },
]
