import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { tie } from '../../support/lifeline.ts'
import { killed } from '../../support/signals.ts'
import { until } from '../../support/wait.ts'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))

/** A program that runs until it is disposed of, or ends by itself. */
export class Program implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>
  #output = ''
  #errors = ''

  constructor(args: readonly string[], env: Record<string, string> = {}) {
    this.#child = spawn(process.execPath, args, {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    tie(this.#child)
    this.#closed = once(this.#child, 'close')
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text
    })
  }

  /** What it wrote, once that fits `pattern` so many times; the last of them. */
  async wrote(pattern: RegExp, times = 1): Promise<RegExpMatchArray> {
    const matches = () => [...this.#output.matchAll(pattern)]
    await until(() => matches().length >= times || this.#child.exitCode !== null, {
      what: `${pattern} in what ${this.#child.spawnargs.join(' ')} writes`,
      timeout: 30_000,
    })
    const last = matches().at(-1)
    if (!last) throw new Error(`It ended before it wrote ${pattern}:\n${this.#errors}`)
    return last
  }

  /** All that it wrote, once it has ended well. */
  async output(): Promise<string> {
    await this.#closed
    if (this.#child.exitCode !== 0) throw new Error(`It ended by ${this.#child.exitCode}:\n${this.#errors}`)
    return this.#output
  }

  [Symbol.asyncDispose](): Promise<void> {
    return killed(this.#child, 'SIGKILL')
  }
}
