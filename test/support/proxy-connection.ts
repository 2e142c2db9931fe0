import { connect, type Socket } from 'node:net'
import type { Address } from './daemon.ts'
import type { CutFault, Direction, SwallowFault } from './proxy-fault.ts'
import { Pipe } from './proxy-pipe.ts'
import { kindOf, Values, wordsOf } from './resp.ts'

/** What is wrong with the wire at the moment, as one connection sees it. */
export interface Wire {
  readonly upstream: Address
  delayOf(connection: ProxyConnection, direction: Direction): number
  /** How long so many bytes take, ms. */
  durationOf(bytes: number, direction: Direction): number
  isBlackhole(connection: ProxyConnection): boolean
  isStalled(connection: ProxyConnection): boolean
  cutFor(connection: ProxyConnection, direction: Direction): CutFault | undefined
  swallowFor(connection: ProxyConnection, command: Buffer, words: readonly string[]): SwallowFault | undefined
}

/** Replies that the server owes for one command. */
interface Debt {
  readonly command: string
  replies: number
  readonly swallow: SwallowFault | undefined
}

const MESSAGE = /^[PS]?MESSAGE$/
const SUBSCRIPTION = /SUBSCRIBE$/

/** Bytes that a slow wire delivers at once. */
const PART = 8192

/**
 * A client's connection through the proxy. Whole commands and whole replies pass, so that each reply is known by
 * its command also in a pipeline. The server is dialled with the first command.
 */
export class ProxyConnection {
  /** Connections are numbered from 0 in the order in which they were accepted. */
  readonly index: number
  /** The names of the commands seen so far, in upper case. */
  readonly commands: string[] = []
  /** Bytes that were passed on from the client, and to it. */
  readonly bytes: Record<Direction, number> = { up: 0, down: 0 }
  readonly #wire: Wire
  readonly #client: Socket
  #server: Socket | undefined
  readonly #pipes: Record<Direction, Pipe>
  readonly #replies = new Values()
  // In the order of the commands; the first is the one whose reply comes next.
  readonly #debts: Debt[] = []
  // Set once the blackhole took something: a stream with a hole in it must not go on.
  #hasHole = false
  // Set once a fault is ending the connection: nothing more passes.
  #severed = false
  #closed = false
  readonly #onClosed: () => void

  constructor(index: number, client: Socket, wire: Wire, onClosed: () => void) {
    this.index = index
    this.#client = client
    this.#wire = wire
    this.#onClosed = onClosed
    const isStalled = () => wire.isStalled(this)
    this.#pipes = { up: new Pipe(isStalled), down: new Pipe(isStalled) }
    const commands = new Values()
    client.setNoDelay(true)
    client.on('error', () => {})
    client.on('data', (chunk) => {
      for (const command of commands.read(chunk)) this.#command(command)
    })
    client.on('close', () => this.#hangUp('up'))
  }

  get sawSubscribe(): boolean {
    return this.commands.some((name) => SUBSCRIPTION.test(name))
  }

  /** Ends both sides at once; what is still on its way is lost. */
  cut(): void {
    if (this.#closed) return
    this.#closed = true
    this.#pipes.up.clear()
    this.#pipes.down.clear()
    this.#client.destroy()
    this.#server?.destroy()
    this.#onClosed()
  }

  /** Goes on after a stall or a blackhole ended. */
  resume(): void {
    if (this.#hasHole && !this.#wire.isBlackhole(this)) this.cut()
    this.#pipes.up.flush()
    this.#pipes.down.flush()
  }

  #command(command: Buffer): void {
    const [first = '', ...args] = wordsOf(command)
    const name = first.toUpperCase()
    this.commands.push(name)
    const swallow = this.#wire.swallowFor(this, command, [name, ...args])
    swallow?.claim()
    const replies = SUBSCRIPTION.test(name) ? Math.max(args.length, 1) : 1
    this.#pass('up', command, () => this.#debts.push({ command: name, replies, swallow }))
  }

  #reply(reply: Buffer): void {
    const swallow = this.#settle(reply)?.swallow
    if (!swallow) {
      this.#pass('down', reply)
      return
    }
    this.#pass('down', reply.subarray(0, swallow.bytes))
    this.#pipes.down.put(0, () => {
      swallow.hit(this)
      this.#sever(this.#client)
    })
  }

  /** Takes the reply off the debts and returns the one it was for; messages and other pushes are for none. */
  #settle(reply: Buffer): Debt | undefined {
    const [debt] = this.#debts
    const isPush = reply[0] === '>'.charCodeAt(0)
    const kind = isPush || this.sawSubscribe ? kindOf(reply) : undefined
    const isOfSubscription = kind !== undefined && SUBSCRIPTION.test(kind)
    if (kind !== undefined && MESSAGE.test(kind)) return undefined
    if (isOfSubscription ? kind !== debt?.command : isPush) return undefined
    if (debt === undefined) return undefined
    debt.replies -= 1
    // An error is the only reply of its command, also of one that would have many.
    if (debt.replies === 0 || reply[0] === '-'.charCodeAt(0)) this.#debts.shift()
    return debt
  }

  #pass(direction: Direction, bytes: Buffer, onPassed?: () => void): void {
    // On a slow wire it arrives bit by bit.
    const part = this.#wire.durationOf(bytes.length, direction) > 0 ? PART : bytes.length
    let from = 0
    for (; from + part < bytes.length; from += part)
      this.#passPart(direction, bytes.subarray(from, from + part))
    this.#passPart(direction, bytes.subarray(from), onPassed)
  }

  #passPart(direction: Direction, bytes: Buffer, onPassed?: () => void): void {
    this.#pipes[direction].put(
      this.#wire.delayOf(this, direction),
      () => {
        if (this.#severed) return
        if (this.#wire.isBlackhole(this)) {
          this.#hasHole = true
          return
        }
        const fault = this.#wire.cutFor(this, direction)
        const { pass, cut } = fault?.spend(this, bytes.length) ?? { pass: bytes.length, cut: false }
        const socket = direction === 'up' ? this.#dial() : this.#client
        this.bytes[direction] += pass
        socket.write(bytes.subarray(0, pass))
        onPassed?.()
        if (!cut) return
        fault?.claim()
        fault?.hit(this)
        this.#sever(socket)
      },
      this.#wire.durationOf(bytes.length, direction),
    )
  }

  /** Ends the connection, after what was written to this side of it has been sent. */
  #sever(side: Socket): void {
    this.#severed = true
    side.end(() => this.cut())
  }

  #dial(): Socket {
    if (this.#server) return this.#server
    const server = connect(this.#wire.upstream)
    server.setNoDelay(true)
    server.on('error', () => {})
    server.on('data', (chunk) => {
      for (const reply of this.#replies.read(chunk)) this.#reply(reply)
    })
    server.on('close', () => this.#hangUp('down'))
    this.#server = server
    return server
  }

  /** One side ended: the other learns it as late as any byte. In a blackhole it never does. */
  #hangUp(direction: Direction): void {
    this.#pipes[direction].put(this.#wire.delayOf(this, direction), () => {
      if (this.#severed) return
      const other = direction === 'up' ? this.#server : this.#client
      if (this.#wire.isBlackhole(this)) this.#hasHole = true
      else if (other) this.#sever(other)
      else this.cut()
    })
  }
}
