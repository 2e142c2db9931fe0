import { type Logger, type LogLevel, type LogWriter, logWriter } from '../kernel/logging.ts'
import { warnOnce } from '../kernel/telemetry.ts'
import type { HeldJob, JobEnd } from './held-job.ts'
import type { HandedJob } from './take.ts'

/** What a worker writes to its log. What needs a person is a process warning too, once. */
export class WorkerLog {
  readonly #write: LogWriter
  readonly #worker: string

  constructor(logger: Logger | undefined, level: LogLevel, worker: string) {
    this.#write = logger ? logWriter(logger, level, 'The logger of a worker') : () => {}
    this.#worker = worker
  }

  started(queues: readonly string[], urls: readonly string[]): void {
    this.#write('info', 'the worker takes jobs', { worker: this.#worker, queues, urls })
  }

  stopping(grace: number): void {
    this.#write('info', 'the worker stops', { worker: this.#worker, grace })
  }

  stopped(): void {
    this.#write('info', 'the worker has stopped', { worker: this.#worker })
  }

  away(url: string, reason: string): void {
    this.#write('warn', 'a gateway does not serve', { worker: this.#worker, url, reason })
  }

  back(url: string): void {
    this.#write('info', 'a gateway serves again', { worker: this.#worker, url })
  }

  refused(queue: string, refusal: string): void {
    const text = 'a gateway gives no jobs of a queue'
    this.#write('error', text, { worker: this.#worker, queue, refusal })
    warnOnce('SOLOFLIGHT_GATEWAY_REFUSED', `A worker gets no jobs: ${queue}: ${refusal}`)
  }

  begun(job: HandedJob): void {
    this.#write('info', 'a job begins', this.#of(job))
  }

  ended({ handed }: HeldJob, end: JobEnd, ms: number): void {
    const fields = { ...this.#of(handed), ms: Math.round(ms) }
    if (end.kind === 'completed') this.#write('info', 'a job is done', fields)
    else if (end.kind === 'returned') this.#write('info', 'a job was given back', fields)
    else if (end.kind === 'lost') this.#write('warn', 'a job was lost', { ...fields, error: end.reason })
    else if (end.isDead) this.#write('error', 'a job has failed', { ...fields, error: end.reason })
    else this.#write('warn', 'an attempt of a job has failed', { ...fields, error: end.reason })
  }

  #of({ queue, id, attempt }: HandedJob): { worker: string; queue: string; id: string; attempt: number } {
    return { worker: this.#worker, queue, id, attempt }
  }
}
