import { execFile } from 'node:child_process'
import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { delimiter, isAbsolute, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { installProgram } from './install.ts'

const run = promisify(execFile)

let found: Promise<string> | undefined

/**
 * The path of a Redis server: what `REDIS_SERVER` names, or `redis-server` or `valkey-server` on the PATH. On
 * Debian and Ubuntu, where there is none and root asks, it is installed, unless `SOLOFLIGHT_NO_INSTALL` is set.
 */
export function findRedisServer(): Promise<string> {
  found ??= find()
  return found
}

const majors = new Map<string, Promise<number>>()

/** The first number of the server's version: Redis 7.0.15 and Valkey 7.2.5 are both 7. */
export function majorVersion(binary: string): Promise<number> {
  const major = majors.get(binary) ?? readMajor(binary)
  majors.set(binary, major)
  return major
}

async function readMajor(binary: string): Promise<number> {
  const { stdout } = await run(binary, ['--version'])
  const major = /\bv=(\d+)\./.exec(stdout)?.[1]
  if (major === undefined) throw new Error(`Expected a version from ${binary}, got: ${stdout.trim()}`)
  return Number(major)
}

async function find(): Promise<string> {
  const named = process.env['REDIS_SERVER']
  if (named) {
    const path = onPath(named)
    if (path) return path
    throw new Error(`REDIS_SERVER names ${named}, which is not a program that can be run`)
  }
  const path = onPath('redis-server') ?? onPath('valkey-server')
  if (path) return path
  if (mayInstall()) {
    await installProgram('redis-server')
    const installed = onPath('redis-server')
    if (installed) return installed
  }
  throw new Error(
    'No Redis server: install redis-server or valkey-server (Debian: apt-get install redis-server, macOS: brew install redis), or let REDIS_SERVER name one',
  )
}

/** The path of a program, if it is on the PATH. */
export function onPath(name: string): string | undefined {
  const folders = name.includes('/') ? [''] : (process.env['PATH'] ?? '').split(delimiter)
  return folders
    .map((folder) => (isAbsolute(name) ? name : resolve(join(folder, name))))
    .find((path) => isProgram(path))
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** Whether tests may install what they need: on Debian and Ubuntu, as root. */
export function mayInstall(): boolean {
  if (process.env['SOLOFLIGHT_NO_INSTALL'] || process.getuid?.() !== 0 || !onPath('apt-get')) return false
  try {
    return /^ID(_LIKE)?=.*\b(debian|ubuntu)\b/m.test(readFileSync('/etc/os-release', 'utf8'))
  } catch {
    return false
  }
}
