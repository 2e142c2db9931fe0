import { CodecError } from '../../errors.ts'
import { isPrintableName, MAX_NAME } from '../../kernel/names.ts'

// How values are written in messages to a gateway.

/** A duration in ms, as a gateway reads it; undefined as it is. */
export function ms(duration: number | undefined): string | undefined {
  return duration === undefined ? undefined : `${duration}ms`
}

/** A number without an end is one that is not said. */
export function finite(number: number | undefined): number | undefined {
  return number !== undefined && Number.isFinite(number) ? number : undefined
}

/** A message, which JSON must be able to represent. @throws CodecError */
export function jsonOf(value: unknown): unknown {
  if (value === undefined || typeof value === 'function' || typeof value === 'symbol')
    throw new CodecError(`JSON cannot represent ${typeof value}`)
  return value
}

/** @throws TypeError unless it is well-formed text of 1 to 256 characters without control characters. */
export function checkRemoteName(name: string, value: unknown): asserts value is string {
  if (isPrintableName(value)) return
  throw new TypeError(
    `Expected \`${name}\` to be text of 1 to ${MAX_NAME} characters without control characters`,
  )
}

/** Pause before something is restored again, ms: the store did not answer the gateway. */
export const RETRY_MS = 500
