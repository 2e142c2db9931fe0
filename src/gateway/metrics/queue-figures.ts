import type { Counter, Gauge, Registry } from 'prom-client'
import type { QueueLoad } from '../../queue/internal.ts'
import { inSeconds } from '../duration.ts'
import { loadsOf } from '../overview/sources.ts'
import type { Queues } from '../queues.ts'
import type { PromClient } from './prom-client.ts'

/** Queues with figures of their own: those that were used last. A label of each costs its reader memory. */
const MAX_QUEUES = 200

/** The figures of the queues, read when they are scraped. */
export class QueueMetrics {
  readonly #queues: Queues
  readonly #jobs: Gauge<'queue' | 'state'>
  readonly #totals: Counter<'queue' | 'event'>
  readonly #oldest: Gauge<'queue'>
  readonly #paused: Gauge<'queue'>
  readonly #known: Gauge
  readonly #leftOut: Gauge
  readonly #isReachable: Gauge

  constructor({ Counter, Gauge }: PromClient, registry: Registry, queues: Queues) {
    const registers = [registry]
    this.#queues = queues
    this.#jobs = new Gauge({
      name: 'soloflight_queue_jobs',
      help: 'Jobs of a queue by state.',
      labelNames: ['queue', 'state'],
      registers,
    })
    this.#totals = new Counter({
      name: 'soloflight_queue_jobs_total',
      help: 'Jobs that a queue has had since it was first used, or erased.',
      labelNames: ['queue', 'event'],
      registers,
    })
    this.#oldest = new Gauge({
      name: 'soloflight_queue_oldest_seconds',
      help: 'Age of the job that waits longest; 0 if none waits.',
      labelNames: ['queue'],
      registers,
    })
    this.#paused = new Gauge({
      name: 'soloflight_queue_paused',
      help: 'Whether the whole queue is paused.',
      labelNames: ['queue'],
      registers,
    })
    this.#known = new Gauge({
      name: 'soloflight_queues',
      help: 'Queues that were used in the last 30 days.',
      registers,
    })
    this.#leftOut = new Gauge({
      name: 'soloflight_queues_left_out',
      help: `Of these, queues without figures: those beyond the ${MAX_QUEUES} that were used last, and those that could not be read.`,
      registers,
    })
    this.#isReachable = new Gauge({
      name: 'soloflight_store_up',
      help: 'Whether the store has answered. Without it there are no figures of queues.',
      registers,
    })
  }

  /** Reads the figures. Never rejects. */
  async read(): Promise<void> {
    for (const metric of [this.#jobs, this.#totals, this.#oldest, this.#paused]) metric.reset()
    try {
      const { names, count } = await this.#queues.listed(MAX_QUEUES)
      const loads = await loadsOf(this.#queues, names)
      let counted = 0
      for (const { name, load } of loads) {
        if (load) this.#set(name, load)
        if (load) counted++
      }
      this.#known.set(count)
      this.#leftOut.set(count - counted)
      this.#isReachable.set(1)
    } catch {
      this.#isReachable.set(0)
    }
  }

  #set(queue: string, { counts, totals, commands, paused }: QueueLoad): void {
    const { waiting, delayed, active, failed } = counts
    const jobs = { waiting, delayed, running: active, failed }
    for (const [state, count] of Object.entries(jobs)) this.#jobs.set({ queue, state }, count)
    for (const [event, count] of Object.entries(totals)) this.#totals.inc({ queue, event }, count)
    const oldest = Math.max(0, ...commands.map(({ first }) => first?.age ?? 0))
    this.#oldest.set({ queue }, inSeconds(oldest))
    this.#paused.set({ queue }, paused.includes('') ? 1 : 0)
  }
}
