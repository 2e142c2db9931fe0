import { type ChildProcess, fork } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { fileURLToPath } from 'node:url'
import pDefer, { type DeferredPromise } from 'p-defer'
import { compiled } from './compiled.ts'
import { tie } from './lifeline.ts'
import type { Handlers, PlainError, Reply, Request } from './process-protocol.ts'
import { frozen, killed } from './signals.ts'
import { until } from './wait.ts'

/** Milliseconds in which a child serves or is killed. */
const START_TIMEOUT = 20_000

export interface ChildOptions {
  args?: readonly string[]
  /** Added to this process's own. */
  env?: Record<string, string>
}

/** A TypeScript file in a process of its own, which serves calls and emits events. */
export class Child<H extends Handlers = Handlers> implements AsyncDisposable {
  /** Settles when the process is gone, with its exit code or the signal that ended it. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  readonly #process: ChildProcess
  readonly #calls = new Map<number, { name: string; call: DeferredPromise<unknown> }>()
  // By name behind a colon, as an EventEmitter throws at an `error` that nobody listens to.
  readonly #emitter = new EventEmitter()
  // Events that no `next` has taken yet, by name.
  readonly #inbox = new Map<string, unknown[]>()
  readonly #ready = pDefer<void>()
  #output = ''
  // How it ended, once nothing more comes from it.
  #ending: string | undefined
  #lastId = 0

  private constructor(child: ChildProcess) {
    this.#process = child
    child.on('message', (reply: Reply) => this.#receive(reply))
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => this.#hear(chunk))
    const disconnected = once(child, 'disconnect')
    this.exited = once(child, 'exit').then(([code, signal]) => ({ code, signal }))
    // Replies that it sent before it went may still be on their way when it is gone.
    Promise.all([this.exited, disconnected]).then(([{ code, signal }]) =>
      this.#giveUp(signal ?? `code ${code}`),
    )
  }

  /** Starts the file, compiled, and returns when it serves. `H` is the type of the handlers it serves. */
  static async fork<H extends Handlers = Handlers>(
    file: URL | string,
    { args = [], env = {} }: ChildOptions = {},
  ): Promise<Child<H>> {
    const program = await compiled(typeof file === 'string' ? file : fileURLToPath(file))
    const process_ = fork(program, args, {
      execArgv: ['--enable-source-maps'],
      serialization: 'advanced',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, ...env },
    })
    tie(process_)
    const child = new Child<H>(process_)
    const tooLong = setTimeout(() => process_.kill('SIGKILL'), START_TIMEOUT)
    try {
      await child.#ready.promise
    } finally {
      clearTimeout(tooLong)
    }
    return child
  }

  get pid(): number {
    return this.#process.pid ?? -1
  }

  /** What it wrote so far. */
  get output(): string {
    return this.#output
  }

  /** Calls a handler. What it throws arrives as an Error with its name, message and code. */
  call<K extends keyof H & string>(name: K, ...args: Parameters<H[K]>): Promise<Awaited<ReturnType<H[K]>>> {
    this.#lastId += 1
    const call = pDefer<unknown>()
    if (this.#ending) call.reject(this.#gone(`"${name}" was called`))
    else this.#calls.set(this.#lastId, { name, call })
    const request: Request = { id: this.#lastId, name, args }
    // A failed send is followed by the end of the child, which rejects the call.
    this.#process.send(request, () => {})
    return call.promise as Promise<Awaited<ReturnType<H[K]>>>
  }

  on(event: string, listener: (data: unknown) => void): void {
    this.#emitter.on(`:${event}`, listener)
  }

  /** The earliest event of this name that no `next` has returned yet; if need be, one that is still to come. */
  async next<T>(event: string, predicate: (data: T) => boolean = () => true, timeout = 10_000): Promise<T> {
    const take = () => {
      const events = (this.#inbox.get(event) ?? []) as T[]
      const index = events.findIndex(predicate)
      if (index !== -1) return { taken: events.splice(index, 1) as [T] }
      return this.#ending && { taken: undefined }
    }
    const { taken } = await until(take, { what: `the event "${event}" of child ${this.pid}`, timeout })
    if (!taken) throw this.#gone(`it emitted "${event}"`)
    return taken[0]
  }

  freeze(): Promise<void> {
    return frozen(this.#process)
  }

  thaw(): void {
    this.#process.kill('SIGCONT')
  }

  /** Sends a signal that ends it and returns when it is gone. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    return killed(this.#process, signal)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }

  #receive(reply: Reply): void {
    if ('ready' in reply) this.#ready.resolve()
    else if ('event' in reply) {
      const events = this.#inbox.get(reply.event) ?? []
      events.push(reply.data)
      this.#inbox.set(reply.event, events)
      this.#emitter.emit(`:${reply.event}`, reply.data)
    } else {
      const pending = this.#calls.get(reply.id)
      this.#calls.delete(reply.id)
      if ('error' in reply) pending?.call.reject(revived(reply.error))
      else pending?.call.resolve(reply.value)
    }
  }

  #hear(chunk: Buffer): void {
    this.#output += chunk.toString()
  }

  #giveUp(ending: string): void {
    this.#ending = ending
    this.#ready.reject(this.#gone('it served'))
    for (const { name, call } of this.#calls.values()) {
      // A test that kills a child leaves its calls behind and need not catch each of them.
      call.promise.catch(() => {})
      call.reject(this.#gone(`it answered "${name}"`))
    }
    this.#calls.clear()
  }

  #gone(before: string): Error {
    return new Error(`child ${this.pid} ended (${this.#ending}) before ${before}\n${this.#output}`.trimEnd())
  }
}

function revived({ name, message, stack, code }: PlainError): Error {
  const error = new Error(message)
  return Object.assign(error, { name, stack: stack ?? error.stack }, code === undefined ? {} : { code })
}
