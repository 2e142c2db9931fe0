import { Problem } from '../problem.ts'

export type PromClient = typeof import('prom-client')

/** Loads prom-client, an optional peer. @throws Problem 501 if it is not installed */
export async function loadPromClient(): Promise<PromClient> {
  try {
    return (await import('prom-client')).default
  } catch (error) {
    // ESM and CommonJS.
    const isMissing = ['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND'].includes(
      String((error as NodeJS.ErrnoException).code),
    )
    if (!isMissing) throw error
    throw new Problem(501, 'metrics need prom-client', { detail: 'npm install prom-client', cause: error })
  }
}
