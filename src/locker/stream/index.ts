/** Streams: chunks that are produced once, for every reader in every process. */

export type { StreamContext, StreamOptions, StreamSource, StreamWork } from './options.ts'
export type { Streams } from './streams.ts'
export { createStreams } from './streams-of.ts'
