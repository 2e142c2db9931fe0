import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tie } from './lifeline.ts'
import { frozen, hasExited, killed } from './signals.ts'
import { until } from './wait.ts'

export type Address = { readonly path: string } | { readonly host: string; readonly port: number }

export interface DaemonOptions {
  binary: string
  args: readonly string[]
  /** Where it answers once it is ready. */
  address: Address
  /** The file it logs to, quoted where it fails to start. */
  log: string
}

/** One process of a Redis server or sentinel, which dies with the test process. */
export class Daemon implements AsyncDisposable {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Starts the program and returns when it answers commands. */
  static async start({ binary, args, address, log }: DaemonOptions): Promise<Daemon> {
    const child = spawn(binary, args, { stdio: 'ignore' })
    let spawnError: Error | undefined
    child.once('error', (error) => {
      spawnError = error
    })
    tie(child)
    child.unref()
    const daemon = new Daemon(child)
    try {
      await until(() => spawnError !== undefined || daemon.hasExited || answers(address), {
        what: `${binary} to answer`,
        timeout: 15_000,
      })
      if (spawnError) throw spawnError
      if (daemon.hasExited) throw new Error(`${binary} exited at its start: ${lastWords(log)}`)
    } catch (error) {
      await daemon.kill('SIGKILL')
      throw error
    }
    return daemon
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the process has not started')
    return this.#child.pid
  }

  get hasExited(): boolean {
    return hasExited(this.#child)
  }

  freeze(): Promise<void> {
    return frozen(this.#child)
  }

  thaw(): void {
    this.#child.kill('SIGCONT')
  }

  kill(signal: NodeJS.Signals): Promise<void> {
    return killed(this.#child, signal)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill('SIGKILL')
  }
}

/** Whether a server that has loaded its data listens there; one that asks for a password is ready too. */
function answers(address: Address): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(address)
    socket.once('connect', () => socket.write('PING\r\n'))
    socket.once('data', (reply) => {
      resolve(!reply.toString().startsWith('-LOADING'))
      socket.destroy()
    })
    socket.once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}

function lastWords(log: string): string {
  try {
    return readFileSync(log, 'utf8').trim().split('\n').slice(-5).join('\n')
  } catch {
    return `it wrote no ${log}`
  }
}
