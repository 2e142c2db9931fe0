import { randomFillSync } from 'node:crypto'

const BYTES = 16
const POOL = BYTES * 256

/** Random bytes are drawn in bulk: one system call per 256 ids. */
const pool = Buffer.allocUnsafe(POOL)
let used = POOL

/** Characters of every id: 128 random bits in base64url. */
export const ID_LENGTH = 22

/** A new unguessable id of {@link ID_LENGTH} characters out of `A-Za-z0-9_-`. */
export function newId(): string {
  if (used === POOL) {
    randomFillSync(pool)
    used = 0
  }
  const id = pool.toString('base64url', used, used + BYTES)
  used += BYTES
  return id
}
