import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Bus, type BusOptions, type ConsumeOptions, type Queue } from '../../src/bus/index.ts'
import { type BusQueueScripts, busQueueScripts } from '../../src/bus/store/redis/queues/scripts/index.ts'
import { channelName, type TelemetryEvents } from '../../src/kernel/telemetry.ts'
import { MortalityWatch } from './bus-scene.ts'
import { onCommands, onSubscription } from './locker-scene.ts'
import { TcpProxy } from './proxy.ts'
import { type Setup, type SetupOptions, setup } from './setup.ts'
import { until } from './wait.ts'

/** A message that a queue object has received. */
export interface Received {
  readonly value: unknown
  readonly id: number
  readonly redelivered: number
  readonly fence: number | undefined
}

/** A Bus object on a wire of its own, which can fail. */
export class WiredBus implements AsyncDisposable {
  readonly bus: Bus
  readonly proxy: TcpProxy

  constructor(bus: Bus, proxy: TcpProxy) {
    this.bus = bus
    this.proxy = proxy
  }

  /** A queue object, attached, and what it receives. It acknowledges each message if `acks`. */
  async queue(
    name = 'q',
    { ttl = 60_000, acks = false, maxsize = 0 } = {},
  ): Promise<{ queue: Queue<unknown>; received: Received[] }> {
    const queue = this.bus.queue(name)
    const received: Received[] = []
    queue.on('message', (value, id, { redelivered, fence }) => {
      received.push({ value, id, redelivered, fence })
      // It is acknowledged later if the instance does not answer now.
      if (acks) queue.ack(id).catch(() => {})
    })
    await queue.attach({ ttl, maxsize })
    return { queue, received }
  }

  /** The same, which consumes. */
  async consumer(
    options: ConsumeOptions = {},
    name = 'q',
    ttl = 60_000,
  ): Promise<{ queue: Queue<unknown>; received: Received[] }> {
    const made = await this.queue(name, { acks: options.reliable ?? false, ttl })
    await made.queue.consume(options)
    return made
  }

  /** Cuts the next reply to this script after `bytes`. The returned function awaits that. */
  lose(name: keyof BusQueueScripts, bytes = 0): () => Promise<boolean> {
    const fault = this.proxy.swallowReplyAfter(new RegExp(`^EVALSHA ${busQueueScripts[name].sha1} `), bytes)
    return () => until(() => fault.hits === 1, { what: `the reply to ${name} to be lost` })
  }

  /** Its subscription loses every byte, until it is replaced. */
  holeSubscription(): void {
    this.#hole(onSubscription)
  }

  /** Its connection for commands loses every byte, until it is replaced. */
  holeCommands(): void {
    this.#hole(onCommands)
  }

  #hole(only: typeof onCommands): void {
    const chosen = new Set(this.proxy.connections.filter(only))
    this.proxy.blackhole(true, (connection) => chosen.has(connection))
  }

  /** Its connections end, and it cannot connect again until `mend`. */
  async cut(): Promise<void> {
    await this.proxy.refuse(true)
    this.proxy.cut()
  }

  mend(): Promise<void> {
    return this.proxy.refuse(false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy.clear()
    await this.bus.disconnect({ grace: 0 })
    await this.proxy[Symbol.asyncDispose]()
  }
}

/** A server, and Bus objects with a wire each. */
export class BusWire implements AsyncDisposable {
  readonly t: Setup
  readonly #wired: WiredBus[] = []
  readonly #watch: MortalityWatch

  private constructor(t: Setup) {
    this.t = t
    this.#watch = new MortalityWatch(t.server)
  }

  static async start(options: SetupOptions = {}): Promise<BusWire> {
    const wire = new BusWire(await setup(options))
    await wire.loadScripts()
    return wire
  }

  /** Then each transition is one command. */
  async loadScripts(): Promise<void> {
    for (const { source } of Object.values<{ source: string }>({ ...busQueueScripts }))
      await this.t.server.call('SCRIPT', 'LOAD', source)
  }

  /** One more Bus object, as another process would have it, which is connected. */
  async open(options: BusOptions = {}): Promise<WiredBus> {
    const proxy = await TcpProxy.start(this.t.server.options)
    const wired = new WiredBus(new Bus({ redis: proxy.options, unavailableAfter: 5000, ...options }), proxy)
    this.#wired.push(wired)
    await wired.bus.connect()
    return wired
  }

  /** The server is older than any command that is under way: it is sent again if its reply is lost. */
  async isOld(): Promise<void> {
    const fact = async () =>
      /uptime_in_seconds:([2-9]|\d\d)/.test(String(await this.t.server.call('INFO', 'server')))
    await until(fact, { what: 'the server to be two seconds old', every: 50 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#wired.map((wired) => wired[Symbol.asyncDispose]()))
    try {
      await this.#watch[Symbol.asyncDispose]()
    } finally {
      await this.t[Symbol.asyncDispose]()
    }
  }
}

/** What telemetry has told of one event in this process. */
export function hear<E extends keyof TelemetryEvents>(
  event: E,
): { heard: TelemetryEvents[E][] } & Disposable {
  const heard: TelemetryEvents[E][] = []
  const listener = (data: unknown) => heard.push(data as TelemetryEvents[E])
  subscribe(channelName(event), listener)
  return { heard, [Symbol.dispose]: () => void unsubscribe(channelName(event), listener) }
}
