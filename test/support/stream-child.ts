// A child process with a Locker. It reads streams, and produces them from taps that its parent controls.

import { Locker, type LockerOptions, SoloflightError } from '../../src/index.ts'
import type { Address } from './daemon.ts'
import { emit, serve } from './process-child.ts'
import { Tap } from './stream-scene.ts'

export interface ChildStreamOptions {
  /** Identifies the reading in events. */
  id: string
  /** The work yields `count` numbers, one each `every` ms. Without it, the work yields what is pushed. */
  count?: number
  every?: number
  timeout?: number
}

/** The result of a reading: its chunks, and the code of its error. */
export interface ChildReading {
  id: string
  chunks: unknown[]
  code: string | undefined
  message: string | undefined
}

const taps = new Map<string, Tap<unknown>>()
let opened: Locker | undefined

/** Monotonic time, the same in every process of this machine, ms. */
function now(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

function tapOf(key: string): Tap<unknown> {
  const tap = taps.get(key) ?? new Tap()
  taps.set(key, tap)
  return tap
}

async function* ticks(count: number, every: number): AsyncGenerator<{ number: number; at: number }> {
  for (let number = 0; number < count; number++) {
    await new Promise((resolve) => setTimeout(resolve, every))
    yield { number, at: now() }
  }
}

async function read(stream: AsyncIterable<unknown>, id: string): Promise<ChildReading> {
  const chunks: unknown[] = []
  try {
    for await (const chunk of stream) {
      chunks.push(chunk)
      emit('chunk', { id, chunk, at: now() })
    }
    return { id, chunks, code: undefined, message: undefined }
  } catch (error) {
    const code = error instanceof SoloflightError ? error.code : String(error)
    return { id, chunks, code, message: String(error) }
  }
}

const handlers = {
  open: async (options: LockerOptions & { redis: Address }): Promise<void> => {
    opened = new Locker(options)
    await opened.peek('warm')
    while (!opened.stats().subscribed) await new Promise((resolve) => setTimeout(resolve, 5))
  },
  /** Starts to read. The event 'ended' carries the result. */
  read: (key: string, { id, count, every = 0, timeout = 20_000 }: ChildStreamOptions): void => {
    if (!opened) throw new Error('Expected `open` before other calls')
    const stream = opened.stream(
      key,
      (context) => {
        emit('run', { key, fence: context.fence, id })
        return count === undefined ? tapOf(key).work(context) : ticks(count, every)
      },
      { timeout },
    )
    void read(stream, id).then((reading) => emit('ended', reading))
  },
  push: (key: string, ...chunks: unknown[]): void => {
    tapOf(key).push(...chunks)
  },
  end: (key: string): void => {
    tapOf(key).end()
  },
}

export type StreamHandlers = typeof handlers

serve(handlers)
