import type { Handlers, Reply, Request } from './process-protocol.ts'

/**
 * The child's half of `Child`: answers calls by these functions, from now on, and says so to the parent. The
 * process ends with its parent.
 */
export function serve<H extends Handlers>(handlers: H): void {
  process.on('disconnect', () => process.exit())
  process.on('message', async ({ id, name, args }: Request) => {
    send(await answer(handlers, id, name, args))
  })
  send({ ready: true })
}

/** Tells the parent of an event. */
export function emit(event: string, data?: unknown): void {
  send({ event, data })
}

async function answer(handlers: Handlers, id: number, name: string, args: unknown[]): Promise<Reply> {
  try {
    const handler: ((...args: never[]) => unknown) | undefined = handlers[name]
    if (!handler) throw new Error(`Expected a call that the child serves, got \`${name}\``)
    // The parent's `call` has checked the arguments against this very function.
    return { id, value: await handler(...(args as never[])) }
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown))
    const { name, message, stack } = error
    return { id, error: { name, message, stack, code: 'code' in error ? error.code : undefined } }
  }
}

function send(message: Reply): void {
  if (process.connected) process.send?.(message)
}
