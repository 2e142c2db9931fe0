import { randomFillSync } from 'node:crypto'

const BYTES = 16
const POOL = BYTES * 256

/** Random bytes for 256 ids: one system call fills it. */
const pool = Buffer.allocUnsafe(POOL)
let used = POOL

/** Length of an id: 128 random bits in base64url. */
export const ID_LENGTH = 22

/** Returns a new unguessable id of {@link ID_LENGTH} characters of `A-Za-z0-9_-`. */
export function newId(): string {
  if (used === POOL) {
    randomFillSync(pool)
    used = 0
  }
  const id = pool.toString('base64url', used, used + BYTES)
  used += BYTES
  return id
}
