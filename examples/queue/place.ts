import { parseArgs } from 'node:util'

/** Where Redis is: `--redis <url>`, or the environment's REDIS_URL; undefined for nowhere. */
export function redisUrl(): string | undefined {
  const { values } = parseArgs({ options: { redis: { type: 'string' } } })
  return values.redis ?? (process.env['REDIS_URL'] || undefined)
}

/** The same for examples that are about several processes, which only Redis connects. */
export function redisUrlOrExit(): string {
  const url = redisUrl()
  if (url !== undefined) return url
  console.error('This needs a Redis: --redis redis://localhost:6379, or REDIS_URL')
  process.exit(1)
}
