/** Bytes that one socket may hold, and all of a gateway together. */
interface Limit {
  readonly each: number
  readonly all: number
}

const MIB = 1024 * 1024

/** So many bytes a socket may always have, whatever the others do. */
const SMALL = 64 * 1024

/** Bytes of one kind, of all sockets. Those of a socket are a share. */
export class Pool {
  limit: Limit
  used = 0
  /** Called when there may be room again. */
  readonly onRoom: Set<() => void> = new Set()

  constructor(limit: Limit) {
    this.limit = limit
  }
}

/** The bytes of one socket. */
export class Share {
  readonly #pool: Pool
  #used = 0

  constructor(pool: Pool) {
    this.#pool = pool
  }

  get used(): number {
    return this.#used
  }

  add(bytes: number): void {
    const { limit, used, onRoom } = this.#pool
    this.#used += bytes
    this.#pool.used += bytes
    if (used > limit.all && this.#pool.used <= limit.all) for (const tell of [...onRoom]) tell()
  }

  set(bytes: number): void {
    this.add(bytes - this.#used)
  }

  /** Whether the socket has more than `times` its limit, or all have, and this one not just a little. */
  isOver(times = 1): boolean {
    const { limit, used } = this.#pool
    return this.#used > times * limit.each || (used > times * limit.all && this.#used > SMALL)
  }

  /** Whether so many bytes more are too many: of this socket, or of all. */
  excess(bytes: number): 'each' | 'all' | undefined {
    const { limit, used } = this.#pool
    if (this.#used + bytes > limit.each) return 'each'
    return used + bytes > limit.all ? 'all' : undefined
  }

  /** Calls `tell` when there may be room, until the socket has ended. */
  awaitRoom(tell: () => void): void {
    this.#pool.onRoom.add(tell)
  }

  stopAwaiting(tell: () => void): void {
    this.#pool.onRoom.delete(tell)
  }
}

/** What all sockets of a gateway hold. */
export class SocketPools {
  /** Messages that are being handled. Above the limit, no more is read; above twice the limit, they are refused. */
  readonly handled: Pool
  /** What subscriptions keep. Above the limit, they are refused. */
  readonly kept: Pool
  /** What waits to be sent. Above the limit, the socket is ended, or the slowest of all. */
  readonly buffered: Pool

  /** `maxMessage`: the largest message of a client. */
  constructor(maxMessage: number) {
    // One socket may have the largest message twice beside the rest.
    const each = 8 * MIB + 2 * maxMessage
    this.handled = new Pool({ each: 4 * MIB, all: 64 * MIB })
    this.kept = new Pool({ each, all: Math.max(128 * MIB, each) })
    this.buffered = new Pool({ each, all: Math.max(64 * MIB, each) })
  }
}
