import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compiled } from './compiled.ts'
import { temporaryFolder } from './lifeline.ts'
import { Program } from './program.ts'
import { until } from './wait.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

/** Variables of the environment; undefined: not set. */
export type Environment = Record<string, string | undefined>

/** This environment without what would be settings of the command. */
export function plainEnvironment(more: Environment = {}): Environment {
  const isOurs = (name: string) => /^(SOLOFLIGHT_|DEBUG$|NODE_|\w+_proxy$)/i.test(name)
  const entries = Object.entries(process.env).filter(([name]) => !isOurs(name))
  return { ...Object.fromEntries(entries), ...more }
}

export interface Answer {
  status: number
  text: string
  connection: string | null
}

/** A command line of soloflight in a process of its own. Kill it, or let it end. */
export class Cli extends Program implements AsyncDisposable {
  /** The process. */
  readonly pid: number

  private constructor(child: ReturnType<typeof spawn>) {
    super(child)
    this.pid = child.pid ?? -1
  }

  static async start(args: readonly string[], env: Environment = {}): Promise<Cli> {
    return Cli.run(process.execPath, [await compiled(MAIN), ...args], env)
  }

  /** The same by another program, as the shell would. */
  static run(command: string, args: readonly string[], env: Environment = {}): Cli {
    const stdio = ['ignore', 'pipe', 'pipe'] as const
    return new Cli(spawn(command, args, { stdio: [...stdio], env: plainEnvironment(env) }))
  }

  /** `soloflight serve` on a free port, when it serves. */
  static async serve(args: readonly string[] = [], env: Environment = {}): Promise<Cli> {
    const cli = await Cli.start(['serve', '--port', '0', ...args], env)
    await cli.says('soloflight serves')
    return cli
  }

  /** Where it serves. */
  get url(): string {
    return (
      /serves (http:\S+),/.exec(this.output)?.[1] ??
      assert.fail(`it does not serve:\n${this.output}${this.errors}`)
    )
  }

  /** The status of an answer. */
  async status(path: string, init?: RequestInit): Promise<number> {
    const response = await fetch(`${this.url}${path}`, init)
    await response.text()
    return response.status
  }

  /** Resolves when it answers so. */
  async answers(status: number, path: string, timeout = 15_000): Promise<void> {
    const what = `${path} to answer ${status}`
    await until(async () => (await this.status(path)) === status, { what, timeout, every: 20 })
  }

  /** Posts a job and waits for its result. */
  async post(payload: unknown): Promise<Answer> {
    const response = await fetch(`${this.url}/q/jobs?wait=30`, {
      method: 'POST',
      body: JSON.stringify(payload),
    })
    const { status, headers } = response
    return { status, text: await response.text(), connection: headers.get('connection') }
  }

  /** The one line of its error, when it has ended with the code. */
  async complaint(code: number): Promise<string> {
    assert.equal(await this.exits(), code, this.output + this.errors)
    assert.match(this.errors, /^soloflight: [^\n]+\n$/)
    assert.equal(this.output, '')
    return this.errors.trim().replace(/^soloflight: /, '')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}

/** A file with this content, which only its owner may read. */
export async function fileOf(name: string, content: string | object): Promise<string> {
  const file = join(await temporaryFolder(), name)
  await writeFile(file, typeof content === 'string' ? content : JSON.stringify(content))
  await chmod(file, 0o600)
  return file
}
