import { createHmac } from 'node:crypto'

// Signatures of Standard Webhooks 1.0.0, https://www.standardwebhooks.com.

const MIN_KEY_BYTES = 24
const MAX_KEY_BYTES = 64

/** The key of a secret: `whsec_` and base64. Undefined if it is none, or its key has not 24 to 64 bytes. */
export function parseSecret(secret: string): Buffer | undefined {
  // 64 bytes are 88 characters.
  const [, text] = /^whsec_([A-Za-z0-9+/]{1,88}={0,2})$/.exec(secret) ?? []
  if (text === undefined) return undefined
  const key = Buffer.from(text, 'base64')
  const isCanonical = key.toString('base64').replaceAll('=', '') === text.replaceAll('=', '')
  return isCanonical && key.length >= MIN_KEY_BYTES && key.length <= MAX_KEY_BYTES ? key : undefined
}

/** A message to be signed. */
export interface SignedMessage {
  readonly id: string
  /** Seconds since 1970. */
  readonly timestamp: number
  readonly body: Buffer
}

/** The header webhook-signature: one signature for each key, `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. */
export function signaturesOf(keys: readonly Buffer[], { id, timestamp, body }: SignedMessage): string {
  const signatures = keys.map((key) =>
    createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64'),
  )
  return signatures.map((signature) => `v1,${signature}`).join(' ')
}
