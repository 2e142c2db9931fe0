import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { before, test } from 'node:test'
import { promisify } from 'node:util'
import { bundleDashboard } from '../../scripts/dashboard/bundle.ts'
import { Cli, plainEnvironment } from '../support/cli.ts'
import { ROOT } from '../support/compiled-output.ts'
import { temporaryFolder } from '../support/lifeline.ts'
import { pack } from '../support/packed.ts'

const run = promisify(execFile)
const DEPENDENCIES = ['canonicalize', 'commander', 'ioredis', 'lru-cache', 'p-defer']
const PEERS = ['hono', '@hono/node-server', 'zod']

let tarball = ''
before(async () => {
  tarball = await pack()
})

/** A project that has the packed package, and beside it these packages and no others. */
async function projectWith(packages: readonly string[]): Promise<{ folder: string; command: string }> {
  const folder = await temporaryFolder()
  const home = join(folder, 'node_modules', 'soloflight')
  await mkdir(home, { recursive: true })
  await run('tar', ['-xzf', tarball, '-C', home, '--strip-components=1'])
  for (const name of packages) {
    const place = join(folder, 'node_modules', name)
    await mkdir(dirname(place), { recursive: true })
    await symlink(join(ROOT, 'node_modules', name), place)
  }
  // As npm installs a command.
  const { bin } = JSON.parse(await readFile(join(home, 'package.json'), 'utf8'))
  const command = join(folder, 'node_modules', '.bin', 'soloflight')
  await mkdir(dirname(command))
  await symlink(join(home, bin.soloflight), command)
  await chmod(command, 0o755)
  return { folder, command }
}

test('cli package - the command of the packed package serves', async () => {
  const { command } = await projectWith([...DEPENDENCIES, ...PEERS])
  await using cli = Cli.run(command, ['serve', '--port', '0'])
  await cli.says('soloflight serves')
  await cli.answers(200, '/readyz')
  cli.signal('SIGTERM')
  assert.equal(await cli.exits(), 0)
})

test('cli package - the dashboard is in the package, as ESM and CommonJS, and its bundle is that of the sources', async () => {
  const { command, folder } = await projectWith([...DEPENDENCIES, ...PEERS])
  await using cli = Cli.run(command, ['serve', '--port', '0'])
  await cli.says('soloflight serves')
  const page = await (await fetch(cli.url)).text()
  const files = [...page.matchAll(/"(assets\/[^"]+)"/g)].map(([, file]) => `/${file}`)
  assert.equal(files.length, 3)
  for (const file of files) assert.equal(await cli.status(file), 200, file)
  const bundled = (await bundleDashboard()).map(({ name }) => name)
  assert.deepEqual(files.map((file) => file.slice('/assets/'.length)).sort(), bundled.slice(0, -1).sort())
  const program = join(folder, 'page.cjs')
  const source = `require('soloflight/gateway').createGateway({ redis: null }).fetch(new Request('http://localhost/')).then((answer) => answer.text()).then((text) => process.stdout.write(text))`
  await writeFile(program, source)
  const { stdout } = await run(process.execPath, [program], { env: plainEnvironment() })
  assert.equal(stdout, page)
})

test('cli package - metrics say that they need prom-client, and are there with it', async () => {
  const { command } = await projectWith([...DEPENDENCIES, ...PEERS])
  await using without = Cli.run(command, ['serve', '--port', '0'])
  await without.says('soloflight serves')
  const refused = await fetch(`${without.url}/metrics`)
  const { error } = (await refused.json()) as { error: string }
  assert.deepEqual([refused.status, error], [501, 'metrics need prom-client'])
  await without.answers(200, '/readyz')
  const project = await projectWith([...DEPENDENCIES, ...PEERS, 'prom-client'])
  await using served = Cli.run(project.command, ['serve', '--port', '0'])
  await served.says('soloflight serves')
  await served.answers(200, '/metrics')
})

for (const missing of PEERS) {
  test(`cli package - without ${missing} the command says what to install`, async () => {
    const { command } = await projectWith([...DEPENDENCIES, ...PEERS.filter((name) => name !== missing)])
    await using cli = Cli.run(command, ['serve'])
    const line = await cli.complaint(2)
    assert.equal(line, '`soloflight serve` needs three more packages: npm install hono @hono/node-server zod')
    await using version = Cli.run(command, ['--version'])
    assert.equal(await version.exits(), 0)
  })
}

test('cli package - the package loads neither commander nor Hono', async () => {
  const { folder } = await projectWith(DEPENDENCIES.filter((name) => name !== 'commander'))
  const program = join(folder, 'program.mjs')
  const { exports } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
  const subpaths = Object.keys(exports).filter((path) => !/gateway|json/.test(path))
  const lines = subpaths.map((path) => `await import('soloflight${path.slice(1)}')`)
  await writeFile(program, [...lines, `console.log('loaded')`].join('\n'))
  const { stdout } = await run(process.execPath, [program], { env: plainEnvironment() })
  assert.equal(stdout, 'loaded\n')
})
