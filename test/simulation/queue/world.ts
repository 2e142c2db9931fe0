import type { QueueOptions } from '../../../src/queue/options.ts'
import { RedisQueue } from '../../../src/queue/queue.ts'
import { InMemoryQueueClient } from '../../../src/queue/store/in-memory-client.ts'
import { MemoryQueueStore } from '../../../src/queue/store/memory-store.ts'
import type { QueueStore } from '../../../src/queue/store/store.ts'
import { SimProcess } from '../process.ts'
import type { Scheduler } from '../scheduler.ts'
import { type SimActor, SimWorld } from '../world.ts'
import { QueueEndpoint } from './endpoint.ts'
import { handlerOf } from './handlers.ts'
import { QueueHistory } from './history.ts'
import type { QueueMutation } from './mutation.ts'
import { type QueuePlan, queuePlanOf } from './plan.ts'
import { portOf } from './port.ts'
import { PostDriver, withPostChecks } from './posts.ts'
import { QueueRecorder } from './recorder.ts'
import { QueueServer } from './server.ts'

/** The memory store of one process: with the clock of the process, and an endpoint that can fail. */
class ProcessStore extends MemoryQueueStore {
  readonly #store: QueueStore

  constructor(process: SimProcess, store: QueueStore) {
    super({ clock: process.clock })
    this.#store = store
  }

  override connect(): QueueStore {
    return this.#store
  }
}

/** A process with its queue. */
export interface QueueActor extends SimActor {
  endpoint: QueueEndpoint
  queue: RedisQueue
  /** The commands that it processes, with their concurrency. */
  concurrency: Map<string, number>
  /** Number of running handlers, by command. */
  running: Map<string, number>
}

/** All objects of a run. */
export class QueueWorld extends SimWorld<QueueActor> {
  readonly plan: QueuePlan
  readonly server: QueueServer
  readonly history: QueueHistory
  readonly recorder: QueueRecorder
  readonly posts: PostDriver
  /** Kills a process. */
  kill: (actor: QueueActor) => void = () => {}
  /** Resolves when the handlers of a burst may end. */
  burst: Promise<void> = Promise.resolve()
  readonly #mutation: QueueMutation | undefined

  constructor(seed: number, scheduler: Scheduler, traced: boolean, mutation?: QueueMutation) {
    super(seed, scheduler)
    this.plan = queuePlanOf(this.random)
    this.history = new QueueHistory(() => scheduler.now, traced)
    this.server = new QueueServer(scheduler)
    this.recorder = new QueueRecorder(this.history, this.server, this.plan.commands)
    this.posts = new PostDriver(this, seed)
    this.plan.mix.post = this.posts.share()
    this.#mutation = mutation
    mutation?.plan?.(this.plan)
    if (mutation?.context) this.server.alterContext = mutation.context
  }

  /** Starts another process. */
  spawn(): QueueActor {
    const { random, plan, scheduler, server, recorder } = this
    const process = new SimProcess(this.actors.length, scheduler)
    const port = portOf(new InMemoryQueueClient(server))
    const changed = this.#mutation?.server?.(port, server) ?? port
    const checked = withPostChecks(recorder.wrap(changed, process.id), this.history, server)
    const endpoint = new QueueEndpoint(process, this, checked)
    const store = this.#mutation?.client?.(endpoint) ?? endpoint
    const options = this.#options()
    const queue = new RedisQueue('queue', { ...options, store: new ProcessStore(process, store) })
    const actor: QueueActor = {
      ...{ process, endpoint, queue, closing: false },
      ...{ concurrency: new Map(), running: new Map() },
    }
    this.actors.push(actor)
    this.history.say(() => `p${process.id} starts ${JSON.stringify(options)}`)
    // The first process has a worker for every command.
    const producer = process.id > 0 && random.chance(0.2)
    if (plan.takersOnly && !this.healed) return actor
    for (const command of producer ? [] : plan.commands) this.#work(actor, command)
    return actor
  }

  #work(actor: QueueActor, command: string): void {
    const concurrency = this.random.pick([1, 1, 2, 4])
    actor.concurrency.set(command, concurrency)
    actor.running.set(command, 0)
    actor.queue.process(command, handlerOf(this, actor, command), { concurrency })
  }

  #options(): QueueOptions {
    const { random, plan } = this
    const failed = plan.retained > 0 && { count: 5, age: plan.retained }
    return {
      lease: plan.lease,
      ttl: random.pick(plan.ttls),
      errorTtl: random.chance(0.7) ? 0 : random.pick(plan.ttls),
      unavailableAfter: plan.unavailableAfter,
      maxStalls: plan.maxStalls,
      maxHold: plan.maxHold,
      retain: { failed, completed: failed },
      backoff: random.chance(0.7) ? 0 : plan.lease / 4,
    }
  }
}
