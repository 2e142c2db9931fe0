import type { Registry } from 'prom-client'
import type { PushFigures } from '../push/figures.ts'
import type { Queues } from '../queues.ts'
import { HttpRequests } from './http-requests.ts'
import { loadPromClient, type PromClient } from './prom-client.ts'
import { addPushMetrics } from './push-figures.ts'
import { QueueMetrics } from './queue-figures.ts'

/** What a gateway has open at the moment. */
export interface OpenCounts {
  /** Requests that wait for a job, a result or a key. */
  readonly waiting: () => number
  readonly streams: () => number
  /** WebSockets. */
  readonly sockets: () => number
}

export interface MetricsDeps {
  readonly queues: Queues
  readonly open: OpenCounts
  /** Of the push workers. */
  readonly pushes: () => readonly PushFigures[]
}

/** The text of a scrape, and its content type. */
export interface Scrape {
  readonly text: string
  readonly contentType: string
}

/** The metrics that are there from the first scrape on. */
interface Measuring {
  readonly registry: Registry
  readonly requests: HttpRequests
  readonly queues: QueueMetrics
}

/**
 * The metrics of one gateway, in a registry of its own. They cost nothing until they are scraped: prom-client is loaded then,
 * and requests are measured from then on. Nothing is sent to Redis between scrapes.
 */
export class Metrics {
  readonly #deps: MetricsDeps
  #measuring: Measuring | undefined
  /** Scrapes at the same time are one. */
  #scrape: Promise<Scrape> | undefined

  constructor(deps: MetricsDeps) {
    this.#deps = deps
  }

  /** Measures requests; undefined before the first scrape. */
  get requests(): HttpRequests | undefined {
    return this.#measuring?.requests
  }

  /** @throws Problem 501 without prom-client */
  scrape(): Promise<Scrape> {
    this.#scrape ??= this.#read().finally(() => {
      this.#scrape = undefined
    })
    return this.#scrape
  }

  async #read(): Promise<Scrape> {
    this.#measuring ??= this.#start(await loadPromClient())
    const { registry, queues } = this.#measuring
    await queues.read()
    return { text: await registry.metrics(), contentType: registry.contentType }
  }

  #start(client: PromClient): Measuring {
    const registry = new client.Registry()
    const { queues, open, pushes } = this.#deps
    const gauge = (name: string, help: string, read: () => number) =>
      new client.Gauge({
        name,
        help,
        registers: [registry],
        collect() {
          this.set(read())
        },
      })
    gauge('soloflight_waiting_requests', 'Requests that wait for a job, a result or a key.', open.waiting)
    gauge('soloflight_open_streams', 'Event streams that are open.', open.streams)
    gauge('soloflight_open_sockets', 'WebSockets that are open.', open.sockets)
    addPushMetrics(client, registry, pushes)
    return {
      registry,
      requests: new HttpRequests(client, registry),
      queues: new QueueMetrics(client, registry, queues),
    }
  }
}
