import { hostname } from 'node:os'
import pDefer from 'p-defer'
import { ClosedError } from '../errors.ts'
import { assertTransition, type Transitions } from '../kernel/collections.ts'
import { callHook, reportHookError } from '../kernel/hooks.ts'
import { newId } from '../kernel/keys.ts'
import { AsyncContext, type Clock, rootContext, systemClock, type Timer } from '../kernel/time.ts'
import type { JobContext } from './context.ts'
import { Gateways } from './gateways.ts'
import { HeldJob, type JobEnd } from './held-job.ts'
import {
  checkGrace,
  type FailFunction,
  type HttpWorkerOptions,
  type ResolvedOptions,
  resolveOptions,
  type WorkFunction,
} from './options.ts'
import { Poller } from './poller.ts'
import { listenToSignals } from './signals.ts'
import { type HandedJob, queuePath, type TakeReply, takeJob } from './take.ts'
import type { Ask } from './turns.ts'
import { WorkerLog } from './worker-log.ts'

/** Counters of a worker since its construction, and its load now. */
export interface HttpWorkerStats {
  /** Jobs that run. */
  running: number
  /** Requests that wait for a job. */
  asking: number
  completed: number
  /** Attempts that failed, those of dead jobs included. */
  failed: number
  /** Jobs that failed without a further attempt. */
  dead: number
  /** Jobs that were given back. */
  returned: number
  /** Jobs that were cancelled, or given to another worker. */
  lost: number
}

/** How often the worker tells that it is there, ms. A gateway forgets one that is silent for a minute. */
const REGISTER_INTERVAL = 25_000

/** User code: of the options, or of the class. */
interface Functions<Job, Result> {
  readonly work: WorkFunction<Job, Result>
  readonly fail: FailFunction<Job>
  readonly idle: () => unknown
}

/**
 * | state | start | stop |
 * | --- | --- | --- |
 * | new | running | stopped |
 * | running | | stopping: no more jobs. Those that run have `grace` ms, then they are given back |
 * | stopping, until no job runs | | a shorter grace counts |
 * | stopped | | |
 */
type State = 'new' | 'running' | 'stopping' | 'stopped'

const TRANSITIONS: Transitions<State> = {
  new: ['running', 'stopped'],
  running: ['stopping'],
  stopping: ['stopped'],
  stopped: [],
}

/**
 * Takes jobs of an HTTP gateway under leases, runs them, and tells the gateway how they ended. Needs no Redis.
 *
 * The number of attempts is that of the job. A job may run twice if this process dies or is paused, or reaches no gateway for as
 * long as a lease: `context.signal` aborts then.
 *
 * @example
 * const worker = new HttpWorker({ url: 'http://127.0.0.1:5000', queues: 'mails', work: (mail) => send(mail) })
 * await worker.start()
 * @example
 * class Mailer extends HttpWorker<Mail> {
 *   override work(mail: Mail) { return send(mail) }
 *   override fail(mail: Mail, reason: unknown) { console.error(mail, reason) }
 * }
 */
export class HttpWorker<Job = unknown, Result = unknown> implements AsyncDisposable {
  /** Name of the worker, which it sends with every request. */
  readonly id: string
  readonly #options: ResolvedOptions
  readonly #functions: Functions<Job, Result>
  readonly #gateways: Gateways
  readonly #poller: Poller
  readonly #log: WorkerLog
  readonly #clock: Clock = systemClock
  /** User code runs in it. */
  readonly #context = new AsyncContext()
  readonly #held = new Set<HeldJob>()
  readonly #stopped = pDefer<void>()
  /** Resolves when user code is not waited for any more. */
  readonly #graceEnded = pDefer<void>()
  readonly #counters = { completed: 0, failed: 0, dead: 0, returned: 0, lost: 0 }
  #state: State = 'new'
  /** Whether a gateway has the worker in its list. */
  #isRegistered = false
  #registerTimer: Timer | undefined
  #stopListening: () => void = () => {}
  /** Gives the running jobs back when it fires. */
  #endOfGrace: { at: number; cancel(): void } | undefined

  /** @throws TypeError if an option is invalid, or there is no `work`. */
  constructor(options: HttpWorkerOptions<Job, Result>) {
    const { token, workerId, logger, fetch } = options ?? {}
    this.#options = resolveOptions(options as HttpWorkerOptions)
    this.#functions = this.#functionsOf(options)
    this.id = workerId ?? defaultId(this.constructor.name)
    const {
      urls,
      queueNames: queues,
      timeout,
      maxJob: maxBody,
      order,
      concurrency,
      wait,
      interval,
    } = this.#options
    const log = new WorkerLog(logger, this.#options.level, this.id)
    this.#log = log
    this.#gateways = new Gateways({
      ...{ urls, token, workerId: this.id, timeout, maxBody },
      fetch: fetch ?? ((...args) => globalThis.fetch(...args)),
      onAway: (url, reason) => log.away(url, reason),
      onBack: (url) => {
        log.back(url)
        // It may have forgotten its workers.
        if (this.#state === 'running') void this.#register('POST')
      },
    })
    this.#poller = new Poller({ queues, order, concurrency, wait, interval }, () => this.#gateways.pause, {
      take: (ask, signal) => this.#take(ask, signal),
      run: (job) => this.#run(job),
      giveBack: (job) => this.#giveBack(job),
      onIdle: () => this.#callIdle(),
    })
  }

  /** Runs a job: a subclass has it as a method, unless the option `work` is given. */
  work?(job: Job, context: JobContext): Result | Promise<Result>

  /** Called when a job has failed without a further attempt: a subclass may have it as a method. */
  fail?(job: Job, reason: unknown, context: JobContext): unknown

  /** Called when no job has come for `interval` ms, and none runs: a subclass may have it as a method. */
  idle?(): unknown

  /** The functions of the options, else the methods of the class. @throws TypeError */
  #functionsOf({ work, fail, idle }: HttpWorkerOptions<Job, Result>): Functions<Job, Result> {
    if (!work && typeof this.work !== 'function')
      throw new TypeError('Expected `work` to be a function, among the options or as a method of the class')
    return {
      work: work ?? ((job, context) => this.work?.(job, context) as Result),
      fail: fail ?? ((...args) => this.fail?.(...args)),
      idle: idle ?? (() => this.idle?.()),
    }
  }

  /** Its counters, and its present load. */
  stats(): HttpWorkerStats {
    return { ...this.#poller.load, ...this.#counters }
  }

  #enter(state: State): void {
    assertTransition('worker', TRANSITIONS, this.#state, state)
    this.#state = state
  }

  /**
   * Begins to take jobs, and resolves. It waits for gateways that are away. A refusal, as for a wrong token, is in its log and a
   * process warning, `SOLOFLIGHT_GATEWAY_REFUSED`; the worker tries again.
   * @throws ClosedError if it was started or stopped before.
   */
  async start(): Promise<void> {
    if (this.#state !== 'new') throw new ClosedError('The worker was started before, or has been stopped')
    const { queueNames, urls, stopOn, grace } = this.#options
    this.#enter('running')
    this.#log.started(queueNames, urls)
    let signals = 0
    this.#stopListening = listenToSignals(stopOn, () => {
      void this.stop({ grace: signals++ === 0 ? grace : 0 })
    })
    // The requests go on after the call. They must not keep the stores of its caller.
    rootContext.run(() => {
      this.#keepRegistered()
      this.#poller.start()
    })
  }

  /** Starts, and resolves when the worker has stopped: by `stop`, or by a signal of `stopOn`. @throws as `start` */
  async run(): Promise<void> {
    await this.start()
    await this.#stopped.promise
  }

  /**
   * Takes no more jobs, and waits for the running ones, at most `grace` ms (by default the option). Then their signals abort, and
   * the jobs go back at once, uncounted. Resolves when the gateway knows, within `timeout` ms more. Never rejects, except for a
   * wrong `grace`. May be called again, with a shorter grace.
   * @throws TypeError
   */
  async stop({ grace = this.#options.grace }: { grace?: number | undefined } = {}): Promise<void> {
    checkGrace(grace)
    if (this.#state === 'running') {
      this.#enter('stopping')
      this.#log.stopping(grace)
      void rootContext.run(() => this.#end())
    } else if (this.#state === 'new') {
      this.#enter('stopped')
      this.#stopped.resolve()
    }
    if (this.#state === 'stopping') this.#limitGrace(grace)
    await this.#stopped.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  #limitGrace(grace: number): void {
    const at = this.#clock.now() + grace
    if (this.#endOfGrace && this.#endOfGrace.at <= at) return
    this.#endOfGrace?.cancel()
    const timer = this.#clock.after(grace, () => {
      this.#graceEnded.resolve()
      for (const held of this.#held) held.giveBack(this.#options.timeout)
    })
    this.#endOfGrace = { at, cancel: () => timer.cancel() }
  }

  async #end(): Promise<void> {
    // A job in an answer that is aborted stays held until its lease ends. A queue that has jobs answers at once.
    await this.#poller.stop(this.#options.interval)
    this.#endOfGrace?.cancel()
    this.#registerTimer?.cancel()
    if (this.#isRegistered) await this.#register('DELETE')
    this.#stopListening()
    this.#enter('stopped')
    this.#log.stopped()
    this.#stopped.resolve()
  }

  async #take(ask: Ask, signal: AbortSignal): Promise<TakeReply> {
    const reply = await takeJob(this.#gateways, ask, this.#options, signal)
    if (reply.kind === 'unanswered' && reply.refusal !== undefined)
      this.#log.refused(ask.queue, reply.refusal)
    return reply
  }

  async #giveBack(job: HandedJob): Promise<void> {
    const held = new HeldJob(job, this.#gateways, this.#options.lease)
    held.giveBack(this.#options.timeout)
    await this.#runHeld(held, () => {})
  }

  async #run(job: HandedJob): Promise<void> {
    const { work } = this.#functions
    const held = new HeldJob(job, this.#gateways, this.#options.lease)
    this.#held.add(held)
    this.#log.begun(job)
    const end = await this.#runHeld(held, (payload, context) =>
      this.#context.run(() => work(payload as Job, context)),
    )
    this.#held.delete(held)
    if (end.kind === 'failed' && end.isDead) await this.#onDead(held, end)
  }

  /** Runs the work of a job, and logs and counts how it ended. */
  async #runHeld(held: HeldJob, work: Parameters<HeldJob['run']>[0]): Promise<JobEnd> {
    const startedAt = this.#clock.now()
    const end = await held.run(work)
    this.#log.ended(held, end, this.#clock.now() - startedAt)
    this.#counters[end.kind]++
    return end
  }

  async #onDead({ handed, context }: HeldJob, { reason }: JobEnd & { kind: 'failed' }): Promise<void> {
    this.#counters.dead++
    const { fail } = this.#functions
    // A job that was too large to be read.
    if (handed.text === undefined) return
    try {
      const job = JSON.parse(handed.text) as Job
      const failing = this.#context.run(async () => fail(job, reason, context))
      await Promise.race([failing, this.#graceEnded.promise])
    } catch (error) {
      reportHookError('fail', error)
    }
  }

  #callIdle(): void {
    callHook(this.#context, 'idle', this.#functions.idle)
  }

  /** While all slots are busy, nothing else tells a gateway that the worker serves its other queues. */
  #keepRegistered(): void {
    void this.#register('POST')
    this.#registerTimer = this.#clock.after(REGISTER_INTERVAL, () => this.#keepRegistered(), true)
  }

  /** Tells a gateway that the worker is there, or no more: for its list of workers. Gateways need not have one. */
  async #register(method: 'POST' | 'DELETE'): Promise<void> {
    const tell = async (queue: string) => {
      const { status } = await this.#gateways.request({ method, path: queuePath(queue, 'w'), isAside: true })
      if (status === 201) this.#isRegistered = true
    }
    await Promise.allSettled(this.#options.queueNames.map(tell))
  }
}

/** presque's form, with the host, and a random part: a process may have several workers. */
function defaultId(className: string): string {
  const name = `${className}_${hostname()}_${process.pid}`.replace(/[^\x21-\x7e]/g, '').slice(0, 100)
  return `${name}_${newId().slice(0, 6)}`
}
