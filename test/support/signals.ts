import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { until } from './wait.ts'

export function hasExited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

/** Sends the signal and returns when the process is gone; a process that is gone already is left alone. */
export async function killed(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (hasExited(child) || child.pid === undefined) return
  child.ref()
  const exit = once(child, 'exit')
  child.kill(signal)
  // A stopped process receives nothing but SIGKILL until it continues.
  if (signal !== 'SIGKILL') child.kill('SIGCONT')
  await exit
}

/** Stops the process and returns when the kernel says that it stands still (where it tells: on Linux). */
export async function frozen(child: ChildProcess): Promise<void> {
  child.kill('SIGSTOP')
  const status = `/proc/${child.pid}/status`
  if (!existsSync(status)) return
  await until(() => /^State:\s+T/m.test(readFileSync(status, 'utf8')), {
    what: `process ${child.pid} to stop`,
    every: 1,
  })
}
