// Many services in one process: what is announced, asked and sent grows with them, and not with their square.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import pDefer from 'p-defer'
import { Connection } from '../../src/kernel/redis/connection.ts'
import { Inbox } from '../../src/kernel/redis/subscription.ts'
import { Services } from '../../src/services/index.ts'
import { parseQuery } from '../../src/services/messages.ts'
import { type Setup, setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

const LEASE = 60_000

/** A process that serves many services, and one that calls them; what the first is asked. */
class Scene implements AsyncDisposable {
  readonly t: Setup
  readonly server: Services
  readonly caller: Services
  readonly gate = pDefer<void>()
  /** The ids of the calls that the server was asked about. */
  readonly asked: string[] = []
  readonly #connection: Connection
  running = 0

  private constructor(t: Setup) {
    this.t = t
    this.#connection = new Connection(t.redis)
    this.server = new Services({ redis: this.#connection, lease: LEASE })
    this.caller = new Services({ redis: t.redis, lease: LEASE })
  }

  static async start(names: readonly string[]): Promise<Scene> {
    const scene = new Scene(await setup())
    const { server, caller, gate } = scene
    await scene.#listen()
    await caller.ping(caller.id)
    for (const service of await Promise.all(names.map((name) => server.register(name)))) {
      service.on('hold', async () => {
        scene.running++
        await gate.promise
        return service.name
      })
    }
    return scene
  }

  async #listen(): Promise<void> {
    const client = await this.t.client()
    const inbox = new Inbox()
    inbox.listen(this.server.id.slice(22), {
      hint: (message) => {
        if (message.kind === 'q') for (const { id } of parseQuery(message)?.calls ?? []) this.asked.push(id)
      },
    })
    client.on('messageBuffer', (_channel: Buffer, message: Buffer) => inbox.deliver(message))
    await client.subscribe(this.#connection.inboxChannel)
  }

  /** Calls each of the services. Returns when all calls run. */
  async hold(names: readonly string[]): Promise<{ results: Promise<unknown[]> }> {
    const calls = names.map((name) => this.caller.require(name).emit('hold'))
    await until(() => this.running === names.length, { what: 'the calls' })
    return { results: Promise.all(calls) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gate.resolve()
    await Promise.all([this.caller.close({ grace: 0 }), this.server.close({ grace: 0 })])
    await this.#connection.close()
    await this.t[Symbol.asyncDispose]()
  }
}

const namesOf = (count: number) => Array.from({ length: count }, (_, n) => `service ${n}`)

test('many services - a process that closes is asked about each open call once, not once for each of its services', async () => {
  const names = namesOf(700)
  await using scene = await Scene.start(names)
  const { results } = await scene.hold(names)
  let down = 0
  scene.caller.on('down', () => down++)
  const closing = scene.server.close({ grace: 60_000 })
  await until(() => down === names.length, { what: 'all to be announced', timeout: 10_000 })
  await until(() => new Set(scene.asked).size === names.length, { what: 'all to be asked' })
  scene.gate.resolve()
  assert.deepEqual(await results, names)
  await closing
  // While a question has no answer, all are asked again four times a second: on a busy machine there are several rounds.
  assert.ok(scene.asked.length < names.length ** 2 / 10, `${scene.asked.length} questions`)
})

test('many services - nobody asks about a service without open calls', async () => {
  const names = namesOf(50)
  await using scene = await Scene.start(names)
  const { results } = await scene.hold(names.slice(0, 1))
  let down = 0
  scene.caller.on('down', () => down++)
  await Promise.all(names.slice(1).map((name) => scene.server.unregister(name)))
  await until(() => down === names.length - 1, { what: 'all to be announced' })
  const closing = scene.server.close()
  await until(() => scene.asked.length > 0, { what: 'the question about the first' })
  assert.equal(new Set(scene.asked).size, 1)
  assert.ok(scene.asked.length < names.length / 2, `${scene.asked.length} questions`)
  scene.gate.resolve()
  assert.deepEqual(await results, ['service 0'])
  await closing
})
