import { describeFailure } from '../kernel/codec/failure.ts'

/** Whether no attempt follows: the error has the property `retry: false`. */
export function isFinalFailure(reason: unknown): boolean {
  try {
    return (reason as { retry?: unknown } | null | undefined)?.retry === false
  } catch {
    // It may be a proxy.
    return false
  }
}

/** The reason of a failure, as JSON: what may leave the process of an error. */
export function failureText(reason: unknown): string {
  const { name, message, code, fields } = describeFailure(reason)
  try {
    return JSON.stringify({ ...fields, name, message, code })
  } catch {
    return JSON.stringify({ name, message, code })
  }
}
