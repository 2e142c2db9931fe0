import { test } from 'node:test'
import type { Locker, LockerOptions, StreamContext } from '../../src/index.ts'
import { lockersIn } from './lockers.ts'
import type { Setup } from './setup.ts'
import { until } from './wait.ts'

/** A source of chunks that the test controls. Several lockers may use its work. */
export class Tap<T> {
  /** The contexts of all works that were started. */
  readonly runs: StreamContext[] = []
  /** Number of chunks that all works yielded. */
  taken = 0
  /** Number of generators that have ended. */
  returned = 0
  #chunks: T[] = []
  #end: { error?: Error } | undefined
  #wake: (() => void) | undefined

  readonly work = (context: StreamContext): AsyncGenerator<T> => {
    this.runs.push(context)
    return this.#generate(context.signal)
  }

  /** Yields these chunks next. */
  push(...chunks: T[]): this {
    this.#chunks.push(...chunks)
    this.#wake?.()
    return this
  }

  /** Ends the stream after the chunks that were pushed. */
  end(error?: Error): this {
    this.#end = error ? { error } : {}
    this.#wake?.()
    return this
  }

  async *#generate(signal: AbortSignal): AsyncGenerator<T> {
    try {
      for (let at = 0; ; at++) {
        while (at >= this.#chunks.length && !this.#end) await this.#changed(signal)
        if (at >= this.#chunks.length) break
        this.taken++
        yield this.#chunks[at] as T
      }
      if (this.#end?.error) throw this.#end.error
    } finally {
      this.returned++
    }
  }

  #changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#wake = resolve
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
  }
}

/** The progress of a reader. */
export interface Reading<T> {
  readonly chunks: T[]
  /** Resolves when the reader has ended. */
  readonly done: Promise<{ chunks: T[]; error: unknown }>
}

/** Reads a stream to its end, in the background. */
export function reading<T>(stream: AsyncIterable<T>): Reading<T> {
  const chunks: T[] = []
  const read = async () => {
    try {
      for await (const chunk of stream) chunks.push(chunk)
      return { chunks, error: undefined }
    } catch (error) {
      return { chunks, error }
    }
  }
  return { chunks, done: read() }
}

/** Resolves to all chunks of a stream. */
export async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const chunks: T[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return chunks
}

/** Resolves to the next `count` chunks of a stream, and does not end it. */
export async function some<T>(stream: AsyncIterator<T>, count: number): Promise<T[]> {
  const chunks: T[] = []
  for (let at = 0; at < count; at++) {
    const { done, value } = await stream.next()
    if (done) throw new Error(`Expected ${count} chunks, got ${at}`)
    chunks.push(value)
  }
  return chunks
}

/** Resolves when a reader has received `count` chunks. */
export function reached({ chunks }: { chunks: readonly unknown[] }, count: number): Promise<unknown> {
  return until(() => chunks.length >= count, { what: `${count} chunks` })
}

/** Two lockers that stand for two processes. */
export interface StreamWorld extends AsyncDisposable {
  /** Undefined in memory. */
  readonly t: Setup | undefined
  readonly here: Locker
  readonly there: Locker
  /** One more locker, which stands for another process. Closed at the end. */
  open(options?: LockerOptions): Locker
}

async function streamsIn(kind: 'memory' | 'redis', options: LockerOptions): Promise<StreamWorld> {
  const world = await lockersIn(kind)
  const common = { timeout: 10_000, ...options }
  const [here, there] = await Promise.all([world.open(common), world.open(common)])
  return {
    t: world.t,
    here,
    there,
    open: (more) => world.create({ ...common, ...more }),
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  }
}

/** Two lockers on a private Redis. */
export async function onRedis(options: LockerOptions = {}): Promise<StreamWorld & { readonly t: Setup }> {
  return (await streamsIn('redis', options)) as StreamWorld & { readonly t: Setup }
}

/** Runs the same test in memory and on a private Redis. */
export function inBothStores(
  title: string,
  body: (world: StreamWorld) => Promise<void>,
  options: LockerOptions = {},
): void {
  for (const kind of ['memory', 'redis'] as const) {
    test(`${title}, ${kind === 'memory' ? 'in memory' : 'on Redis'}`, async () => {
      await using world = await streamsIn(kind, options)
      await body(world)
    })
  }
}
