import type { ProxyConnection } from './proxy-connection.ts'

/** From the client to the server is up. */
export type Direction = 'up' | 'down'

/** Chooses the connections a fault applies to. */
export type Only = (connection: ProxyConnection) => boolean

export interface FaultOptions {
  /** @default every connection */
  only?: Only
  /** How often it strikes before it is spent. @default 1 */
  times?: number
}

/** A fault that lies in wait. */
export class Fault {
  /** The connection it struck first. */
  readonly struck: Promise<ProxyConnection>
  readonly #only: Only
  readonly #times: number
  // Each claim is to become a hit; a claim whose connection ends before that stays without one.
  #claims = 0
  #hits = 0
  #cleared = false
  #strike: (connection: ProxyConnection) => void = () => {}

  constructor({ only = () => true, times = 1 }: FaultOptions) {
    this.#only = only
    this.#times = times
    this.struck = new Promise((resolve) => {
      this.#strike = resolve
    })
  }

  get hits(): number {
    return this.#hits
  }

  appliesTo(connection: ProxyConnection): boolean {
    return !this.#cleared && this.#claims < this.#times && this.#only(connection)
  }

  /** Takes one of its times; only the connection that will bring the fault about calls this and `hit`. */
  claim(): void {
    this.#claims += 1
  }

  hit(connection: ProxyConnection): void {
    this.#hits += 1
    this.#strike(connection)
  }

  clear(): void {
    this.#cleared = true
  }
}

/** Cuts a connection after so many more bytes in one direction. */
export class CutFault extends Fault {
  readonly bytes: number
  readonly direction: Direction
  readonly #passed = new WeakMap<ProxyConnection, number>()

  constructor(bytes: number, direction: Direction, options: FaultOptions) {
    super(options)
    this.bytes = bytes
    this.direction = direction
  }

  /** How many of these bytes still pass, and whether the connection is cut behind them. */
  spend(connection: ProxyConnection, length: number): { pass: number; cut: boolean } {
    const passed = this.#passed.get(connection) ?? 0
    const pass = Math.min(length, this.bytes - passed)
    this.#passed.set(connection, passed + pass)
    return { pass, cut: passed + pass >= this.bytes }
  }
}

/** A command, by a pattern of its words (`SET key value`, the name in upper case), or by a look at its bytes. */
export type CommandMatch = RegExp | ((command: Buffer) => boolean)

/** Lets a command take effect and cuts the connection in its reply. */
export class SwallowFault extends Fault {
  /** How much of the reply arrives. */
  readonly bytes: number
  readonly #match: CommandMatch

  constructor(match: CommandMatch, bytes: number, options: FaultOptions) {
    super(options)
    this.bytes = bytes
    this.#match = match
  }

  matches(command: Buffer, words: readonly string[]): boolean {
    // `search` starts at the beginning whatever the pattern's own state.
    return typeof this.#match === 'function'
      ? this.#match(command)
      : words.join(' ').search(this.#match) !== -1
  }
}
