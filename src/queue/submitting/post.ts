import { createHash } from 'node:crypto'
import { ConflictError, TooLargeError } from '../../errors.ts'
import type { JsonText } from '../../kernel/codec/json-text.ts'
import { ID_LENGTH, newId } from '../../kernel/keys.ts'
import { checkOptions, type OptionTable, pick } from '../../kernel/options.ts'
import type { AnyJobs, CommandOf, JobMap, PayloadOf } from '../job.ts'
import { type QueueContext, SUBMIT_OPTIONS, type SubmitOptions } from '../options.ts'
import { POST_KNOWN_FOR, type Post } from '../store/store.ts'
import { type AcceptedJob, createSubmission, DEDUPE_ID_LENGTH, dedupeId, refusalError } from './submission.ts'

// A post: jobs that are submitted together, all or none, by one step. A step blocks the server, so a post is bounded.

/** Options of a post. */
export interface PostOptions {
  /**
   * Key that identifies the post within the queue, for a day: the same post is not submitted again, another one is refused.
   * @default false: each post is a new one
   */
  dedupe?: string | false | undefined
}

/** Options of one job of a post: it is deduplicated with its post, and nobody waits for it yet. */
export type PostJobOptions = Omit<SubmitOptions, 'dedupe' | 'conflict' | 'timeout' | 'signal' | 'onProgress'>

/** A job of {@link RedisQueue.enqueueAll}. */
export type PostJob<Jobs extends JobMap<Jobs>> = {
  [Command in CommandOf<Jobs>]: {
    command: Command
    payload?: PayloadOf<Jobs, Command> | JsonText
    options?: PostJobOptions
  }
}[CommandOf<Jobs>]

const POST_OPTIONS: OptionTable<PostOptions> = pick(SUBMIT_OPTIONS, 'dedupe')

const POST_JOB_OPTIONS: OptionTable<PostJobOptions> = {
  ...pick(SUBMIT_OPTIONS, 'ttl', 'errorTtl', 'attempts', 'backoff'),
  ...pick(SUBMIT_OPTIONS, 'abortUnwanted', 'delay', 'priority', 'lifo'),
}

/** Most jobs of a post. */
export const MAX_POST_JOBS = 1_000
/** Most bytes of all payloads and options of a post. */
export const MAX_POST_BYTES: number = 2 * 1024 * 1024

/** A post without a key is known for so long at least, ms: it may be sent again when its reply was lost. */
const MIN_KNOWN_FOR = 60_000

/**
 * Creates a post from the arguments of a call. Two posts are the same if they have the same commands and payloads, in the same
 * order.
 * @throws TypeError, CodecError; TooLargeError if it has too many jobs, or too many bytes, or a payload is too large.
 */
export function createPost(
  jobs: readonly PostJob<AnyJobs>[],
  options: PostOptions,
  { options: defaults, within }: QueueContext,
): Post {
  checkOptions(options, POST_OPTIONS)
  if (jobs.length > MAX_POST_JOBS)
    throw new TooLargeError(
      `The post has ${jobs.length} jobs; at most ${MAX_POST_JOBS} are submitted together`,
    )
  const { dedupe = false } = options
  const nonce = newId()
  const digest = createHash('sha256')
  let bytes = 0
  const submissions = jobs.map(({ command, payload, options = {} }, at) => {
    checkOptions(options, POST_JOB_OPTIONS)
    const place = { id: idAt(nonce, at, dedupe !== false), nonce }
    const submission = createSubmission(command, payload, { ...options, dedupe }, false, defaults, place)
    const size = Buffer.byteLength(submission.payload)
    bytes += size + Buffer.byteLength(submission.options)
    digest.update(`${command.length} ${size} `).update(command, 'utf16le').update(submission.payload)
    return submission
  })
  if (bytes > MAX_POST_BYTES)
    throw new TooLargeError(`The post has ${bytes} bytes; at most ${MAX_POST_BYTES} are submitted together`)
  return {
    key: dedupe === false ? nonce : dedupeId('', 'key', dedupe),
    digest: digest.digest('base64url'),
    nonce,
    // Five times `within` is the longest that a call is sent again.
    knownFor:
      dedupe === false ? Math.min(POST_KNOWN_FOR, Math.max(MIN_KNOWN_FOR, 10 * within)) : POST_KNOWN_FOR,
    jobs: submissions,
  }
}

/** The id of a job by its place in its post. `isDeduplicated`: it has the length that says so. */
function idAt(nonce: string, at: number, isDeduplicated: boolean): string {
  const hash = createHash('sha256').update(`post ${nonce} ${at}`).digest('base64url')
  return hash.slice(0, isDeduplicated ? DEDUPE_ID_LENGTH : ID_LENGTH)
}

/** Submits a post. Resolves with its jobs, in their order. Rejects if the store refuses it. */
export async function submitPost(post: Post, { store, within }: QueueContext): Promise<AcceptedJob[]> {
  const { key, jobs } = post
  const reply = await store.submitAll(post, within)
  if (reply.status === 'conflict')
    throw new ConflictError('Another post is known under the same key', { key })
  if (reply.status === 'unknown') throw refusalError('unknown', key, reply.command)
  const { status, generation, nonce } = reply
  const isDeduplicated = key !== post.nonce
  return jobs.map(({ command }, at) => ({ id: idAt(nonce, at, isDeduplicated), command, status, generation }))
}
