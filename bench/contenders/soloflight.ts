import type { Locker } from '../../src/index.ts'
import { library } from '../library.ts'
import type { Answer, Open, Terms } from './contender.ts'

/** How long a caller waits at most, ms. */
const TIMEOUT = 30_000

type Get = (key: string) => Promise<Answer>

function opening(getOf: (locker: Locker, terms: Terms) => Get): Open {
  return async (terms) => {
    const { layers, host, port, prefix, ttl, max, lease, work } = terms
    const { Locker } = await library()
    const locker = new Locker({
      ...(layers !== 'memory' && { redis: { host, port } }),
      prefix,
      ttl,
      lease,
      cache: layers === 'redis' ? false : { max },
    })
    return {
      get: getOf(locker, terms),
      fill: (key) => locker.run(key, () => work(key)),
      close: () => locker.close(),
    }
  }
}

/** As people write it: the work and the options are made for each call. */
export const run: Open = opening(
  (locker, { ttl, work }) =>
    (key) =>
      locker.run(key, () => work(key), { ttl, timeout: TIMEOUT }),
)

export const runHoisted: Open = opening((locker, { ttl, work }) => {
  const options = { ttl, timeout: TIMEOUT }
  const compute = ({ key }: { key: string }) => work(key)
  return (key) => locker.run(key, compute, options)
})

export const runWithoutOptions: Open = opening(
  (locker, { work }) =>
    (key) =>
      locker.run(key, () => work(key)),
)

export const memoized: Open = opening((locker, { ttl, work }) =>
  locker.memoize((id: string) => work(id), { ttl, key: (id) => id }),
)

/** Hits only: nobody settles the lease of a miss. */
export const request: Open = opening(
  (locker) => (key) => locker.request(key, { timeout: TIMEOUT }) as Promise<Answer>,
)
