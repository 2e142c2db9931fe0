import { ClosedError } from '../../errors.ts'
import { newId } from '../../kernel/ids.ts'
import { checkFunction } from '../../kernel/options.ts'
import { checkKey, digestOf, FORMAT } from '../../kernel/redis/keys.ts'
import { AsyncContext } from '../../kernel/work/user-code.ts'
import type { LogStore } from './log/log-store.ts'
import { LogView } from './log/log-view.ts'
import { MemoryLogs } from './log/memory-log-store.ts'
import { resolveTerms, type StreamOptions, type StreamWork } from './options.ts'
import { Producer } from './producing/producer.ts'
import { StreamReader } from './reading/stream-reader.ts'
import type { DeskReader, Grant, ReaderDesk, StreamCall, StreamHost } from './stream-host.ts'
import { isShared } from './stream-record.ts'

/** The streams of one locker in this process: its readers, its producers, and the logs that they have to do with. */
export class Streams implements ReaderDesk {
  readonly host: StreamHost
  /** Logs of what is produced for this process alone. */
  readonly #local: LogStore
  readonly #views = new Map<string, LogView>()
  readonly #readers = new Set<DeskReader>()
  readonly #producers = new Set<Producer>()
  /** Produced for this process alone: Redis is away, or the shared stream of the key has no beginning any more. */
  readonly #alone = new Map<string, Producer>()
  #closed = false

  constructor(host: StreamHost) {
    this.host = host
    this.#local = new MemoryLogs(host.space.clock).connect()
  }

  /** A reader of the stream of `key`. Throws TypeError, ClosedError. */
  open<T>(key: string, work: StreamWork<T>, options: StreamOptions): StreamReader<T> {
    checkKey(key)
    checkFunction('work', work)
    const terms = resolveTerms(options, this.host.defaults)
    if (this.#closed) throw new ClosedError('The locker is closed', { key })
    return new StreamReader<T>(this, { key, work, terms, context: new AsyncContext() })
  }

  /** Forgets complete streams, and keeps those that are produced now from being joined. */
  async invalidate(...keys: string[]): Promise<void> {
    for (const key of keys) this.#alone.delete(key)
    await this.host.space.invalidate(...keys)
  }

  began(reader: DeskReader): void {
    this.#readers.add(reader)
  }

  ended(reader: DeskReader): void {
    this.#readers.delete(reader)
  }

  isDead({ key }: StreamCall, log: string): boolean {
    return this.#views.get(this.#nameOf(key, log))?.isCut === true
  }

  view({ key, terms }: StreamCall, log: string): LogView {
    const name = this.#nameOf(key, log)
    let view = this.#views.get(name)
    if (!view) {
      view = new LogView({
        logs: isShared(log) ? this.host.logs : this.#local,
        name,
        clock: this.host.space.clock,
        within: this.host.unavailableAfter,
        lease: terms.lease,
        onIdle: (idle) => this.#idle(idle, log),
      })
      this.#views.set(name, view)
    }
    return view
  }

  #idle(view: LogView, log: string): void {
    if (this.#views.get(view.name) === view) this.#views.delete(view.name)
    // Nobody else can know of it.
    if (!isShared(log)) void this.#local.forget(view.name, true, 0)
  }

  /** Keys are of any length, and hostile. */
  #nameOf(key: string, log: string): string {
    return isShared(log) ? `${this.host.prefix}:${FORMAT}:x/${digestOf(key)}/${log}` : log
  }

  produce(call: StreamCall, grant: Grant): { log: string; view: LogView } {
    if (!grant.shared) return this.#produceAlone(call, grant)
    return this.#start(call, grant, String(grant.fence))
  }

  #start(call: StreamCall, grant: Grant, log: string): Producer {
    const view = this.view(call, log)
    const producer = new Producer(this.host, call, grant, log, view, () => {
      this.#producers.delete(producer)
      if (this.#alone.get(call.key) === producer) this.#alone.delete(call.key)
    })
    this.#producers.add(producer)
    return producer
  }

  goAlone(call: StreamCall): { log: string; view: LogView } {
    return this.#produceAlone(call, aloneGrant())
  }

  /** Once, as long as its beginning is there. */
  #produceAlone(call: StreamCall, grant: Grant): Producer {
    const known = this.#alone.get(call.key)
    if (known?.open) {
      grant.release().catch(() => {})
      return known
    }
    const producer = this.#start(call, grant, newId())
    this.#alone.set(call.key, producer)
    return producer
  }

  /** Ends everything: readers receive ClosedError. */
  close(): void {
    this.#closed = true
    const closed = (key: string) => new ClosedError('The locker was closed', { key })
    for (const producer of [...this.#producers]) producer.stop(closed(''))
    for (const reader of [...this.#readers]) reader.close(closed(reader.key))
  }
}

/** Nobody is asked, and nobody is told. */
function aloneGrant(): Grant {
  return {
    fence: 0,
    shared: false,
    signal: new AbortController().signal,
    progress() {},
    async publish() {},
    async release() {},
  }
}
