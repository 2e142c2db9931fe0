import { ClosedError } from '../../errors.ts'
import { AsyncContext } from '../../kernel/event-loop.ts'
import { checkKey, digestOf, FORMAT, newId } from '../../kernel/keys.ts'
import { checkFunction } from '../../kernel/options.ts'
import type { LogStore } from './log/log-store.ts'
import { LogView } from './log/log-view.ts'
import { MemoryLogHub } from './log/memory-log-store.ts'
import { resolveStreamOptions, type StreamOptions, type StreamWork } from './options.ts'
import { Producer } from './producing/producer.ts'
import { StreamReader } from './reading/stream-reader.ts'
import type { ActiveReader, StreamCall, StreamGrant, StreamHost, StreamRegistry } from './stream-host.ts'
import { isShared } from './stream-record.ts'

/** The streams of one locker: owns its readers, its producers, and the views of their logs. */
export class Streams implements StreamRegistry {
  readonly host: StreamHost
  /** Logs of unshared streams. */
  readonly #unsharedLogs: LogStore
  readonly #views = new Map<string, LogView>()
  readonly #readers = new Set<ActiveReader>()
  readonly #producers = new Set<Producer>()
  /** The unshared producer of each key: Redis is away, or the shared log was trimmed. */
  readonly #unshared = new Map<string, Producer>()
  #closed = false

  constructor(host: StreamHost) {
    this.host = host
    this.#unsharedLogs = new MemoryLogHub(host.space.clock).connect()
  }

  /** A reader of the stream of `key`. @throws TypeError, ClosedError */
  open<T>(key: string, work: StreamWork<T>, options: StreamOptions): StreamReader<T> {
    checkKey(key)
    checkFunction('work', work)
    const resolved = resolveStreamOptions(options, this.host.defaults)
    if (this.#closed) throw new ClosedError('The locker is closed', { key })
    return new StreamReader<T>(this, { key, work, options: resolved, context: new AsyncContext() })
  }

  /** Invalidates complete streams. No later reader joins a stream that is being produced. */
  async invalidate(...keys: string[]): Promise<void> {
    for (const key of keys) this.#unshared.delete(key)
    await this.host.space.invalidate(...keys)
  }

  onReaderStarted(reader: ActiveReader): void {
    this.#readers.add(reader)
  }

  onReaderEnded(reader: ActiveReader): void {
    this.#readers.delete(reader)
  }

  isInterrupted({ key }: StreamCall, log: string): boolean {
    return this.#views.get(this.#logName(key, log))?.isInterrupted === true
  }

  openView({ key, options }: StreamCall, log: string): LogView {
    const name = this.#logName(key, log)
    let view = this.#views.get(name)
    if (!view) {
      view = new LogView({
        logs: isShared(log) ? this.host.logs : this.#unsharedLogs,
        name,
        clock: this.host.space.clock,
        unavailableAfter: this.host.unavailableAfter,
        lease: options.lease,
        onIdle: (idle) => this.#removeView(idle, log),
      })
      this.#views.set(name, view)
    }
    return view
  }

  #removeView(view: LogView, log: string): void {
    if (this.#views.get(view.name) === view) this.#views.delete(view.name)
    // No other process knows an unshared log.
    if (!isShared(log)) void this.#unsharedLogs.discard(view.name, true, 0)
  }

  /** The name holds a digest, since keys may be of any length and contain anything. */
  #logName(key: string, log: string): string {
    return isShared(log) ? `${this.host.prefix}:${FORMAT}:x/${digestOf(key)}/${log}` : log
  }

  produce(call: StreamCall, grant: StreamGrant): { log: string; view: LogView } {
    if (!grant.shared) return this.#startUnshared(call, grant)
    return this.#start(call, grant, String(grant.fence))
  }

  #start(call: StreamCall, grant: StreamGrant, log: string): Producer {
    const view = this.openView(call, log)
    const producer = new Producer(this.host, call, grant, log, view, () => {
      this.#producers.delete(producer)
      if (this.#unshared.get(call.key) === producer) this.#unshared.delete(call.key)
    })
    this.#producers.add(producer)
    return producer
  }

  produceUnshared(call: StreamCall): { log: string; view: LogView } {
    return this.#startUnshared(call, unsharedGrant())
  }

  /** Joins the unshared producer of the key, if that is possible. */
  #startUnshared(call: StreamCall, grant: StreamGrant): Producer {
    const running = this.#unshared.get(call.key)
    if (running?.joinable) {
      grant.release().catch(() => {})
      return running
    }
    const producer = this.#start(call, grant, newId())
    this.#unshared.set(call.key, producer)
    return producer
  }

  /** Stops all producers and ends all readers with ClosedError. */
  close(): void {
    this.#closed = true
    const closed = (key: string) => new ClosedError('The locker was closed', { key })
    for (const producer of [...this.#producers]) producer.stop(closed(''))
    for (const reader of [...this.#readers]) reader.close(closed(reader.key))
  }
}

/** A grant that no store knows. */
function unsharedGrant(): StreamGrant {
  return {
    fence: 0,
    shared: false,
    signal: new AbortController().signal,
    progress() {},
    async publish() {},
    async release() {},
  }
}
