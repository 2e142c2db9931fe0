/**
 * The demonstration. Many callers ask for one expensive report at the same moment; it is computed once.
 *
 *   npm start                      callers in this process, nothing else needed
 *   npm start -- some/folder       the same over files of yours
 *   npm start -- --redis <url>     several processes on Redis, one of which is killed; REDIS_URL does the same
 *   npm start -- --help            says so
 */
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { SoloflightError } from '../src/index.ts'
import { findFiles } from './demo/folder.ts'
import { inOneProcess } from './demo/one-process.ts'
import { inSeveralProcesses } from './demo/several-processes.ts'
import { endWithReader, plain } from './demo/show.ts'
import { reasonOf, Stop } from './demo/stop.ts'

const USAGE = 'usage: npm start -- [folder] [--redis redis://host:6379 | /path/to/redis.sock] [--help]'

interface Options {
  folder: string
  redis: string | undefined
  help: boolean
}

function options(): Options {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { redis: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    })
    const { REDIS_URL } = process.env
    const redis = values.redis ?? redisOfNpm(positionals) ?? (REDIS_URL || undefined)
    if (positionals.length > 1) throw new Stop(`expected one folder, got ${positionals.length}`)
    const [folder = relative('', fileURLToPath(new URL('../src', import.meta.url))) || '.'] = positionals
    return { folder, redis, help: values.help ?? false }
  } catch (error) {
    throw new Stop(`${reasonOf(error).replace(/\. .*/, '')}; ${USAGE}`)
  }
}

/**
 * The value of a `--redis` that stood before the `--`: npm takes the option for one of its own, hands on
 * `--redis=value` in the environment, and leaves the value of `--redis value` among the arguments.
 */
function redisOfNpm(positionals: string[]): string | undefined {
  const { npm_config_redis: value } = process.env
  if (value !== 'true') return value || undefined
  const index = positionals.findIndex((argument) => /^rediss?:|\.sock$/.test(argument))
  if (index < 0) throw new Stop('expected --redis behind --')
  return positionals.splice(index, 1)[0]
}

endWithReader()
try {
  const { folder, redis, help } = options()
  if (help) {
    console.log(USAGE)
    process.exit()
  }
  const found = await findFiles(folder).catch((error) => {
    throw Stop.because(`the folder ${folder} cannot be read`, error)
  })
  if (found.files.length === 0) {
    throw new Stop(
      `the folder ${folder} has no file to report on (hidden, empty and large ones do not count)`,
    )
  }
  await (redis === undefined ? inOneProcess(folder, found) : inSeveralProcesses(folder, found, redis))
} catch (error) {
  // What was to be expected takes one line; anything else is a bug and shows where it is.
  const expected = error instanceof Stop || error instanceof SoloflightError
  console.error(expected ? `soloflight demo: ${plain(error.message)}` : error)
  process.exitCode = 1
}
