import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { findRedisServer } from './binary.ts'
import { Daemon } from './daemon.ts'
import { temporaryFolder } from './lifeline.ts'
import { freePort, LOCALHOST } from './ports.ts'

export interface Watch {
  readonly name: string
  readonly masterPort: number
  readonly quorum: number
}

/** One sentinel process. */
export class SentinelNode implements AsyncDisposable {
  readonly port: number
  readonly #dir: string
  readonly #daemon: Daemon
  readonly #control: Redis

  private constructor(port: number, dir: string, daemon: Daemon) {
    this.port = port
    this.#dir = dir
    this.#daemon = daemon
    this.#control = new Redis({ host: LOCALHOST, port, enableReadyCheck: false, commandTimeout: 5000 })
    this.#control.on('error', () => {})
  }

  static async start(watch: Watch): Promise<SentinelNode> {
    const port = await freePort()
    const dir = await temporaryFolder()
    const [config, log] = [join(dir, 'sentinel.conf'), join(dir, 'sentinel.log')]
    await writeFile(config, configOf(watch, port, dir, log))
    try {
      const address = { host: LOCALHOST, port }
      const daemon = await Daemon.start({
        binary: await findRedisServer(),
        args: [config, '--sentinel'],
        address,
        log,
      })
      const node = new SentinelNode(port, dir, daemon)
      await node.#hurry()
      return node
    } catch (error) {
      await rm(dir, { recursive: true, force: true })
      throw error
    }
  }

  /** Sends `SENTINEL` with these arguments. */
  ask(...args: string[]): Promise<unknown> {
    return this.#control.call('SENTINEL', ...args)
  }

  /** The port of the master that it announces to clients. */
  async masterPort(name: string): Promise<number> {
    const address = await this.ask('GET-MASTER-ADDR-BY-NAME', name)
    return Number(Array.isArray(address) ? address[1] : undefined)
  }

  /**
   * Sentinels look at each other every 2 s and at a server's role every 10 s, unless told otherwise; before
   * Redis 7 they cannot be told, and are just slower.
   */
  async #hurry(): Promise<void> {
    const periods = { 'PUBLISH-PERIOD': 200, 'INFO-PERIOD': 500, 'SLAVE-RECONF-TIMEOUT': 1000 }
    await this.ask('DEBUG', ...Object.entries(periods).flat().map(String)).catch(() => {})
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#control.disconnect()
    await this.#daemon[Symbol.asyncDispose]()
    await rm(this.#dir, { recursive: true, force: true })
  }
}

function configOf({ name, masterPort, quorum }: Watch, port: number, dir: string, log: string): string {
  return [
    `port ${port}`,
    `bind ${LOCALHOST}`,
    `dir ${dir}`,
    `logfile ${log}`,
    `sentinel monitor ${name} ${LOCALHOST} ${masterPort} ${quorum}`,
    `sentinel down-after-milliseconds ${name} 1000`,
    `sentinel failover-timeout ${name} 3000`,
  ].join('\n')
}
