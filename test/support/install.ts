import { execFile } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

// Package lists may be absent (a fresh container) or stale, and both show only in a failed install. With
// RUNLEVEL=1 invoke-rc.d starts no service; systemd does not ask for the runlevel, so there it is stopped.
const INSTALL = `
command -v "$1" >/dev/null && exit 0
echo "soloflight tests: installing Debian's $1"
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
install() { apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "$1" >&2; }
install "$1" || { apt-get update -q >&2 && install "$1"; } || exit 1
if [ "$1" = redis-server ] && [ -d /run/systemd/system ]; then systemctl disable --now redis-server >&2; fi
exit 0`

/**
 * Installs a package of Debian that is named as its program, once for all processes that call this at the same time. The lock
 * is flock's: the kernel takes it back from an owner that died.
 */
export async function installProgram(name: 'redis-server' | 'chromium'): Promise<void> {
  const lock = join(tmpdir(), 'soloflight-install.lock')
  try {
    const { stdout } = await run('flock', [lock, 'sh', '-c', INSTALL, 'sh', name], { timeout: 300_000 })
    process.stdout.write(stdout)
  } catch (cause) {
    const words = String(cause instanceof Error && 'stderr' in cause ? cause.stderr : cause).trim()
    const last = words.slice(words.lastIndexOf('\n') + 1)
    throw new Error(`Install ${name} by hand: apt-get failed to (${last})`, { cause })
  }
}
