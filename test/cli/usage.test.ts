import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { flagOf, NAMES, SETTINGS, variableOf } from '../../src/cli/settings.ts'
import { Cli, fileOf } from '../support/cli.ts'

const SECRET = 'hunter2'

test('cli usage - the help names every flag, its variable and its default', async () => {
  await using cli = await Cli.start(['serve', '--help'])
  assert.equal(await cli.exits(), 0)
  assert.equal(cli.errors, '')
  const help = cli.output.replace(/\s+/g, ' ')
  for (const name of [...NAMES, 'config']) {
    const described = new RegExp(`${flagOf(name)} <[^>]+> [^<]*env: ${variableOf(name)}\\)`)
    assert.match(help, described)
  }
  assert.match(help, /default: 5000,.*default: 127\.0\.0\.1,.*default: 0s,.*default: 5s,/)
})

test('cli usage - the help ends quietly when nobody reads it', async () => {
  await using cli = await Cli.start(['serve', '--help'])
  cli.closeOutput()
  assert.equal(await cli.exits(), 0)
})

test('cli usage - the guide has a row for every setting', async () => {
  const guide = await readFile(new URL('../../docs/guides/command-line.md', import.meta.url), 'utf8')
  for (const name of NAMES) {
    const { value, fallback = '' } = SETTINGS[name]
    const row = `| \`${flagOf(name)} ${value}\` | \`${variableOf(name)}\` | \`${name}\` | ${fallback}`
    assert.ok(guide.includes(row), row)
  }
})

test('cli usage - the version is that of the package', async () => {
  const manifest = await readFile(new URL('../../package.json', import.meta.url), 'utf8')
  await using cli = await Cli.start(['--version'])
  assert.equal(await cli.exits(), 0)
  assert.equal(cli.output.trim(), JSON.parse(manifest).version)
})

for (const [args, expected] of [
  [[], /^Expected a command: soloflight serve/],
  [['sevre'], /^unknown command 'sevre' \(Did you mean serve\?\)$/],
  [['serve', '--prot', '80'], /^unknown option '--prot' \(Did you mean --port\?\)$/],
  [['serve', '--port'], /^option '--port <NUMBER>' argument missing$/],
  [['serve', 'redis://localhost'], /^too many arguments for 'serve'/],
  [['serve', '--port', '80x'], /^Expected --port to be a whole number from 0 to 65535, got `80x`$/],
  [['serve', '--config', '/no/such.json'], /^The file `\/no\/such\.json` cannot be read: ENOENT$/],
  [['serve', '--prefix', 'a b{'], /^Expected `prefix` to be/],
  // What may be a secret is not shown, wherever it was put.
  [['serve', `--tokne=read=${SECRET}`], /^unknown option '--tokne'/],
  [['serve', '--token', SECRET], /^Expected --token to be \[NAME:\]SCOPES=TOKEN/],
  [['serve', '--token', 'read', SECRET], /^too many arguments/],
  [['serve', '--redis', `redis://:${SECRET}@[`], /^Expected `redis` to be/],
  [['serve', '--redis', `http://a:${SECRET}@b/?password=${SECRET}`], /^Expected `redis` to be/],
  [[`redis://a:${SECRET}@b`], /^unknown command/],
] as const) {
  test(`cli usage - soloflight ${args.join(' ')} is refused in one line`, async () => {
    await using cli = await Cli.start(args)
    const line = await cli.complaint(2)
    assert.match(line, expected)
    assert.doesNotMatch(line, new RegExp(SECRET))
  })
}

test('cli usage - an unknown key of the configuration is named', async () => {
  await using cli = await Cli.start(['serve', '--config', await fileOf('config.json', { tokens: [SECRET] })])
  assert.match(await cli.complaint(2), /^Unknown option `tokens` in `\S+`; .*did you mean `token`\?$/)
})

test('cli usage - DEBUG adds the stack, without credentials', async () => {
  await using cli = await Cli.start(['serve', '--redis', `http://a:${SECRET}@b`], { DEBUG: '1' })
  assert.equal(await cli.exits(), 2)
  assert.match(cli.errors, /^soloflight: Expected `redis`.*\nUsageError: .*\n {4}at /)
  assert.doesNotMatch(cli.errors, new RegExp(SECRET))
})

for (const host of ['0.0.0.0', '::', '192.0.2.1', 'jobs.example', '127.1', 'localhost.example']) {
  test(`cli usage - ${host} is refused without a token, in one sentence that says what to do`, async () => {
    await using cli = await Cli.start(['serve', '--host', host])
    const line = await cli.complaint(2)
    assert.match(
      line,
      /^Anyone who reaches .* give a token by --token-file or --token, or listen on --host 127/,
    )
    assert.ok(line.includes(host))
  })
}
