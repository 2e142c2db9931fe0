import { maskedValue } from '../../secrets.ts'
import type { Clock } from '../time/clock.ts'
import { warnOnce } from '../warnings.ts'
import { isCluster, type RedisClient, safeMessage } from './client.ts'

/** A server that starts at the same time is reachable before this. */
const WARN_AFTER_MS = 2000

/** The options of an ioredis client that define where it connects to. */
interface ClientAddress {
  path?: string | undefined
  host?: string | undefined
  port?: number | undefined
  tls?: unknown
  sentinels?: readonly ClientAddress[] | null | undefined
  name?: string | undefined
}

/**
 * Emits a process warning if a client does not reach Redis within two seconds. For workers, which have no caller that an
 * error could be thrown to. The returned function cancels it.
 */
export function warnIfUnreachable(client: RedisClient, clock: Clock): () => void {
  let reason: unknown
  const onError = (error: unknown) => {
    reason = error
  }
  const stop = () => {
    timer.cancel()
    client.off('error', onError)
    client.off('ready', stop)
  }
  const timer = clock.after(
    WARN_AFTER_MS,
    () => {
      stop()
      if (client.status === 'ready') return
      const why = reason === undefined ? `no connection within ${WARN_AFTER_MS} ms` : safeMessage(reason)
      warnOnce(
        'SOLOFLIGHT_REDIS_UNREACHABLE',
        `Redis at ${addressOf(client)} cannot be reached: ${why}. Trying again until it can.`,
      )
    },
    true,
  )
  client.on('error', onError)
  client.on('ready', stop)
  return stop
}

/** The URL that a client connects to, without user and password. */
function addressOf(client: RedisClient): string {
  const { options, startupNodes } = client as {
    options?: ClientAddress
    startupNodes?: readonly (ClientAddress | string)[]
  }
  if (isCluster(client)) return (startupNodes ?? []).map(nodeOf).join(', ') || 'the nodes of a cluster'
  if (options?.sentinels) {
    return `${options.name ?? 'the master'} of the sentinels ${options.sentinels.map(nodeOf).join(', ')}`
  }
  return nodeOf(options ?? {})
}

function nodeOf(node: ClientAddress | string): string {
  if (typeof node === 'string') return maskedValue(node)
  const { path, host = 'localhost', port = 6379, tls } = node
  return path ? `unix://${maskedValue(path)}` : `${tls ? 'rediss' : 'redis'}://${maskedValue(host)}:${port}`
}
