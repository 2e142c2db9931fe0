import { LOCALHOST } from './ports.ts'
import { portOf, RedisServer } from './redis-server.ts'
import { SentinelNode } from './sentinel-node.ts'
import { until } from './wait.ts'

const NAME = 'mymaster'
const SENTINELS = 3
const QUORUM = 2

/** A master and its replica, watched by three sentinels. */
export class SentinelSet implements AsyncDisposable {
  readonly name: string = NAME
  /** Both servers; which of them is the master changes. */
  readonly servers: readonly RedisServer[]
  readonly #sentinels: readonly SentinelNode[]

  private constructor(servers: readonly RedisServer[], sentinels: readonly SentinelNode[]) {
    this.servers = servers
    this.#sentinels = sentinels
  }

  /** Returns when every sentinel knows the others and a replica that could take over. */
  static async start(): Promise<SentinelSet> {
    const servers: RedisServer[] = []
    const sentinels: SentinelNode[] = []
    const set = new SentinelSet(servers, sentinels)
    try {
      const args = ['--repl-diskless-sync-delay', '0']
      const master = await RedisServer.start({ port: 'free', args })
      servers.push(master)
      const masterPort = portOf(master)
      servers.push(
        await RedisServer.start({
          port: 'free',
          args: [...args, '--replicaof', LOCALHOST, String(masterPort)],
        }),
      )
      await until(async () => String(await master.call('INFO', 'replication')).includes('state=online'), {
        what: 'the replica to be in step',
        timeout: 10_000,
      })
      // One after the other: each is then in the list that disposal goes through.
      for (let index = 0; index < SENTINELS; index += 1) {
        sentinels.push(await SentinelNode.start({ name: NAME, masterPort, quorum: QUORUM }))
      }
      await set.#settled()
      return set
    } catch (error) {
      await set[Symbol.asyncDispose]()
      throw error
    }
  }

  get sentinels(): { host: string; port: number }[] {
    return this.#sentinels.map(({ port }) => ({ host: LOCALHOST, port }))
  }

  /** What ioredis follows the master by. */
  get options(): { sentinels: { host: string; port: number }[]; name: string } {
    return { sentinels: this.sentinels, name: NAME }
  }

  /** The server that the sentinels announce as the master. */
  async master(): Promise<RedisServer> {
    const [sentinel] = this.#sentinels
    const port = await sentinel?.masterPort(NAME)
    const master = this.servers.find((server) => server.port === port)
    if (!master)
      throw new Error(`the sentinels announce a master at port ${port}, which is no server of the set`)
    return master
  }

  /** Has the roles exchanged in good order; returns the new master when all sentinels announce it. */
  async failover(): Promise<RedisServer> {
    const old = await this.master()
    const [sentinel] = this.#sentinels
    // It is refused as long as the last failover is under way or the replica does not look well.
    await until(() => sentinel?.ask('FAILOVER', NAME), {
      what: 'a failover to be accepted',
      timeout: 15_000,
      every: 50,
    })
    return this.masterAfter(old)
  }

  /** Kills the master and returns it. `masterAfter` awaits the next one. */
  async killMaster(): Promise<RedisServer> {
    const master = await this.master()
    await master.kill()
    return master
  }

  /** Freezes the master and returns it: it still holds what it had when it is thawed. */
  async freezeMaster(): Promise<RedisServer> {
    const master = await this.master()
    await master.freeze()
    return master
  }

  /** The server that took over from this one, when all sentinels announce it and it takes writes. */
  async masterAfter(old: RedisServer): Promise<RedisServer> {
    const next = this.servers.find((server) => server !== old)
    if (!next) throw new Error('no other server')
    const announces = async (sentinel: SentinelNode) => (await sentinel.masterPort(NAME)) === next.port
    await until(async () => (await Promise.all(this.#sentinels.map(announces))).every(Boolean), {
      what: 'every sentinel to announce the new master',
      timeout: 20_000,
    })
    await until(async () => String(await next.call('INFO', 'replication')).includes('role:master'), {
      what: 'the new master to be one',
    })
    return next
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#sentinels, ...this.servers].map((each) => each[Symbol.asyncDispose]()))
  }

  async #settled(): Promise<void> {
    const isReady = async (sentinel: SentinelNode) => {
      const master = await sentinel.ask('MASTER', NAME)
      const replicas = await sentinel.ask('REPLICAS', NAME)
      const [replica] = Array.isArray(replicas) ? replicas : []
      return (
        fieldOf(master, 'num-other-sentinels') === String(SENTINELS - 1) &&
        fieldOf(replica, 'flags') === 'slave' &&
        fieldOf(replica, 'master-link-status') === 'ok'
      )
    }
    await until(async () => (await Promise.all(this.#sentinels.map(isReady))).every(Boolean), {
      what: 'the sentinels to know each other and the replica',
      timeout: 20_000,
      every: 20,
    })
  }
}

/** A field of a reply that lists names and values in turn. */
function fieldOf(reply: unknown, name: string): unknown {
  return Array.isArray(reply) ? reply[reply.indexOf(name) + 1] : undefined
}

/** Resolves when an old master replicates from the new one. */
export async function followsNewMaster(server: RedisServer): Promise<void> {
  const isReplica = async () => String(await server.call('INFO', 'replication')).includes('role:slave')
  await until(isReplica, { what: 'the old master to follow the new one', timeout: 15_000 })
}
