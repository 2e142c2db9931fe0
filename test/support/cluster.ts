import { Cluster, type ClusterOptions } from 'ioredis'
import { LOCALHOST } from './ports.ts'
import { portOf, RedisServer } from './redis-server.ts'
import { until } from './wait.ts'

const SLOTS = 16_384

export interface RedisClusterOptions {
  /** @default 3 */
  masters?: number
  /** Replicas of each master. @default 0 */
  replicas?: number
}

export type ClusterClientOptions = Omit<ClusterOptions, 'redisOptions'> & {
  redisOptions?: Omit<NonNullable<ClusterOptions['redisOptions']>, 'replyMapping'>
}

/** A real cluster of servers on 127.0.0.1. */
export class RedisCluster implements AsyncDisposable {
  /** The masters in the order of their slots, then the replicas. */
  readonly nodes: readonly RedisServer[]
  readonly #masters: number
  readonly #clients = new Set<Cluster>()

  private constructor(nodes: readonly RedisServer[], masters: number) {
    this.nodes = nodes
    this.#masters = masters
  }

  /** Starts the nodes and returns when every one of them calls the cluster complete. */
  static async start({ masters = 3, replicas = 0 }: RedisClusterOptions = {}): Promise<RedisCluster> {
    const args = [
      '--cluster-enabled',
      'yes',
      '--cluster-node-timeout',
      '1500',
      '--repl-diskless-sync-delay',
      '0',
    ]
    const nodes = Array.from({ length: masters * (1 + replicas) }, () =>
      RedisServer.start({ port: 'free', args }),
    )
    const cluster = new RedisCluster(await allOrNone(nodes), masters)
    try {
      await cluster.#form()
      return cluster
    } catch (error) {
      await cluster[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Where an ioredis Cluster finds it. */
  get startupNodes(): { host: string; port: number }[] {
    return this.nodes.map((node) => ({ host: LOCALHOST, port: portOf(node) }))
  }

  /** A connected client, closed with the cluster. */
  async client(options: ClusterClientOptions = {}): Promise<Cluster> {
    const client = new Cluster(this.startupNodes, { ...options, lazyConnect: true })
    client.on('error', () => {})
    this.#clients.add(client)
    await client.connect()
    return client
  }

  async slotOf(key: string): Promise<number> {
    return Number(await this.#first.call('CLUSTER', 'KEYSLOT', key))
  }

  /** The node that serves the slot, as the first node that runs knows it. */
  async ownerOf(slot: number): Promise<RedisServer> {
    return this.#ownerSeenBy(this.#first, slot)
  }

  /** Moves a slot with its keys; `onMigrating` runs when the migration has begun and no key has moved yet. */
  async migrateSlot(
    slot: number,
    to: RedisServer,
    { onMigrating }: { onMigrating?: () => unknown } = {},
  ): Promise<void> {
    const from = await this.ownerOf(slot)
    await this.beginMigration(slot, from, to)
    await onMigrating?.()
    await this.moveKeys(slot, from, to)
    await this.endMigration(slot, from, to)
  }

  /** From here on `from` answers ASK for keys that it does not have, and `to` serves them to who says ASKING. */
  async beginMigration(slot: number, from: RedisServer, to: RedisServer): Promise<void> {
    await to.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', await idOf(from))
    await from.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', await idOf(to))
  }

  /** Moves the keys that the slot has now. */
  async moveKeys(slot: number, from: RedisServer, to: RedisServer): Promise<void> {
    for (;;) {
      const keys = await from.call('CLUSTER', 'GETKEYSINSLOT', slot, 100)
      if (!Array.isArray(keys) || keys.length === 0) return
      await from.call('MIGRATE', LOCALHOST, portOf(to), '', 0, 5000, 'KEYS', ...keys.map(String))
    }
  }

  /** Gives the slot to `to` and returns when every node knows it: from here on `from` answers MOVED. */
  async endMigration(slot: number, from: RedisServer, to: RedisServer): Promise<void> {
    const id = await idOf(to)
    for (const node of [to, from]) await node.call('CLUSTER', 'SETSLOT', slot, 'NODE', id)
    const knows = async (node: RedisServer) => (await this.#ownerSeenBy(node, slot)) === to
    await until(async () => (await Promise.all(this.#running.map(knows))).every(Boolean), {
      what: `every node to know the new owner of slot ${slot}`,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.disconnect()
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()))
  }

  get #running(): readonly RedisServer[] {
    return this.nodes.filter((node) => node.isRunning)
  }

  get #first(): RedisServer {
    const [node] = this.#running
    if (!node) throw new Error('no node of the cluster runs')
    return node
  }

  async #ownerSeenBy(node: RedisServer, slot: number): Promise<RedisServer> {
    const ranges: unknown = await node.call('CLUSTER', 'SLOTS')
    if (!Array.isArray(ranges)) throw new Error('Expected CLUSTER SLOTS to answer a list')
    const range = ranges.find(([first, last]) => first <= slot && slot <= last)
    const owner = this.nodes.find(({ port }) => port === range?.[2][1])
    if (!owner) throw new Error(`nobody serves slot ${slot}`)
    return owner
  }

  async #form(): Promise<void> {
    const masters = this.nodes.slice(0, this.#masters)
    await Promise.all(
      masters.map(async (node, index) => {
        const first = Math.ceil((index * SLOTS) / masters.length)
        const end = Math.ceil(((index + 1) * SLOTS) / masters.length)
        // Epochs that differ from the start spare the nodes the resolution of a conflict.
        await node.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
        await node.call(
          'CLUSTER',
          'ADDSLOTS',
          ...Array.from({ length: end - first }, (_, offset) => first + offset),
        )
      }),
    )
    for (const node of this.nodes.slice(1)) await node.call('CLUSTER', 'MEET', LOCALHOST, portOf(this.#first))
    await this.#everyNode('know all the others', (info) =>
      info.includes(`cluster_known_nodes:${this.nodes.length}\r`),
    )
    await Promise.all(
      this.nodes
        .slice(masters.length)
        .map((replica, index) => this.#follow(replica, masters[index % masters.length])),
    )
    await this.#everyNode('call the cluster complete', (info) => info.includes('cluster_state:ok'))
  }

  /** Makes a replica of the node and returns when it is in step. */
  async #follow(replica: RedisServer, master: RedisServer | undefined): Promise<void> {
    if (!master) return
    const id = await idOf(master)
    // Knowing a node by its address comes before knowing it by its id.
    await until(async () => (await replica.call('CLUSTER', 'REPLICATE', id)) === 'OK', {
      what: 'a replica to follow',
    })
    await until(
      async () => String(await replica.call('INFO', 'replication')).includes('master_link_status:up'),
      {
        what: 'a replica to be in step',
        timeout: 10_000,
      },
    )
  }

  #everyNode(what: string, holds: (info: string) => boolean): Promise<boolean> {
    const ask = async (node: RedisServer) => holds(String(await node.call('CLUSTER', 'INFO')))
    return until(async () => (await Promise.all(this.nodes.map(ask))).every(Boolean), {
      what: `every node to ${what}`,
      timeout: 15_000,
      every: 20,
    })
  }
}

async function idOf(node: RedisServer): Promise<string> {
  return String(await node.call('CLUSTER', 'MYID'))
}

/** All servers, or none of them running and the first error. */
async function allOrNone(starting: readonly Promise<RedisServer>[]): Promise<RedisServer[]> {
  const results = await Promise.allSettled(starting)
  const servers = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
  const failure = results.find((result) => result.status === 'rejected')
  if (!failure) return servers
  await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()))
  throw failure.reason
}
