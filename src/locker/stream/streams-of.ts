import { KeyNamespace } from '../key-namespace.ts'
import type { LockerRuntime } from '../runtime.ts'
import type { MemoryStore } from '../store/memory-store.ts'
import { MemoryLogHub } from './log/memory-log-store.ts'
import { RedisLogStore } from './log/redis-log-store.ts'
import { type StreamRecord, streamRecordCodec } from './stream-record.ts'
import { Streams } from './streams.ts'

/** The logs beside each memory store: lockers that share the store share them. */
const hubs = new WeakMap<MemoryStore, MemoryLogHub>()

function memoryLogsFor(memory: MemoryStore): MemoryLogHub {
  const hub = hubs.get(memory) ?? new MemoryLogHub(memory.clock, memory.maxBytes)
  hubs.set(memory, hub)
  return hub
}

/** Creates the streams of a locker. `memory` is the store that its user passed, if any. */
export function createStreams(runtime: LockerRuntime, memory: MemoryStore | undefined): Streams {
  const { clock, codec, connection, options, context } = runtime
  const embedded = () => (memory ? memoryLogsFor(memory) : new MemoryLogHub(clock)).connect()
  return new Streams({
    space: new KeyNamespace<StreamRecord>(runtime, 's', streamRecordCodec),
    clock,
    prefix: options.prefix,
    logs: connection ? new RedisLogStore(connection) : embedded(),
    codec,
    scheduler: context.scheduler,
    counters: context.counters,
    defaults: options,
    unavailableAfter: options.unavailableAfter,
    takeover: options.takeover,
    exposeError: context.exposeError,
  })
}
