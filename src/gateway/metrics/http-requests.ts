import type { Histogram, Registry } from 'prom-client'
import type { PromClient } from './prom-client.ts'

/** Upper bounds of the histogram, s: a request may wait a minute for a job. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

/** Other methods are 'other': a client may send any name. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** The requests of a gateway, by the pattern of their route, so that no key or name of a queue is in a label. */
export class HttpRequests {
  readonly #histogram: Histogram<'route' | 'method' | 'status'>
  readonly #routes = new WeakMap<Request, string>()

  constructor({ Histogram }: PromClient, registry: Registry) {
    this.#histogram = new Histogram({
      name: 'soloflight_http_request_duration_seconds',
      help: 'Time until the answer began, since the first scrape.',
      labelNames: ['route', 'method', 'status'],
      buckets: BUCKETS,
      registers: [registry],
    })
  }

  /** Notes the pattern of the route of a request. */
  routed(request: Request, route: string): void {
    this.#routes.set(request, route)
  }

  /** A request was answered. Without a route it counts under 'none'. */
  answered(request: Request, status: number, seconds: number): void {
    const route = this.#routes.get(request) ?? 'none'
    const method = METHODS.has(request.method) ? request.method : 'other'
    this.#histogram.observe({ route, method, status }, seconds)
  }
}
