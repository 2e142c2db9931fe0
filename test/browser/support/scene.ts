import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { bundleDashboard } from '../../../scripts/dashboard/bundle.ts'
import { takeAssetsFrom } from '../../../src/gateway/dashboard/assets.ts'
import { createGateway, type Gateway, type GatewayOptions } from '../../../src/gateway/index.ts'
import { toNodeListener } from '../../../src/gateway/node.ts'
import { Locker, RedisQueue, Services } from '../../../src/index.ts'
import { type Setup, setup } from '../../support/setup.ts'

takeAssetsFrom(bundleDashboard)

interface Running {
  readonly gateway: Gateway
  readonly server: Server
}

/** A Redis, a gateway with its dashboard, and queues, lockers and services on the same Redis. */
export class Scene implements AsyncDisposable {
  readonly t: Setup
  readonly #options: GatewayOptions
  readonly #opened: { close(options: { grace: number }): Promise<void> }[] = []
  #running: Running | undefined
  #port = 0

  private constructor(t: Setup, options: GatewayOptions) {
    this.t = t
    this.#options = options
  }

  static async start(options: GatewayOptions = {}): Promise<Scene> {
    const scene = new Scene(await setup({ persistence: true }), options)
    await scene.startGateway()
    return scene
  }

  /** Where the dashboard is. */
  get url(): string {
    return `http://localhost:${this.#port}${this.#options.basePath ?? ''}/`
  }

  /** Starts the gateway, at the port that it had before. */
  async startGateway(): Promise<void> {
    const gateway = createGateway({ redis: this.t.redis, ...this.#options })
    const server = createServer(toNodeListener(gateway))
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve))
    this.#port = (server.address() as AddressInfo).port
    this.#running = { gateway, server }
  }

  async stopGateway(): Promise<void> {
    const running = this.#running
    this.#running = undefined
    if (!running) return
    running.server.closeAllConnections()
    await new Promise((resolve) => running.server.close(resolve))
    await running.gateway.close({ grace: 0 })
  }

  queue(name: string): RedisQueue {
    return this.#keep(new RedisQueue(name, { redis: this.t.redis }))
  }

  locker(): Locker {
    const locker = new Locker({ redis: this.t.redis })
    this.#opened.push({ close: () => locker.close() })
    return locker
  }

  services(): Services {
    return this.#keep(new Services({ redis: this.t.redis }))
  }

  #keep<T extends { close(options: { grace: number }): Promise<void> }>(opened: T): T {
    this.#opened.push(opened)
    return opened
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopGateway()
    await Promise.all(this.#opened.map((each) => each.close({ grace: 0 })))
    await this.t[Symbol.asyncDispose]()
  }
}

/** A promise that a test settles, for works that go on until they are told. */
export function gate(): { readonly opened: Promise<void>; open(): void } {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { opened, open: () => open() }
}
