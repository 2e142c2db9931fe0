import { FenceWatermark, ServerClock } from '../../../src/kernel/redis/server.ts'
import type { WorkerNotice } from '../../../src/queue/store/model/queue-state.ts'
import type {
  Assignment,
  AttemptOutcome,
  AttemptRef,
  Delivery,
  DueJob,
  JobNotice,
  JobState,
  NoticeListener,
  OutcomeQuery,
  Post,
  PostReply,
  QueueStore,
  StallPolicy,
  Submission,
  SubmissionListener,
  SubmitReply,
  TakenAttempt,
  TakeRequest,
  Termination,
  WorkerListener,
  WorkerRef,
} from '../../../src/queue/store/store.ts'
import { TakingWorker } from '../../../src/queue/taking/taking-worker.ts'
import { Link } from '../link.ts'
import type { SimProcess } from '../process.ts'
import { Subscription } from '../subscription.ts'
import type { QueuePort } from './port.ts'
import { short } from './recorder.ts'
import type { QueuePeer } from './server.ts'
import type { QueueWorld } from './world.ts'

/** A removed worker waits so long for deliveries that are on their way, ms. */
const CATCH_UP = 500

/** A request at the server. `isRepeated`: it was sent before. */
type Run<T, Prepared = unknown> = (isRepeated: boolean, prepared: Prepared) => Promise<T>

/** The store as one process sees it: over a connection for commands and a subscription. Both can fail. */
export class QueueEndpoint implements QueueStore, QueuePeer {
  readonly link: Link
  readonly subscription: Subscription
  readonly acceptWithin: number
  readonly hasWatchers = false
  /** The last awaited submission of this process for each job. */
  readonly latest: Map<string, Submission> = new Map()
  /** The last submission of this process. Reset by the driver. */
  submitted: Submission | undefined
  readonly #sim: SimProcess
  readonly #world: QueueWorld
  readonly #port: QueuePort
  readonly #serverClock: ServerClock
  readonly #fenceWatermark: FenceWatermark
  readonly #waiters = new Map<string, NoticeListener>()
  readonly #workers = new Map<string, WorkerListener>()
  /** Workers that take jobs, by nonce. */
  readonly #working = new Set<string>()
  readonly #removals = new Map<string, () => void>()
  readonly #listeners = new Set<{ up(): void; down(): void }>()

  constructor(sim: SimProcess, world: QueueWorld, port: QueuePort) {
    this.#sim = sim
    this.#world = world
    this.#port = port
    this.acceptWithin = Math.min(2000, world.plan.lease / 2)
    this.#serverClock = new ServerClock(sim.clock)
    this.#fenceWatermark = new FenceWatermark(this.#serverClock)
    this.link = new Link(sim, world, (line) => world.history.say(line))
    this.subscription = new Subscription(sim, world, this.#listeners)
    world.server.join(port.inbox, this)
    this.subscription.connect(world.random.exponential(world.plan.latency))
  }

  get highestFence(): number {
    return this.#fenceWatermark.highest
  }

  get process(): number {
    return this.#sim.id
  }

  async hasWorker(): Promise<boolean> {
    return true
  }

  get subscribed(): boolean {
    return this.subscription.subscribed
  }

  /** Number of waits and workers that listen. */
  get listening(): number {
    return this.#waiters.size + this.#workers.size
  }

  isTakers(worker: string): boolean {
    const { inbox } = this.#port
    return worker.startsWith(inbox) && this.#workers.get(worker.slice(inbox.length)) instanceof TakingWorker
  }

  #call<T>(
    name: string,
    run: Run<T>,
    within: number,
    late?: (reply: T) => void,
    prepare?: () => unknown,
  ): Promise<T> {
    const { server } = this.#world
    const execute: Run<T> = (isRepeated, prepared) => server.act(this, () => run(isRepeated, prepared))
    return this.link.call(`p${this.process} ${name}`, execute, within, late, prepare)
  }

  /** A call whose reply contains the server's time. */
  async #timed<T, Prepared>(
    name: string,
    run: Run<T, Prepared>,
    within: number,
    prepare?: () => Prepared,
  ): Promise<T> {
    const { server } = this.#world
    const sentAt = this.#sim.clock.now()
    const execute = async (isRepeated: boolean, prepared: unknown) => ({
      at: server.now,
      reply: await run(isRepeated, prepared as Prepared),
    })
    const updateClock = ({ at }: { at: number }) => this.#serverClock.update(at, sentAt)
    const answer = await this.#call(name, execute, within, updateClock, prepare)
    updateClock(answer)
    return answer.reply
  }

  submit(submission: Submission, within: number, listener: SubmissionListener): void {
    this.submitted = submission
    if (submission.awaited) {
      this.latest.set(submission.id, submission)
      this.registerWaiter(submission.nonce, listener)
    }
    const answered = (reply: SubmitReply) => {
      try {
        listener.onReply(reply)
      } catch (error) {
        this.#world.history.violate('L1', `the reply to a submission is refused: ${String(error)}`)
      }
    }
    this.#call('submit', () => this.#port.submit(submission), within, answered).then(answered, (error) =>
      listener.onError(error),
    )
  }

  submitAll(post: Post, within: number): Promise<PostReply> {
    return this.#call('submitAll', () => this.#port.submitAll(post, within), within)
  }

  unregister(nonce: string): void {
    this.#waiters.delete(nonce)
    this.#workers.delete(nonce)
  }

  registerWaiter(nonce: string, listener: NoticeListener): void {
    this.#waiters.set(nonce, listener)
  }

  queryOutcome(query: OutcomeQuery, within: number): ReturnType<QueueStore['queryOutcome']> {
    return this.#call('queryOutcome', () => this.#port.queryOutcome(query, within), within)
  }

  unpark(nonce: string, termination: Termination, within: number): Promise<void> {
    return this.#call('unpark', () => this.#port.unpark(nonce, termination, within), within)
  }

  setCapacity(
    worker: WorkerRef,
    slots: () => number,
    listener: WorkerListener,
    within: number,
    former?: number,
  ): Promise<Assignment> {
    this.#workers.set(worker.nonce, listener)
    this.#working.add(worker.nonce)
    const run: Run<Assignment, number> = (_isRepeated, count) => this.#port.setCapacity(worker, count, former)
    return this.#timed(`capacity ${worker.command}`, run, within, slots)
  }

  async take(request: TakeRequest, within: number): Promise<TakenAttempt | 'due' | undefined> {
    const run = (isRepeated: boolean) => this.#port.take(request, isRepeated)
    const attempt = await this.#timed(`take ${request.command}`, run, within)
    if (typeof attempt === 'object') this.#fenceWatermark.observe(attempt.fence)
    return attempt
  }

  findTaken(request: TakeRequest, age: number, within: number): Promise<AttemptRef | undefined> {
    return this.#call('findTaken', () => this.#port.findTaken(request, age, within), within)
  }

  async removeWorker(worker: WorkerRef, within: number): Promise<void> {
    const { nonce } = worker
    this.#working.delete(nonce)
    const lastMessage = this.#lastMessage(nonce)
    const run = async () => {
      await this.#port.removeWorker(worker, within)
      this.subscription.send(() => this.#removals.get(nonce)?.(), true)
    }
    await this.#call('removeWorker', run, within)
    await lastMessage
  }

  /** Resolves when the deliveries that were on their way to a removed worker have arrived. */
  async #lastMessage(nonce: string): Promise<void> {
    if (!this.subscribed) return
    await new Promise<void>((resolve) => {
      this.#removals.set(nonce, resolve)
      this.#sim.clock.after(CATCH_UP, resolve)
    })
    this.#removals.delete(nonce)
  }

  renew(
    attempt: AttemptRef,
    lease: number,
    within: number,
    holder?: WorkerRef,
  ): ReturnType<QueueStore['renew']> {
    const run = () => this.#port.renew(attempt, lease, within, holder)
    return this.#timed(`renew ${short(attempt.id)}`, run, within)
  }

  finish(ending: AttemptOutcome, within: number): ReturnType<QueueStore['finish']> {
    const run = () => this.#port.finish(ending, within)
    return this.#timed(`finish ${short(ending.id)} ${ending.kind}`, run, within)
  }

  publishProgress(attempt: AttemptRef, bytes: Buffer, within: number): Promise<void> {
    return this.#call('publishProgress', () => this.#port.publishProgress(attempt, bytes, within), within)
  }

  appendLog(...args: Parameters<QueueStore['appendLog']>): Promise<void> {
    return this.#call('appendLog', () => this.#port.appendLog(...args), args[args.length - 1] as number)
  }

  readLog(id: string, within: number): Promise<string[]> {
    return this.#call('readLog', () => this.#port.readLog(id, within), within)
  }

  findDue(within: number): ReturnType<QueueStore['findDue']> {
    return this.#call('findDue', () => this.#port.findDue(within), within)
  }

  processDue(jobs: DueJob[], terms: StallPolicy, within: number): ReturnType<QueueStore['processDue']> {
    return this.#call('processDue', () => this.#port.processDue(jobs, terms, within), within)
  }

  snapshot(id: string, within: number): ReturnType<QueueStore['snapshot']> {
    return this.#call('snapshot', () => this.#port.snapshot(id, within), within)
  }

  readPayload(...args: Parameters<QueueStore['readPayload']>): ReturnType<QueueStore['readPayload']> {
    return this.#call('readPayload', () => this.#port.readPayload(...args), args[args.length - 1] as number)
  }

  drain(...args: Parameters<QueueStore['drain']>): Promise<number> {
    return this.#call('drain', () => this.#port.drain(...args), args[args.length - 1] as number)
  }

  list(state: JobState, from: number, limit: number, within: number): Promise<string[]> {
    return this.#call('list', () => this.#port.list(state, from, limit, within), within)
  }

  counts(within: number): ReturnType<QueueStore['counts']> {
    return this.#call('counts', () => this.#port.counts(within), within)
  }

  load(within: number): ReturnType<QueueStore['load']> {
    return this.#call('load', () => this.#port.load(within), within)
  }

  totals(within: number): ReturnType<QueueStore['totals']> {
    return this.#call('totals', () => this.#port.totals(within), within)
  }

  countFailure(within: number): Promise<void> {
    return this.#call('countFailure', () => this.#port.countFailure(within), within)
  }

  resetTotals(within: number): Promise<void> {
    return this.#call('resetTotals', () => this.#port.resetTotals(within), within)
  }

  /** The register is not simulated. */
  async joinRegister(): Promise<void> {}
  async leaveRegister(): Promise<void> {}

  commands(within: number): Promise<string[]> {
    return this.#call('commands', () => this.#port.commands(within), within)
  }

  terminate(termination: Termination, within: number): Promise<boolean> {
    const run = () => this.#port.terminate(termination, within)
    return this.#call(`terminate ${termination.kind}`, run, within)
  }

  retry(...args: Parameters<QueueStore['retry']>): ReturnType<QueueStore['retry']> {
    return this.#call('retry', () => this.#port.retry(...args), args[args.length - 1] as number)
  }

  pause(command: string, within: number): Promise<void> {
    return this.#call(`pause ${command}`, () => this.#port.pause(command, within), within)
  }

  resume(command: string, within: number): Promise<void> {
    return this.#call(`resume ${command}`, () => this.#port.resume(command, within), within)
  }

  pausedCommands(within: number): Promise<string[]> {
    return this.#call('pausedCommands', () => this.#port.pausedCommands(within), within)
  }

  publishEvent(): void {}
  async watchEvents(): Promise<() => void> {
    return () => {}
  }

  listen(listener: { up(): void; down(): void }): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    this.#world.server.leave(this.#port.inbox)
    this.link.close()
    this.subscription.close()
    this.#listeners.clear()
  }

  deliver(nonce: string, deliveries: Delivery[], now: number): boolean {
    const until = now + this.acceptWithin
    return this.subscription.send(() => {
      for (const delivery of deliveries) {
        this.#fenceWatermark.observe(delivery.fence)
        const left = delivery.leaseLeft === 0 ? 0 : this.#serverClock.remaining(until)
        this.#world.history.say(
          () => `p${this.process} hears of ${short(delivery.id)}, ${left.toFixed(1)} left`,
        )
        this.#workers.get(nonce)?.onDelivery({ ...delivery, leaseLeft: left })
      }
    }, true)
  }

  notifyWaiter(nonce: string, notice: JobNotice): void {
    const isLarge = notice.kind === 'outcome' && this.#world.random.chance(this.#world.plan.large)
    const message: JobNotice = isLarge ? { kind: 'outcomeReady' } : notice
    this.subscription.send(() => this.#waiters.get(nonce)?.onNotice(message), true)
  }

  notifyWorker(nonce: string, notice: WorkerNotice): void {
    this.subscription.send(() => {
      const worker = this.#workers.get(nonce)
      if (notice.kind === 'cancelled') worker?.onCancelled(notice.id, notice.fence)
      else if (notice.kind === 'due') worker?.onDue(notice.ms)
      else worker?.onCapacityRequested()
    }, true)
  }

  broadcastWork(): void {
    this.subscription.send(() => {
      for (const nonce of this.#working) this.#workers.get(nonce)?.onCapacityRequested()
    }, true)
  }
}
