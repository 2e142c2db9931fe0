import { z } from 'zod'
import { DEFAULT_PREFETCH, MAX_LEASE, MAX_PREFETCH, MIN_LEASE } from '../../bus/internal.ts'
import { messageOf } from '../../kernel/codec/codec.ts'
import { memberTexts, textOf } from '../http/json.ts'
import { Problem } from '../problem.ts'
import { duration } from './message.ts'
import type { SocketSession } from './socket-session.ts'
import type { MessageId, Subscription } from './subscriptions.ts'

// What messages of the bus have in common.

/** The member that names a subscription: the id of the message that began it. */
export const HANDLE: { readonly sub: z.ZodType<MessageId> } = {
  sub: z.union([z.string(), z.number()]).meta({ title: 'the id of a subscription' }),
}

/** The ttl of a queue or channel, the lease of a consumer or role. */
export const LEASE: z.ZodType<number> = duration(MIN_LEASE, MAX_LEASE)

/** Messages that are fetched at once. */
export const PREFETCH: z.ZodType<number> = z.int().min(1).max(MAX_PREFETCH)

/** How many messages are fetched at once, as without a gateway: what is fetched waits for the client here. */
export function prefetchOf(prefetch: number | undefined, reliable: boolean | undefined): number {
  return prefetch ?? (reliable ? 1 : DEFAULT_PREFETCH)
}

/** Runs what refuses members of a message by a TypeError. @throws Problem 400 */
export async function valid<T>(run: () => T | Promise<T>): Promise<T> {
  try {
    return await run()
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw new Problem(400, 'invalid message', { detail: messageOf(error), cause: error })
  }
}

/** A message of the bus as JSON; null if a codec of the user has read what JSON cannot represent. */
export function readable(value: unknown): string {
  try {
    return textOf(value)
  } catch {
    return 'null'
  }
}

/** The texts of the member `values`, byte for byte. @throws Problem 400 if one is named `__proto__`. */
export function valueTexts(texts: ReadonlyMap<string, string>): Readonly<Record<string, string>> {
  const values = memberTexts(texts.get('values') ?? '{}') ?? new Map<string, string>()
  // Readers of other languages, and of this one, would take it for something else.
  if (values.has('__proto__'))
    throw new Problem(400, 'invalid message', { detail: 'No name may be `__proto__`' })
  return Object.assign(Object.create(null), Object.fromEntries(values))
}

/** Begins a subscription, and ends it again if that fails. */
export async function begin<T>(
  session: SocketSession,
  id: MessageId,
  subscription: Subscription,
  start: () => Promise<T>,
): Promise<T> {
  session.subscribe(id, subscription)
  try {
    return await valid(start)
  } catch (error) {
    await session.unsubscribe(id)
    throw error
  }
}
