import type { Counter, Gauge, Registry } from 'prom-client'
import type { RedisQueue } from '../../queue/index.ts'
import type { Queues } from '../queues.ts'
import type { PromClient } from './prom-client.ts'
import { ageOfFirst } from './queue-age.ts'

/** Queues that are told of: those that were used last. A label of each costs its reader memory. */
const MAX_QUEUES = 200

/** Queues that are read at once. */
const AT_ONCE = 20

/** What is told of one queue. */
interface QueueFigures {
  readonly queue: string
  readonly jobs: Readonly<Record<'waiting' | 'delayed' | 'running' | 'failed', number>>
  readonly totals: Readonly<Record<'submitted' | 'completed' | 'failed' | 'taken', number>>
  /** Seconds. */
  readonly oldest: number
  readonly isPaused: boolean
}

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
      help: 'Age of the job that runs next; 0 if none waits.',
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
      help: `Of these, queues without figures here: only the ${MAX_QUEUES} that were used last have some.`,
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
      const names = await this.#queues.names()
      const told = names.slice(0, MAX_QUEUES)
      for (let at = 0; at < told.length; at += AT_ONCE) {
        const some = told.slice(at, at + AT_ONCE)
        const figures = await Promise.all(some.map((name) => this.#queues.use(name, figuresOf)))
        for (const each of figures) this.#set(each)
      }
      this.#known.set(names.length)
      this.#leftOut.set(names.length - told.length)
      this.#isReachable.set(1)
    } catch {
      this.#isReachable.set(0)
    }
  }

  #set({ queue, jobs, totals, oldest, isPaused }: QueueFigures): void {
    for (const [state, count] of Object.entries(jobs)) this.#jobs.set({ queue, state }, count)
    for (const [event, count] of Object.entries(totals)) this.#totals.inc({ queue, event }, count)
    this.#oldest.set({ queue }, oldest)
    this.#paused.set({ queue }, isPaused ? 1 : 0)
  }
}

async function figuresOf(queue: RedisQueue): Promise<QueueFigures> {
  const [counts, totals, oldest, paused] = await Promise.all([
    queue.counts(),
    queue.totals(),
    ageOfFirst(queue),
    queue.paused(),
  ])
  const { waiting, delayed, active, failed } = counts
  return {
    queue: queue.name,
    jobs: { waiting, delayed, running: active, failed },
    totals: { ...totals },
    oldest: oldest ?? 0,
    isPaused: paused.includes(''),
  }
}
