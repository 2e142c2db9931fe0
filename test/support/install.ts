import { execFile } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

// Package lists may be absent (a fresh container) or stale, and both show only in a failed install. With
// RUNLEVEL=1 invoke-rc.d starts no service; systemd does not ask for the runlevel, so there it is stopped.
const INSTALL = `
command -v redis-server >/dev/null && exit 0
echo "soloflight tests: installing Debian's redis-server"
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
install() { apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 redis-server >&2; }
install || { apt-get update -q >&2 && install; } || exit 1
if [ -d /run/systemd/system ]; then systemctl disable --now redis-server >&2; fi
exit 0`

/**
 * Installs Debian's redis-server, once for all processes that call this at the same time. The lock is flock's:
 * the kernel takes it back from an owner that died.
 */
export async function installRedisServer(): Promise<void> {
  const lock = join(tmpdir(), 'soloflight-install.lock')
  try {
    const { stdout } = await run('flock', [lock, 'sh', '-c', INSTALL], { timeout: 300_000 })
    process.stdout.write(stdout)
  } catch (cause) {
    const words = String(cause instanceof Error && 'stderr' in cause ? cause.stderr : cause).trim()
    const last = words.slice(words.lastIndexOf('\n') + 1)
    throw new Error(`Install redis-server by hand: apt-get failed to (${last})`, { cause })
  }
}
