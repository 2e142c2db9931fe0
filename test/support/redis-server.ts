import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { findRedisServer, majorVersion } from './binary.ts'
import { type ClientOptions, Clients } from './clients.ts'
import { type Address, Daemon } from './daemon.ts'
import { temporaryFolder } from './lifeline.ts'
import { Monitor } from './monitor.ts'
import { freePort, LOCALHOST } from './ports.ts'

export interface RedisServerOptions {
  /** More arguments of redis-server, as on its command line; they win over the usual ones. */
  args?: readonly string[]
  /** A port on 127.0.0.1 beside the unix socket. @default none */
  port?: number | 'free'
  /** Where its files are. One that is given stays when the server is disposed. @default a fresh one */
  dir?: string
  /** Whether every write is on the disk before it is answered, so that it outlives a kill. @default false */
  persistence?: boolean
}

/** The name of the support's own connections, which are not shown to tests. */
const CONTROL = 'soloflight-support'

/** A private Redis server that dies with the test process. */
export class RedisServer implements AsyncDisposable {
  readonly path: string
  readonly port: number | undefined
  readonly #dir: string
  readonly #ownsDir: boolean
  readonly #args: readonly string[]
  readonly #clients = new Clients()
  #persistence: boolean
  // The process that runs or ran last; only `#launch` replaces it.
  #daemon: Daemon | undefined
  // Made at its first use and again after the server went away.
  #control: Redis | undefined

  private constructor(dir: string, port: number | undefined, options: RedisServerOptions) {
    this.path = join(dir, 'redis.sock')
    this.port = port
    this.#dir = dir
    this.#ownsDir = options.dir === undefined
    this.#args = options.args ?? []
    this.#persistence = options.persistence ?? false
  }

  /** Starts a server on a unix socket and, if asked, a port. Returns when it answers. */
  static async start(options: RedisServerOptions = {}): Promise<RedisServer> {
    // Between the choice of a free port and the server's bind somebody else may take it.
    for (let attempt = 1; ; attempt += 1) {
      const port = options.port === 'free' ? await freePort() : options.port
      const dir = options.dir ?? (await temporaryFolder())
      const server = new RedisServer(dir, port, options)
      try {
        await server.#launch()
        return server
      } catch (error) {
        await server[Symbol.asyncDispose]()
        if (options.port !== 'free' || attempt === 5) throw error
      }
    }
  }

  get pid(): number {
    return this.#running.pid
  }

  get isRunning(): boolean {
    return this.#daemon?.hasExited === false
  }

  /** What reaches it: its port if it has one, otherwise its socket. */
  get options(): Address {
    return this.port === undefined ? { path: this.path } : { host: LOCALHOST, port: this.port }
  }

  /** A connected client, closed with the server. */
  client(options: ClientOptions = {}): Promise<Redis> {
    return this.#clients.connect({ ...this.options, ...options })
  }

  /** Sends one command over the support's own connection. */
  call(command: string, ...args: (string | number)[]): Promise<unknown> {
    return this.#controller().call(command, ...args)
  }

  /** Stops it in the middle of whatever it does: its connections stay open and nothing answers. */
  freeze(): Promise<void> {
    return this.#running.freeze()
  }

  thaw(): void {
    this.#running.thaw()
  }

  /** Ends it by a signal and returns when it is gone. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.#control?.disconnect()
    this.#control = undefined
    await this.#daemon?.kill(signal)
  }

  /** Lets it end in good order. */
  stop(): Promise<void> {
    return this.kill('SIGTERM')
  }

  /** Starts it again at the same socket and port. Its data are there if it persisted them before and does now. */
  async restart({ persistence = this.#persistence }: { persistence?: boolean } = {}): Promise<void> {
    await this.kill()
    this.#persistence = persistence
    await this.#launch()
  }

  /**
   * How often each command was called, by clients and inside scripts, by its name in lower case (`get`,
   * `client|list`). The support's own `info` and `config|resetstat` are among them.
   */
  async commandStats(): Promise<Record<string, number>> {
    const info = await this.#controller().info('commandstats')
    const calls = info.matchAll(/^cmdstat_(.+?):calls=(\d+)/gm)
    return Object.fromEntries(Array.from(calls, ([, name = '', count]) => [name, Number(count)]))
  }

  async resetStats(): Promise<void> {
    await this.#controller().config('RESETSTAT')
  }

  /** What it executes from now on, and who asked: `INFO` does not tell scripts from clients, `MONITOR` does. */
  monitor(): Promise<Monitor> {
    return Monitor.start(this.#controller())
  }

  /** The fields of `CLIENT LIST`, without the support's own connections. */
  async connectedClients(): Promise<Record<string, string>[]> {
    const list = String(await this.call('CLIENT', 'LIST'))
    const clients = list
      .trim()
      .split('\n')
      .map((line) =>
        Object.fromEntries(Array.from(line.matchAll(/(\S+?)=(\S*)/g), ([, key, value]) => [key, value])),
      )
    return clients.filter(({ name }) => name !== CONTROL)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#clients[Symbol.dispose]()
    await this.kill()
    if (this.#ownsDir) await rm(this.#dir, { recursive: true, force: true })
  }

  get #running(): Daemon {
    if (this.#daemon === undefined || this.#daemon.hasExited) throw new Error('the server does not run')
    return this.#daemon
  }

  #controller(): Redis {
    if (this.#control === undefined || this.#control.status === 'end') {
      // It shows as little of itself as it can, and tells a dead or frozen server at once.
      this.#control = new Redis({
        path: this.path,
        connectionName: CONTROL,
        enableReadyCheck: false,
        disableClientInfo: true,
        retryStrategy: null,
        maxRetriesPerRequest: 0,
        commandTimeout: 5000,
      })
      this.#control.on('error', () => {})
    }
    return this.#control
  }

  async #launch(): Promise<void> {
    const binary = await findRedisServer()
    const debug = (await majorVersion(binary)) >= 7 ? ['--enable-debug-command', 'local'] : []
    const log = join(this.#dir, 'redis.log')
    const args = [
      ...['--dir', this.#dir, '--logfile', log, '--save', '', '--unixsocket', this.path],
      ...['--bind', LOCALHOST, '--port', String(this.port ?? 0)],
      ...['--appendonly', this.#persistence ? 'yes' : 'no', '--appendfsync', 'always'],
      ...debug,
      ...this.#args,
    ]
    this.#daemon = await Daemon.start({ binary, args, address: { path: this.path }, log })
  }
}

/** The port of a server that was started with one. */
export function portOf({ port }: RedisServer): number {
  if (port === undefined) throw new Error('Expected a server with a port, got one without')
  return port
}
