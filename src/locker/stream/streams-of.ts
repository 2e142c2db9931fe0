import { KeyNamespace } from '../key-namespace.ts'
import type { LockerRuntime } from '../runtime.ts'
import type { MemoryStore } from '../store/memory-store.ts'
import { MemoryLogs } from './log/memory-log-store.ts'
import { RedisLogs } from './log/redis-log-store.ts'
import { noteCodec, type StreamNote } from './stream-record.ts'
import { Streams } from './streams.ts'

/** Lockers that share a memory store share the logs of their streams as well. */
const shared = new WeakMap<MemoryStore, MemoryLogs>()

function logsOf(memory: MemoryStore): MemoryLogs {
  const logs = shared.get(memory) ?? new MemoryLogs(memory.clock, memory.maxBytes)
  shared.set(memory, logs)
  return logs
}

/** The streams of a locker. `memory`: the store that it was given to share, if it was. */
export function streamsOf(runtime: LockerRuntime, memory: MemoryStore | undefined): Streams {
  const { clock, codec, connection, options, context } = runtime
  const embedded = () => (memory ? logsOf(memory) : new MemoryLogs(clock)).connect()
  return new Streams({
    space: new KeyNamespace<StreamNote>(runtime, 's', noteCodec),
    prefix: options.prefix,
    logs: connection ? new RedisLogs(connection) : embedded(),
    codec,
    scheduler: context.scheduler,
    counters: context.counters,
    defaults: options,
    unavailableAfter: options.unavailableAfter,
    takeover: options.takeover,
    exposeError: context.exposeError,
  })
}
