// The child of the support's own tests.

import { emit, serve } from './process-child.ts'
import { RedisServer } from './redis-server.ts'

class RefusedError extends Error {
  override name = 'RefusedError'
  readonly code = 'REFUSED'
}

const handlers = {
  echo: (value: Buffer): Buffer => value,
  refuse: (reason: string): never => {
    throw new RefusedError(reason)
  },
  hang: (): Promise<never> => new Promise(() => {}),
  count: (to: number): void => {
    for (let value = 1; value <= to; value += 1) emit('counted', value)
  },
  startServer: async (): Promise<{ pid: number; path: string }> => {
    const { pid, path } = await RedisServer.start()
    return { pid, path }
  },
  close: (): void => process.disconnect(),
}

export type EchoHandlers = typeof handlers

serve(handlers)
