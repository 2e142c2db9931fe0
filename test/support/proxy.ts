import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import type { Address } from './daemon.ts'
import { freePort, LOCALHOST } from './ports.ts'
import { ProxyConnection, type Wire } from './proxy-connection.ts'
import {
  type CommandMatch,
  CutFault,
  type Direction,
  type Fault,
  type FaultOptions,
  type Only,
  SwallowFault,
} from './proxy-fault.ts'

const all: Only = () => true
const none: Only = () => false

/**
 * A wire between clients and a Redis server that fails in the ways of a wire, at a word. It understands RESP
 * requests and replies, but not replication, `CLIENT REPLY` or `MONITOR`.
 */
export class TcpProxy implements AsyncDisposable {
  readonly port: number
  readonly #upstream: Address
  readonly #open = new Set<ProxyConnection>()
  readonly #closedBytes: Record<Direction, number> = { up: 0, down: 0 }
  #accepted = 0
  // Undefined as long as it refuses.
  #listener: Server | undefined
  #delays: Record<Direction, { ms: number; only: Only }> = {
    up: { ms: 0, only: all },
    down: { ms: 0, only: all },
  }
  /** Bytes per ms. */
  #rates: Record<Direction, number> = { up: Number.POSITIVE_INFINITY, down: Number.POSITIVE_INFINITY }
  #blackhole: Only = none
  #stall: Only = none
  #cuts: CutFault[] = []
  #swallows: SwallowFault[] = []
  readonly #wire: Wire

  private constructor(upstream: Address, port: number) {
    this.#upstream = upstream
    this.port = port
    this.#wire = {
      upstream: this.#upstream,
      delayOf: (connection, direction) => {
        const { ms, only } = this.#delays[direction]
        return only(connection) ? ms : 0
      },
      durationOf: (bytes, direction) => bytes / this.#rates[direction],
      isBlackhole: (connection) => this.#blackhole(connection),
      isStalled: (connection) => this.#stall(connection),
      cutFor: (connection, direction) =>
        this.#cuts.find((cut) => cut.direction === direction && cut.appliesTo(connection)),
      swallowFor: (connection, command, words) =>
        this.#swallows.find((swallow) => swallow.appliesTo(connection) && swallow.matches(command, words)),
    }
  }

  static async start(upstream: Address): Promise<TcpProxy> {
    // Between the choice of a free port and the bind somebody else may take it.
    for (let attempt = 1; ; attempt += 1) {
      const proxy = new TcpProxy(upstream, await freePort())
      try {
        await proxy.refuse(false)
        return proxy
      } catch (error) {
        if (attempt === 5) throw error
      }
    }
  }

  /** What reaches the server through it. */
  get options(): { host: string; port: number } {
    return { host: LOCALHOST, port: this.port }
  }

  /** The connections that are open, oldest first. */
  get connections(): readonly ProxyConnection[] {
    return [...this.#open]
  }

  /** How many connections were accepted so far. */
  get accepted(): number {
    return this.#accepted
  }

  /** The bytes that were passed on so far, over all connections. */
  get bytes(): Record<Direction, number> {
    const sum = { ...this.#closedBytes }
    for (const { bytes } of this.#open) {
      sum.up += bytes.up
      sum.down += bytes.down
    }
    return sum
  }

  /** Delivers everything so much later, in one direction or each; 0 ends it. */
  delay(ms: number, { direction, only = all }: { direction?: Direction; only?: Only } = {}): void {
    for (const each of direction ? [direction] : (['up', 'down'] as const)) this.#delays[each] = { ms, only }
  }

  /**
   * Carries so many bytes a second on each connection, in one direction or each. It takes what is written at once, as
   * the buffers of an operating system do, and delivers it bit by bit.
   */
  throttle(bytesPerSecond: number, { direction }: { direction?: Direction } = {}): void {
    for (const each of direction ? [direction] : (['up', 'down'] as const))
      this.#rates[each] = bytesPerSecond / 1000
  }

  /** Ends connections now and returns how many. */
  cut(only: Only = all): number {
    const chosen = this.connections.filter(only)
    for (const connection of chosen) connection.cut()
    return chosen.length
  }

  /** Ends a connection that passes so many more bytes, behind the last of them. */
  cutAfter(bytes: number, direction: Direction, options: FaultOptions = {}): Fault {
    const fault = new CutFault(bytes, direction, options)
    this.#cuts.push(fault)
    return fault
  }

  /**
   * Loses every byte and every end of a connection, in both directions; new connections are accepted and hear
   * nothing. When it ends, connections that lost something are cut, as no stream goes on behind a hole.
   */
  blackhole(on: boolean, only: Only = all): void {
    this.#blackhole = on ? only : none
    for (const connection of this.connections) connection.resume()
  }

  /** Holds every byte back and delivers it when it ends, as TCP does with a network that comes back. */
  stall(on: boolean, only: Only = all): void {
    this.#stall = on ? only : none
    for (const connection of this.connections) connection.resume()
  }

  /** Stops listening, or listens again on the same port. Open connections stay. */
  async refuse(on: boolean): Promise<void> {
    if (on) {
      this.#listener?.close()
      this.#listener = undefined
    } else if (!this.#listener) {
      this.#listener = createServer((socket) => this.#accept(socket)).listen(this.port, LOCALHOST)
      await once(this.#listener, 'listening')
    }
  }

  /** Lets a matching command take effect, and cuts the connection instead of handing over its reply. */
  swallowReply(match: CommandMatch, options: FaultOptions = {}): Fault {
    return this.swallowReplyAfter(match, 0, options)
  }

  /** The same, after the first bytes of the reply. */
  swallowReplyAfter(match: CommandMatch, bytes: number, options: FaultOptions = {}): Fault {
    const fault = new SwallowFault(match, bytes, options)
    this.#swallows.push(fault)
    return fault
  }

  /** A wire without faults again; what lies in wait is forgotten. */
  async clear(): Promise<void> {
    for (const fault of [...this.#cuts, ...this.#swallows]) fault.clear()
    this.#cuts = []
    this.#swallows = []
    this.delay(0)
    this.throttle(Number.POSITIVE_INFINITY)
    this.blackhole(false)
    this.stall(false)
    await this.refuse(false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.refuse(true)
    this.cut()
  }

  #accept(socket: Socket): void {
    const connection = new ProxyConnection(this.#accepted, socket, this.#wire, () => {
      this.#open.delete(connection)
      this.#closedBytes.up += connection.bytes.up
      this.#closedBytes.down += connection.bytes.down
    })
    this.#accepted += 1
    this.#open.add(connection)
  }
}
