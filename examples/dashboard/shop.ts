import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  Locker,
  type LockerOptions,
  type QueueOptions,
  RedisQueue,
  type RunningJob,
  Services,
  type ServicesOptions,
} from '../../src/index.ts'

/** Where a shop keeps its jobs, keys and services. */
export interface Place {
  readonly queues: Pick<QueueOptions, 'redis' | 'store'>
  readonly locker: Pick<LockerOptions, 'redis' | 'store'>
  readonly services: Pick<ServicesOptions, 'redis' | 'store'>
}

const between = (low: number, high: number): number => low + Math.random() * (high - low)
const oneOf = <T>(choices: readonly T[]): T => choices[Math.floor(Math.random() * choices.length)] as T

const PAGES = ['home', 'offers', 'search', 'basket'] as const
const CITIES = ['Lisbon', 'Oslo', 'Zagreb', 'Kyoto', 'Quito'] as const

/** A process of a shop: it posts jobs, does jobs, computes pages, and serves. */
export class Shop implements AsyncDisposable {
  readonly #place: Place
  readonly #queues = new Map<string, RedisQueue>()
  readonly #locker: Locker
  readonly #services: Services
  readonly #stopped = new AbortController()
  readonly #loops: Promise<void>[] = []

  constructor(place: Place) {
    this.#place = place
    this.#locker = new Locker(place.locker)
    this.#services = new Services(place.services)
    // Each rest of each loop listens.
    setMaxListeners(0, this.#stopped.signal)
  }

  #queue(name: string): RedisQueue {
    const queue = this.#queues.get(name) ?? new RedisQueue(name, this.#place.queues)
    this.#queues.set(name, queue)
    return queue
  }

  /** Does jobs and serves. */
  async work(): Promise<void> {
    const at = (ms: number) => this.#rest(ms)
    this.#queue('mails').process('send', () => at(between(60, 400)), { concurrency: 4 })
    this.#queue('mails').process('digest', () => at(between(800, 2_000)), { concurrency: 1 })
    this.#queue('thumbnails').process('resize', () => at(between(700, 1_500)), { concurrency: 1 })
    this.#queue('reports').process('build', (month, job) => this.#report(month, job), { concurrency: 1 })
    this.#queue('webhooks').process('deliver', deliver, { concurrency: 2 })
    const geo = await this.#services.register<{ locate(city: string): Promise<string> }>('geo', {
      capacity: 8,
    })
    geo.on('locate', async (city) => {
      await at(between(200, 900))
      return `${city} is on the map`
    })
  }

  async #report(month: number, job: RunningJob): Promise<string> {
    job.log(`month ${month}: ${Math.round(between(20, 900))} orders are read`)
    for (let step = 1; step <= 20; step++) {
      await sleep(between(300, 700), undefined, { signal: job.signal })
      job.progress(step / 20)
      if (step % 5 === 0) job.log(`${step * 5} % of the pages are laid out`)
    }
    return `report of month ${month}`
  }

  /** Posts jobs, calls and asks for pages, until it is closed. */
  live(): void {
    this.#every(110, () => this.#post('mails', 'send', { to: `${oneOf(CITIES).toLowerCase()}@example.com` }))
    this.#every(2_400, () => this.#post('mails', 'digest', { week: Math.ceil(between(1, 52)) }))
    this.#every(1_150, () =>
      this.#post('thumbnails', 'resize', { photo: Math.ceil(between(1, 99_999)), width: 320 }),
    )
    this.#every(11_000, () => this.#post('reports', 'build', Math.ceil(between(1, 12))))
    this.#every(900, () =>
      this.#post('webhooks', 'deliver', {
        order: Math.ceil(between(1000, 9999)),
        url: 'https://shop.example/hook',
      }),
    )
    this.#every(20_000, () =>
      this.#post('reminders', 'remind', { cart: Math.ceil(between(1, 9999)) }, 3_600_000),
    )
    for (const page of PAGES) this.#every(400, () => this.#askFor(page))
    const geo = this.#services.require<{ locate(city: string): Promise<string> }>('geo', { wait: 5_000 })
    this.#every(150, () => geo.emit('locate', oneOf(CITIES)))
  }

  /** What nothing can be done about: a queue without a worker, and one that is paused. */
  async neglect(): Promise<void> {
    await this.#queue('invoices').pause()
    for (let order = 1001; order <= 1012; order++) await this.#post('invoices', 'print', { order })
    for (let row = 1; row <= 5; row++) await this.#post('imports', 'read', { file: 'products.csv', row })
  }

  async #post(queue: string, command: string, payload: unknown, delay = 0): Promise<void> {
    await this.#queue(queue).enqueue(command, payload, { delay, dedupe: false, attempts: 2, backoff: 2_000 })
  }

  /** Many callers, and one computation. */
  async #askFor(page: string): Promise<void> {
    const compute = async ({
      signal,
      progress,
    }: {
      signal: AbortSignal
      progress: (value: unknown) => void
    }) => {
      for (let step = 1; step <= 10; step++) {
        await sleep(between(200, 900), undefined, { signal })
        progress(step / 10)
      }
      return `<h1>${page}</h1>`
    }
    const callers = Array.from({ length: Math.ceil(between(1, 4)) }, () =>
      this.#locker.run(`page:${page}`, compute, { ttl: between(500, 6_000) }),
    )
    // Each waits on its own: the next ones come meanwhile.
    for (const caller of callers) caller.catch(() => {})
  }

  #every(ms: number, run: () => Promise<unknown>): void {
    this.#loops.push(
      (async () => {
        while (!this.#stopped.signal.aborted) {
          // Redis may be away for a while.
          await run().catch(() => {})
          await this.#rest(between(0.6, 1.4) * ms).catch(() => {})
        }
      })(),
    )
  }

  #rest(ms: number): Promise<void> {
    return sleep(ms, undefined, { signal: this.#stopped.signal })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort()
    await Promise.all(this.#loops)
    await Promise.all([...this.#queues.values()].map((queue) => queue.close({ grace: 0 })))
    await this.#services.close({ grace: 0 })
    await this.#locker.close()
  }
}

async function deliver(_order: unknown, job: RunningJob): Promise<number> {
  await sleep(between(100, 600), undefined, { signal: job.signal })
  if (Math.random() > 0.15) return 204
  job.log('the shop answered 502')
  throw Object.assign(new Error('The shop answered 502 Bad Gateway'), { code: 'E_STATUS' })
}
