import { readFile } from 'node:fs/promises'
import { Command, CommanderError, Option } from 'commander'
import { report, UsageError } from './failure.ts'
import { serve } from './serve.ts'
import {
  flagOf,
  type Given,
  type GivenSettings,
  NAMES,
  resolveSettings,
  SETTINGS,
  variableOf,
} from './settings.ts'
import type { Row } from './values.ts'

/** Runs the command line. Resolves to the exit code, and never rejects. */
export async function run(args: readonly string[]): Promise<number> {
  try {
    await programOf(await versionOf()).parseAsync(args, { from: 'user' })
    return 0
  } catch (error) {
    if (!(error instanceof CommanderError)) return report(error)
    return error.exitCode === 0 ? 0 : report(usageError(error))
  }
}

function programOf(version: string): Command {
  const program = new Command('soloflight')
    .description('Locks, queues and services on Redis.')
    .version(version)
    .exitOverride()
    // `report` writes the errors, without what may be a secret.
    .configureOutput({ writeErr: () => {} })
  const serving = program
    .command('serve')
    .description('Serves queues, locks, services and the bus over HTTP, and the dashboard.')
    .addOption(
      optionOf('config', { value: 'FILE', description: 'a JSON file of settings, named in camelCase' }),
    )
    .action(() => runServe(serving))
  for (const name of NAMES) serving.addOption(optionOf(name, SETTINGS[name]))
  serving.addHelpText(
    'after',
    '\nA flag wins over the environment, the environment over the file, the file over the default.',
  )
  return program
}

type OptionRow = Pick<Row<unknown>, 'value' | 'description' | 'fallback' | 'isList'>

function optionOf(name: string, { value, description, fallback, isList }: OptionRow): Option {
  const option = new Option(`${flagOf(name)} <${value}>`, description).env(variableOf(name))
  if (fallback !== undefined) option.default(fallback, fallback)
  return isList ? option.argParser((text, before: string[] = []) => [...before, text]) : option
}

async function runServe(command: Command): Promise<void> {
  const given = [...NAMES, 'config'].flatMap((name) => {
    const source = command.getOptionValueSource(name)
    if (source !== 'cli' && source !== 'env') return []
    const texts = [command.getOptionValue(name)].flat() as string[]
    return [[name, { texts, source: source === 'cli' ? flagOf(name) : variableOf(name) }] as const]
  })
  const { config, ...settings }: GivenSettings & { config?: Given } = Object.fromEntries(given)
  await serve(await resolveSettings(settings, config?.texts[0]))
}

/** An error of commander as ours. The value of an unknown flag may be a secret. */
function usageError({ code, message }: CommanderError): UsageError {
  if (code === 'commander.help')
    return new UsageError('Expected a command: soloflight serve, or soloflight --help')
  const text = message.replace(/^error: /, '')
  const start = text.indexOf('=')
  const end = text.indexOf("'", start)
  return new UsageError(start < 0 || end < 0 ? text : text.slice(0, start) + text.slice(end))
}

async function versionOf(): Promise<string> {
  const manifest = await readFile(new URL('../../package.json', import.meta.url), 'utf8')
  return String((JSON.parse(manifest) as { version: unknown }).version)
}
