import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Bus, type BusOptions } from '../../src/bus/index.ts'
import type { BusHandlers } from './bus-child.ts'
import type { ChildBusOptions, Note } from './bus-protocol.ts'
import { temporaryFolder } from './lifeline.ts'
import { Child } from './process.ts'
import type { RedisServer } from './redis-server.ts'
import { type Setup, type SetupOptions, setup } from './setup.ts'
import { until } from './wait.ts'

const FILE = new URL('./bus-child.ts', import.meta.url)

/** Pause between two looks at the keys, ms. */
const LOOK_MS = 50

const ENDLESS = `
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then found[#found + 1] = key end
end
return found`

/** U4: looks again and again for keys without expiry, until it is disposed; then fails if there were any. */
export class MortalityWatch implements AsyncDisposable {
  readonly #servers: readonly RedisServer[]
  readonly #found = new Set<string>()
  #isOver = false
  readonly #watching: Promise<void>

  constructor(...servers: readonly RedisServer[]) {
    this.#servers = servers
    this.#watching = this.#watch()
  }

  async #watch(): Promise<void> {
    while (!this.#isOver) {
      await Promise.all(this.#servers.map((server) => this.#look(server)))
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
    }
  }

  async #look(server: RedisServer): Promise<void> {
    if (!server.isRunning) return
    // A server that is frozen or refuses the command is looked at later.
    const keys = (await server.call('EVAL', ENDLESS, 0).catch(() => [])) as unknown[]
    for (const key of keys) this.#found.add(String(key))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true
    await this.#watching
    await Promise.all(this.#servers.map((server) => this.#look(server)))
    assert.deepEqual([...this.#found], [], 'keys without expiry')
  }
}

export type BusChild = Child<BusHandlers>

/** A server, this process with a bus on it, and other processes. */
export class BusScene implements AsyncDisposable {
  readonly t: Setup
  readonly bus: Bus
  readonly children: BusChild[] = []
  readonly #log: string
  readonly #watch: MortalityWatch

  private constructor(t: Setup, log: string, options: BusOptions) {
    this.t = t
    this.bus = new Bus({ redis: t.redis, unavailableAfter: 5000, ...options })
    this.#log = log
    this.#watch = new MortalityWatch(t.server)
  }

  static async start(children: number, options: SetupOptions = {}): Promise<BusScene> {
    const t = await setup(options)
    const scene = new BusScene(t, join(await temporaryFolder(), 'notes'), {})
    try {
      await Promise.all(Array.from({ length: children }, () => scene.add()))
      await scene.bus.connect()
    } catch (error) {
      await scene[Symbol.asyncDispose]()
      throw error
    }
    return scene
  }

  /** One more process. */
  async add(options: Partial<ChildBusOptions> = {}): Promise<BusChild> {
    const child = await Child.fork<BusHandlers>(FILE)
    this.children.push(child)
    await child.call('open', { redis: this.t.redis, unavailableAfter: 5000, log: this.#log, ...options })
    return child
  }

  at(index: number): BusChild {
    const found = this.children[index]
    if (!found) throw new Error(`Expected a process ${index}, there are ${this.children.length}`)
    return found
  }

  /** What all processes have noted, also those that were killed, in order. */
  async notes(what: string, of?: BusChild): Promise<Note[]> {
    const text = await readFile(this.#log, 'utf8').catch(() => '')
    const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n')
    const notes = lines.filter(Boolean).map((line) => JSON.parse(line) as Note)
    return notes.filter((note) => note.what === what && (of === undefined || note.pid === of.pid))
  }

  /** Resolves with what was received, when these are so many messages. */
  async received(count: number, of?: BusChild, timeout = 10_000): Promise<Note[]> {
    const enough = async () => {
      const notes = await this.notes('message', of)
      return notes.length >= count && notes
    }
    return until(enough, { what: `${count} messages`, timeout, every: 10 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.children.map((child) => child.kill()))
    await this.bus.disconnect({ grace: 0 })
    try {
      await this.#watch[Symbol.asyncDispose]()
    } finally {
      await this.t[Symbol.asyncDispose]()
    }
  }
}

export function upTo(count: number, from = 1): number[] {
  return Array.from({ length: count }, (_, index) => from + index)
}
