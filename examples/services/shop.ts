import { setTimeout as sleep } from 'node:timers/promises'
import type { Call, Services } from '../../src/index.ts'

/** The contracts: events with their arguments and results. */
export interface Prices {
  of(article: string): number
}
export interface Reports {
  total(articles: string[]): string
}

/** A second instead of five, so that the example need not wait for long. */
export const LEASE = 1_000

const PRICES: Record<string, number> = { tea: 3, coffee: 4 }

/** Serves prices. `name`: of the process. */
export async function servePrices(services: Services, name: string): Promise<void> {
  const prices = await services.register<Prices>('prices', { capacity: 100 })
  prices.on('of', async (article, call: Call) => {
    console.log(`${name} is asked for the price of ${article}, attempt ${call.attempt}`)
    call.progress(name)
    await sleep(400, undefined, { signal: call.signal })
    return PRICES[article] ?? 0
  })
}

/** Serves reports, which need prices. */
export async function serveReports(services: Services, name: string): Promise<void> {
  const prices = services.require<Prices>('prices')
  const reports = await services.register<Reports>('reports')
  reports.on('total', async (articles, call: Call) => {
    console.log(`${name} makes the report`)
    // A price may be asked for twice: whoever dies with the first question does no harm.
    const asking = prices.with({ signal: call.signal, onProgress: call.progress })
    const found = await Promise.all(articles.map((article) => asking.pemit(3, 'of', article)))
    return `${articles.join(' and ')} cost ${found.reduce((sum, price) => sum + price, 0)}`
  })
}
