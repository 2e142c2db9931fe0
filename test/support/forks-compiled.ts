// Loaded before a compiled program, and before those that it forks: of a TypeScript file, the compiled one is forked.

import childProcess from 'node:child_process'
import { existsSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { COMPILED, outputOf } from './compiled-output.ts'

const { fork } = childProcess

childProcess.fork = ((file: string, ...rest: []) => {
  const output = outputOf(file, process.env[COMPILED] ?? '')
  return fork(existsSync(output) ? output : file, ...rest)
}) as typeof fork
syncBuiltinESMExports()
