import { RemoteError } from '../../src/index.ts'

/** A reason why the demonstration cannot go on, to be told in one line. */
export class Stop extends Error {
  static because(what: string, error: unknown): Stop {
    return new Stop(`${what}: ${reasonOf(error)}`)
  }
}

/** Why something failed, in a few words. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // A refused connection to a name with two addresses has a code and no message.
  return error.message || String('code' in error ? error.code : error.name)
}

/** What a caller was told of a failure, in a word or two. */
export function failureOf(error: unknown): string {
  return error instanceof RemoteError
    ? `${error.name} (${error.remote.code ?? error.message})`
    : reasonOf(error)
}
