import type { LockerOptions } from '../../src/index.ts'

/** Of every locker in the demonstration on Redis. All that it writes is gone a minute later. */
export const SETTINGS = {
  prefix: 'soloflight-demo',
  ttl: 60_000,
  /** A failure is kept, so that those who ask a little later receive it too. */
  errorTtl: 10_000,
  /** Short, because the audience waits for its end. */
  lease: 1_500,
} satisfies LockerOptions
