// The contract of a service: types that the compiler alone checks.

/** The events of a service, with their arguments and results. */
// biome-ignore lint/suspicious/noExplicitAny: the arguments of any function
export type Api<A> = { [Event in keyof A]: (...args: any[]) => unknown }

/** Without a contract, all events are allowed. */
// biome-ignore lint/suspicious/noExplicitAny: the events of any service
export type AnyApi = Record<string, (...args: any[]) => any>

/** The names of the events. */
export type EventOf<A> = keyof A & string

/** The arguments of an event. */
// biome-ignore lint/suspicious/noExplicitAny: the arguments of any function
export type ArgsOf<A, E extends keyof A> = A[E] extends (...args: infer Args) => any ? Args : never

// biome-ignore lint/suspicious/noExplicitAny: the result of any function
type Returned<A, E extends keyof A> = A[E] extends (...args: any[]) => infer Result ? Awaited<Result> : never

/** The result of a call of an event. */
export type ResultOf<A, E extends keyof A> = Returned<A, E>

/** The chunks of a stream of an event. */
export type ChunkOf<A, E extends keyof A> =
  Returned<A, E> extends AsyncIterable<infer Chunk> ? Chunk : Returned<A, E>
