// The workers of the examples, in each language, as processes beside a gateway.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Cli } from '../support/cli.ts'
import { compiled } from '../support/compiled.ts'
import { HttpRelay } from '../support/http-relay.ts'
import { temporaryFolder } from '../support/lifeline.ts'
import { ROOT } from '../support/packed.ts'
import { until } from '../support/wait.ts'

const example = (file: string) => join(ROOT, 'examples', file)

/** Each worker of the examples: the command that runs it for a gateway, and what it says of a job that is no number. */
const WORKERS: Record<string, { command: (url: string) => Promise<string[]>; refusal: RegExp }> = {
  curl: {
    command: async (url) => ['sh', example('worker.sh'), `${url}/q/squares`],
    refusal: /not a whole number/,
  },
  Python: {
    command: async (url) => ['python3', example('worker.py'), `${url}/q/squares`],
    refusal: /can't multiply sequence/,
  },
  TypeScript: {
    command: async (url) => [process.execPath, await compiled(example('http-worker.ts')), url, 'squares'],
    refusal: /not a number/,
  },
}

/** Fails, rather than skips, where a program is missing: an untried example is none. */
function assertInstalled(...programs: string[]): void {
  for (const program of programs) {
    const { error } = spawnSync(program, ['--version'])
    assert.equal(error, undefined, `This test needs ${program}, which is not installed here`)
  }
}

async function start(command: string[], env: Record<string, string>): Promise<Cli> {
  assertInstalled('python3', 'curl')
  const [program = '', ...args] = command
  return Cli.run(program, args, env)
}

async function post(cli: Cli, text: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`${cli.url}/q/squares?wait=20&attempts=1`, {
    method: 'POST',
    body: text,
    headers: { authorization: 'Bearer poster' },
  })
  return { status: response.status, text: await response.text() }
}

const serve = () => Cli.serve(['--token', 'submit=poster', '--token', 'work=worker'])

/** Jobs that are no numbers, or that a parser could stumble over. */
const HOSTILE = [
  '"$(touch /tmp/hostile)"',
  `${'['.repeat(990)}${']'.repeat(990)}`,
  '"\\u0000\\r\\nX-Lease: forged"',
]

for (const [language, { command, refusal }] of Object.entries(WORKERS)) {
  test(`cli workers - a worker in ${language} takes jobs under a lease, finishes and fails them`, async () => {
    await using cli = await serve()
    const env = { TOKEN: 'worker', TMPDIR: await temporaryFolder() }
    await using _ = await start(await command(cli.url), env)
    const squares = await Promise.all(['3', '4', '12'].map((job) => post(cli, job)))
    assert.deepEqual(
      squares,
      ['9', '16', '144'].map((text) => ({ status: 200, text })),
    )
    const [first = '', ...others] = HOSTILE
    const failed = await post(cli, first)
    assert.equal(failed.status, 500)
    assert.match(failed.text, refusal)
    for (const job of others) assert.equal((await post(cli, job)).status, 500)
    // A failure ends a job, not its worker.
    assert.equal((await post(cli, '5')).text, '25')
    assert.deepEqual(await readdir(env.TMPDIR), [], 'it left a file')
  })

  test(`cli workers - a worker in ${language} tells its result again if the answer was lost, and ends by SIGTERM`, async () => {
    await using cli = await serve()
    await using relay = await HttpRelay.start(cli.url)
    let lost = 0
    relay.fate = ({ method }) => (method === 'PUT' && lost++ === 0 ? { status: 503 } : 'pass')
    const env = { TOKEN: 'worker', TMPDIR: await temporaryFolder() }
    await using worker = await start(await command(relay.url), env)
    assert.equal((await post(cli, '6')).text, '36')
    await until(() => relay.open.some((open) => open.startsWith('GET')), { what: 'its next request' })
    worker.signal('SIGTERM')
    assert.equal(await worker.exits(30_000), 0)
    assert.deepEqual(relay.open, [])
  })
}
