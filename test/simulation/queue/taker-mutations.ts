import { parseHolder } from '../../../src/queue/store/holder.ts'
import type { AttemptOutcome, AttemptRef } from '../../../src/queue/store/store.ts'
import { jobOf, type QueueMutation, wrapped } from './mutation.ts'
import { LONG_LEASE, type QueuePlan } from './plan.ts'

function givenBack(attempt: AttemptRef): AttemptOutcome {
  return {
    ...attempt,
    ...{ kind: 'requeue', bytes: Buffer.alloc(0), ttl: 0, outcomeRetention: 0, delay: 0 },
    ...{ retain: { count: 0, age: 0 }, releasesSlot: false },
  }
}

/** No faults at all. */
function calmed(plan: QueuePlan): void {
  Object.assign(plan, {
    calm: true,
    spikes: 0,
    refused: 0,
    latency: Math.min(plan.latency, plan.lease / 100),
  })
  Object.assign(plan.mix, { kills: 0, poison: 0 })
  for (const fault of Object.keys(plan.faults) as (keyof QueuePlan['faults'])[]) plan.faults[fault] = 0
}

/** Runs in which jobs are taken only, as few faults as possible beside. */
function takersOnly(plan: QueuePlan, take: number): void {
  Object.assign(plan, { takersOnly: true, lost: 0, ordered: true })
  Object.assign(plan.mix, { take, leave: 0, pause: 0 })
}

/** The known bugs of takers, and of 'exclusive' submissions. */
export const TAKER_MUTATIONS: readonly QueueMutation[] = [
  {
    name: 'a taker that leaves before its slot is withdrawn',
    shownBy: 2,
    plan: (plan) => {
      takersOnly(plan, 0.8)
      plan.faults.cut = 0
    },
    client: (store) => {
      const announced = new Map<string, number>()
      return wrapped(store, {
        setCapacity: (worker, slots, of, within, former) => {
          const before = announced.get(worker.nonce) ?? 0
          announced.set(worker.nonce, slots())
          const assigning = store.setCapacity(worker, slots, of, within, former)
          if (slots() >= before) return assigning
          assigning.catch(() => {})
          return Promise.resolve({ since: 0, assigned: 0, more: false })
        },
      })
    },
  },
  {
    name: 'a lost take that is not searched for',
    plan: (plan) => {
      takersOnly(plan, 0.5)
      Object.assign(plan, { calm: false, spikes: 0, takenLeases: [LONG_LEASE] })
      plan.faults.cut = 20
    },
    client: (store) => wrapped(store, { findTaken: async () => undefined }),
  },
  {
    name: 'a take that is sent again and takes another job',
    shownBy: 10,
    plan: (plan) => {
      takersOnly(plan, 0.5)
      Object.assign(plan, { calm: false, spikes: 0, takenLeases: [LONG_LEASE] })
      plan.faults.cut = 20
    },
    server: (port) => ({ ...port, take: (request) => port.take(request, false) }),
  },
  {
    name: 'a take that is searched for though its reply came',
    shownBy: 2,
    plan: (plan) => takersOnly(plan, 0.5),
    client: (store) =>
      wrapped(store, {
        take: async (request, within) => {
          const attempt = await store.take(request, within)
          const found = attempt && (await store.findTaken(request, 0, within))
          if (found) await store.finish(givenBack(found), within)
          return attempt
        },
      }),
  },
  {
    name: 'a search that takes a job from another holder',
    plan: (plan) => {
      takersOnly(plan, 0.5)
      Object.assign(plan, { calm: false, spikes: 0 })
      plan.faults.cut = 20
    },
    server: (port, server) => ({
      ...port,
      findTaken: async (request, age, within) => {
        const found = await port.findTaken(request, age, within)
        const { jobs } = server.model.state
        const held = [...jobs.values()].find(
          (job) => job.state.kind === 'active' && job.command === request.command,
        )
        if (found || !held) return found
        return { worker: parseHolder(held.command, held.worker), id: held.id, fence: held.fence }
      },
    }),
  },
  {
    name: 'a delivery that finds no taker and does not go back',
    plan: (plan) => {
      takersOnly(plan, 0.6)
      calmed(plan)
      plan.mix.leave = 0.9
    },
    client: (store) =>
      wrapped(store, {
        finish: async (ending, within) =>
          ending.kind === 'requeue' ? 'accepted' : store.finish(ending, within),
      }),
  },
  {
    name: 'a capacity that counts covered takers twice',
    shownBy: 7,
    plan: (plan) => {
      takersOnly(plan, 0.6)
      calmed(plan)
    },
    client: (store) =>
      wrapped(store, {
        setCapacity: async (worker, slots, of, within) => {
          const assignment = await store.setCapacity(worker, slots, of, within)
          return { ...assignment, since: 0, assigned: 0 }
        },
      }),
  },
  {
    name: 'a job that is given back and counted',
    plan: (plan) => takersOnly(plan, 0.5),
    server: (port, server) => ({
      ...port,
      finish: async (ending, within) => {
        const reply = await port.finish(ending, within)
        const job = jobOf(server, ending.id)
        if (job && reply === 'accepted' && ending.kind === 'requeue') job.stalls++
        return reply
      },
    }),
  },
  {
    name: 'an exclusive submission that replaces what follows',
    plan: (plan) => Object.assign(plan.mix, { rerun: 0.8, exclusive: 0.8 }),
    server: (port) => ({
      ...port,
      submit: (submission) =>
        port.submit(submission.conflict === 'exclusive' ? { ...submission, conflict: 'rerun' } : submission),
    }),
  },
  {
    name: 'an exclusive submission whose delay is dropped',
    shownBy: 3,
    plan: (plan) => Object.assign(plan.mix, { rerun: 0.8, exclusive: 0.8, delay: 0.8 }),
    server: (port) => ({
      ...port,
      submit: (submission) =>
        port.submit(submission.conflict === 'exclusive' ? { ...submission, delay: 0 } : submission),
    }),
  },
]
