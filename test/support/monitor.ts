import { randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import { until } from './wait.ts'

/** A command the server executed. */
export interface MonitorLine {
  /** The command's name in lower case. */
  readonly command: string
  readonly args: readonly string[]
  /** Whether a script called it; otherwise a client sent it. */
  readonly fromScript: boolean
}

/** What the server executes, from the moment of `MONITOR` on. */
export class Monitor implements AsyncDisposable {
  readonly #control: Redis
  readonly #feed: Redis
  #lines: MonitorLine[] = []

  private constructor(control: Redis, feed: Redis) {
    this.#control = control
    this.#feed = feed
    feed.on('error', () => {})
    feed.on('monitor', (_time: string, [command = '', ...args]: string[], source: string) => {
      this.#lines.push({ command: command.toLowerCase(), args, fromScript: source === 'lua' })
    })
  }

  static async start(control: Redis): Promise<Monitor> {
    return new Monitor(control, await control.monitor())
  }

  /**
   * Everything that was executed before this call. The feed has its own connection and lags, so a marker is sent
   * through the server and awaited in the feed.
   */
  async lines(): Promise<readonly MonitorLine[]> {
    const marker = randomUUID()
    await this.#control.echo(marker)
    const isMarker = ({ command, args }: MonitorLine) => command === 'echo' && args[0] === marker
    await until(() => this.#lines.some(isMarker), { what: 'the monitor to catch up' })
    this.#lines = this.#lines.filter((line) => !isMarker(line))
    return [...this.#lines]
  }

  /** The commands that clients sent, without what scripts called. */
  async clientCommands(): Promise<number> {
    return (await this.lines()).filter(({ fromScript }) => !fromScript).length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // ioredis throws at lines that come in after that: it takes them for replies that nobody asked for.
    this.#feed.stream.removeAllListeners('data').resume()
    this.#feed.disconnect()
  }
}
