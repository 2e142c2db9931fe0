import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp } from 'node:fs/promises'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// A process's own exit hooks do not run when it is killed, so a shell holds the list of what it started:
// the shell's standard input ends with this process, however it ends, and then everything listed goes.
const REAPER = `
pids=
while read -r verb what; do
  case $verb in
    hold) pids="$pids $what" ;;
    free) kept=; for p in $pids; do [ "$p" = "$what" ] || kept="$kept $p"; done; pids=$kept ;;
    folder) set -- "$@" "$what" ;;
  esac
done
[ -z "$pids" ] || kill -9 $pids 2>/dev/null
rm -rf -- "$@"`

let reaper: ChildProcess | undefined

/** Ties the life of a child process to that of this one, until the child has exited. */
export function tie(child: ChildProcess): void {
  const { pid } = child
  if (pid === undefined) return
  tell(`hold ${pid}`)
  child.once('exit', () => tell(`free ${pid}`))
}

/** A folder of its own with a short name, as the path of a unix socket has 107 bytes; it ends with this process. */
export async function temporaryFolder(parent = tmpdir()): Promise<string> {
  const folder = await mkdtemp(join(parent, 'sf-'))
  tell(`folder ${folder}`)
  return folder
}

function tell(line: string): void {
  reaper ??= startReaper()
  reaper.stdin?.write(`${line}\n`)
}

function startReaper(): ChildProcess {
  // In a session of its own: the signal of a Ctrl-C reaches this process's group and must not reach the reaper.
  const child = spawn('sh', ['-c', REAPER], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
  child.unref()
  if (child.stdin instanceof Socket) child.stdin.unref()
  return child
}
