import assert from 'node:assert/strict'
import pDefer, { type DeferredPromise } from 'p-defer'
import { type Remote, Services, type ServicesOptions } from '../../src/services/index.ts'
import { servicesScripts } from '../../src/services/store/redis/scripts/index.ts'
import { onCommands, onSubscription } from './locker-scene.ts'
import { TcpProxy } from './proxy.ts'
import { idle } from './services-scene.ts'
import { type Setup, setup } from './setup.ts'
import { until } from './wait.ts'

/** The name of the service of a wired scene. */
export const WIRED = 'wired'

export type WiredApi = {
  /** Returns its argument, when `hold` of the scene is over. */
  echo(name: string): string
  count(name: string, count: number): AsyncIterable<number>
}

/** A Services object on a wire of its own, which can fail. */
export class Wired {
  readonly services: Services
  readonly proxy: TcpProxy

  constructor(services: Services, proxy: TcpProxy) {
    this.services = services
    this.proxy = proxy
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

  /** Its subscription ends, and it cannot subscribe again until `mend`. */
  async loseSubscription(): Promise<void> {
    await this.proxy.refuse(true)
    this.proxy.cut(onSubscription)
    await until(() => !this.services.stats().subscribed, { what: 'the loss to be detected' })
  }

  mend(): Promise<void> {
    return this.proxy.refuse(false)
  }

  async subscribed(): Promise<void> {
    await until(() => this.services.stats().subscribed, { what: 'the subscription' })
  }
}

/** A server, Services objects that serve 'wired' there, and one that calls it. */
export class ServicesWire implements AsyncDisposable {
  readonly t: Setup
  readonly caller: Wired
  readonly servers: readonly Wired[]
  readonly remote: Remote<WiredApi>
  /** The runs of handlers: what, and by which of the servers. */
  readonly runs: { name: string; by: number }[] = []
  /** Handlers wait for it. */
  hold: DeferredPromise<void> | undefined

  private constructor(t: Setup, [caller, ...servers]: readonly Wired[]) {
    assert.ok(caller)
    this.t = t
    this.caller = caller
    this.servers = servers
    this.remote = caller.services.require<WiredApi>(WIRED, { timeout: 8_000, wait: 8_000 })
  }

  static async start(servers: number, options: ServicesOptions = {}): Promise<ServicesWire> {
    const t = await setup()
    for (const { source } of Object.values(servicesScripts)) await t.server.call('SCRIPT', 'LOAD', source)
    const all: Wired[] = []
    for (let n = 0; n <= servers; n++) {
      const proxy = await TcpProxy.start(t.server.options)
      all.push(new Wired(new Services({ redis: proxy.options, lease: 1000, ...options }), proxy))
    }
    const wire = new ServicesWire(t, all)
    try {
      await Promise.all(wire.servers.map((server, index) => wire.#serve(server, index)))
      await wire.remote.ready()
      await wire.subscribed()
    } catch (error) {
      await wire[Symbol.asyncDispose]()
      throw error
    }
    return wire
  }

  async #serve({ services }: Wired, by: number): Promise<void> {
    const service = await services.register<WiredApi>(WIRED)
    service.on('echo', async (name) => {
      this.runs.push({ name, by })
      await this.hold?.promise
      return name
    })
    const { runs } = this
    service.on('count', async function* (name: string, count: number) {
      runs.push({ name, by })
      for (let n = 0; n < count; n++) yield n
    })
  }

  /** Handlers wait from now on, until `hold.resolve()`. */
  holding(): DeferredPromise<void> {
    this.hold = pDefer<void>()
    return this.hold
  }

  at(index: number): Wired {
    const found = this.servers[index]
    if (!found) throw new Error(`Expected a server ${index}`)
    return found
  }

  get all(): readonly Wired[] {
    return [this.caller, ...this.servers]
  }

  async subscribed(): Promise<void> {
    for (const each of this.all) await each.subscribed()
  }

  runsOf(name: string): number {
    return this.runs.filter((run) => run.name === name).length
  }

  /** V2: each was run once. */
  assertOnce(names: readonly string[]): void {
    const counts = new Map<string, number>()
    for (const { name } of this.runs) counts.set(name, (counts.get(name) ?? 0) + 1)
    for (const name of names)
      assert.equal(counts.get(name) ?? 0, 1, `${name} ran ${counts.get(name) ?? 0} times`)
  }

  /** Resolves when no handler runs, and Redis has what they replied. */
  async idleServers(): Promise<void> {
    await idle(this.t.server, this.servers.length, WIRED)
  }

  /** V4: all servers are registered, and have nothing to do. */
  async idle(): Promise<void> {
    await idle(this.t.server, this.servers.length, WIRED)
    assert.equal(this.caller.services.stats().calling, 0)
    for (const { services } of this.servers) assert.equal(services.stats().serving, 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hold?.resolve()
    await Promise.all(this.all.map(({ proxy }) => proxy.clear()))
    await Promise.all(this.all.map(({ services }) => services.close({ grace: 0 })))
    for (const { proxy } of this.all) await proxy[Symbol.asyncDispose]()
    await this.t[Symbol.asyncDispose]()
  }
}

export function namesOf(count: number, prefix = 'j'): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}${index}`)
}
