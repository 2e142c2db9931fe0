import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ROOT } from './compiled-output.ts'
import { tie } from './lifeline.ts'
import { PACKED } from './packed.ts'
import { killed } from './signals.ts'
import { until } from './wait.ts'

const run = promisify(execFile)
/** Beside the dependencies, which the built package must find. */
const FOLDER = join(ROOT, 'node_modules', '.cache')

/** How a program loads the package. */
export type ModuleSystem = 'CommonJS' | 'ESM'

/** The built package, and programs that use it as a user's do: by plain Node, without a loader. */
export class Programs implements AsyncDisposable {
  readonly #folder: string
  readonly #running = new Set<Program>()
  #written = 0

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Builds the package, unless the environment names one that is packed. */
  static async build(): Promise<Programs> {
    await mkdir(FOLDER, { recursive: true })
    const folder = await mkdtemp(join(FOLDER, 'programs-'))
    const packed = process.env[PACKED]
    if (packed !== undefined) await run('tar', ['-xzf', packed, '-C', folder, '--strip-components=1'])
    else {
      await cp(join(ROOT, 'package.json'), join(folder, 'package.json'))
      const tsc = join(ROOT, 'node_modules', '.bin', 'tsc')
      await run(tsc, ['-p', join(ROOT, 'tsconfig.build.json'), '--outDir', join(folder, 'dist')])
    }
    return new Programs(folder)
  }

  /** Starts a program, in whose text the names that it needs of the package are defined. */
  async start(system: ModuleSystem, names: string, text: string): Promise<Program> {
    const file = join(this.#folder, `${this.#written++}.${system === 'ESM' ? 'mjs' : 'cjs'}`)
    const load =
      system === 'ESM'
        ? `import { ${names} } from './dist/index.js'`
        : `const { ${names} } = require('./dist/index.js')`
    await writeFile(file, `${load}\n${text}\n`)
    const program = new Program(spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'] }))
    this.#running.add(program)
    return program
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#running].map((program) => program.kill()))
    await rm(this.#folder, { recursive: true, force: true })
  }
}

/** A program that runs. */
export class Program {
  readonly #process: ChildProcess
  readonly #exited: Promise<unknown[]>
  /** What it has written. */
  output = ''
  errors = ''

  constructor(child: ChildProcess) {
    this.#process = child
    tie(child)
    child.stdout?.on('data', (chunk) => {
      this.output += chunk
    })
    child.stderr?.on('data', (chunk) => {
      this.errors += chunk
    })
    this.#exited = once(child, 'close')
  }

  /** Resolves when it has written this to its output. */
  async says(text: string): Promise<void> {
    const fact = () => this.output.includes(text) || this.#process.exitCode !== null
    await until(fact, { what: `the program to write ${text}`, timeout: 20_000 })
    if (!this.output.includes(text))
      throw new Error(`It ended before it wrote ${text}:\n${this.output}${this.errors}`)
  }

  /** Whether it runs. */
  get runs(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** Reads no more of what it writes. */
  closeOutput(): void {
    this.#process.stdout?.destroy()
    this.#process.stderr?.destroy()
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  /** Its exit code; fails unless it ends by itself in time. */
  async exits(timeout = 20_000): Promise<number | null> {
    await until(() => !this.runs, { what: `the program to end\n${this.output}${this.errors}`, timeout })
    const [code] = await this.#exited
    return code as number | null
  }

  async kill(): Promise<void> {
    if (this.runs) await killed(this.#process, 'SIGKILL')
  }
}
