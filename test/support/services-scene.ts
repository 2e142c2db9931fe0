import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Remote, Services, type ServicesOptions } from '../../src/services/index.ts'
import { ServiceKeys } from '../../src/services/store/redis/service-calls.ts'
import { LOAD_STEP } from '../../src/services/store/service-record.ts'
import { temporaryFolder } from './lifeline.ts'
import { Child } from './process.ts'
import type { RedisServer } from './redis-server.ts'
import type { ServicesHandlers } from './services-child.ts'
import { type ChildServicesOptions, type Run, SERVICE, type WorkApi } from './services-protocol.ts'
import { type Setup, type SetupOptions, setup } from './setup.ts'
import { until } from './wait.ts'

const FILE = new URL('./services-child.ts', import.meta.url)

const [LEASES = '', FREE = '', LOADS = ''] = new ServiceKeys('soloflight', SERVICE).all

/** A process that serves 'work', as its parent sees it. */
export type ServingChild = Child<ServicesHandlers>

export interface Serving {
  readonly child: ServingChild
  readonly id: string
}

/** How many calls each process that is registered runs, by its id, as Redis counts. */
export async function loadsOf(server: RedisServer, service = SERVICE): Promise<Map<string, number>> {
  const [, , loads = ''] = new ServiceKeys('soloflight', service).all
  const fields = ((await server.call('HGETALL', loads)) as unknown[]).map(String)
  const found = new Map<string, number>()
  for (let n = 0; n < fields.length; n += 2) {
    const [dealt = 0, finished = 0] = (fields[n + 1] ?? '').split(' ').map(Number)
    found.set(String(fields[n]), dealt - finished)
  }
  return found
}

/** V4: resolves when `count` processes are registered, and the load of each is 0. */
export async function idle(server: RedisServer, count: number, service = SERVICE): Promise<void> {
  const [, free = ''] = new ServiceKeys('soloflight', service).all
  let seen: unknown
  const allIdle = async () => {
    const loads = await loadsOf(server, service)
    const ranked = ((await server.call('ZRANGE', free, 0, -1, 'WITHSCORES')) as unknown[]).flat().map(String)
    seen = { loads: [...loads], ranked }
    const scores = ranked.filter((_, index) => index % 2 === 1).map(Number)
    const noneRuns = [...loads.values()].every((load) => load === 0)
    return (
      loads.size === count &&
      noneRuns &&
      scores.length === count &&
      scores.every((score) => score < LOAD_STEP)
    )
  }
  await until(allIdle, { what: `${count} idle processes`, timeout: 6000 }).catch((error: unknown) => {
    throw new Error(`${error}, seen: ${JSON.stringify(seen)}`)
  })
}

/** U4: every key has an expiry. */
export async function assertMortal(server: RedisServer): Promise<void> {
  const keys = ((await server.call('KEYS', '*')) as unknown[]).map(String)
  for (const key of keys) assert.notEqual(Number(await server.call('PTTL', key)), -1, `${key} has no expiry`)
}

/** A server, processes that serve 'work' there, and this process, which calls it. */
export class ServicesScene implements AsyncDisposable {
  readonly t: Setup
  readonly services: Services
  readonly work: Remote<WorkApi>
  readonly serving: Serving[] = []
  readonly lease: number
  readonly #log: string

  private constructor(t: Setup, lease: number, log: string, options: ServicesOptions) {
    this.t = t
    this.lease = lease
    this.#log = log
    this.services = new Services({ redis: t.redis, lease, ...options })
    this.work = this.services.require<WorkApi>(SERVICE, { timeout: 15_000 })
  }

  /** One process for each of the options. */
  static async start(
    lease: number,
    children: readonly Partial<ChildServicesOptions>[],
    { server = {}, ...options }: ServicesOptions & { server?: SetupOptions } = {},
  ): Promise<ServicesScene> {
    const t = await setup(server)
    const log = join(await temporaryFolder(), 'runs')
    const scene = new ServicesScene(t, lease, log, options)
    try {
      await Promise.all(children.map((each) => scene.add(each)))
      await scene.work.ready()
      await until(() => scene.services.stats().subscribed, { what: 'the subscription' })
    } catch (error) {
      await scene[Symbol.asyncDispose]()
      throw error
    }
    return scene
  }

  /** One more process. */
  async add(options: Partial<ChildServicesOptions> = {}): Promise<Serving> {
    const child = await Child.fork<ServicesHandlers>(FILE)
    const { t, lease } = this
    const entry: Serving = { child, id: '' }
    this.serving.push(entry)
    const id = await child.call('open', { redis: t.redis, lease, log: this.#log, ...options })
    return Object.assign(entry, { id })
  }

  at(index: number): Serving {
    const found = this.serving[index]
    if (!found) throw new Error(`Expected a process ${index}, there are ${this.serving.length}`)
    return found
  }

  /** The process of this pid. */
  of(pid: unknown): Serving {
    const found = this.serving.find(({ child }) => child.pid === pid)
    if (!found) throw new Error(`Expected a process ${pid}`)
    return found
  }

  other(than: Serving): Serving {
    const found = this.serving.find((each) => each !== than)
    if (!found) throw new Error('Expected another process')
    return found
  }

  /** The runs of all handlers, also of those that were killed. */
  async runs(name?: string): Promise<Run[]> {
    const text = await readFile(this.#log, 'utf8').catch(() => '')
    const runs = text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Run)
    return name === undefined ? runs : runs.filter((run) => run.name === name)
  }

  /** Resolves with the process that runs the task. */
  async runner(name: string): Promise<Serving> {
    const run = await until(async () => (await this.runs(name)).at(-1), { what: `${name} to run` })
    return this.of(run.pid)
  }

  /** V2: no task was run twice. */
  async assertRunOnce(names: readonly string[]): Promise<void> {
    const counts = new Map<string, number>()
    for (const { name } of await this.runs()) counts.set(name, (counts.get(name) ?? 0) + 1)
    for (const name of names)
      assert.equal(counts.get(name) ?? 0, 1, `${name} ran ${counts.get(name) ?? 0} times`)
  }

  /** Resolves when so many processes are registered. */
  async registered(count: number): Promise<void> {
    const isSo = async () => Number(await this.t.server.call('ZCARD', LEASES)) === count
    await until(isSo, { what: `${count} registered processes` })
  }

  async loads(): Promise<Map<string, number>> {
    return loadsOf(this.t.server)
  }

  async idle(count: number): Promise<void> {
    await idle(this.t.server, count)
    assert.equal(this.services.stats().calling, 0)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.serving.map(({ child }) => child.kill()))
    await this.services.close({ grace: 0 })
    await this.t[Symbol.asyncDispose]()
  }
}

export { FREE, LEASES, LOADS }
