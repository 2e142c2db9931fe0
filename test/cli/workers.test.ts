import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { Cli } from '../support/cli.ts'
import { ROOT } from '../support/compiled-output.ts'
import { temporaryFolder } from '../support/lifeline.ts'

/** Each worker of the examples, by the command that runs it. */
const WORKERS = {
  curl: ['sh', 'worker.sh'],
  Python: ['python3', 'worker.py'],
} as const

/** Fails, rather than skips, where a program is missing: an untried example is none. */
function assertInstalled(...programs: string[]): void {
  for (const program of programs) {
    const { error } = spawnSync(program, ['--version'])
    assert.equal(error, undefined, `This test needs ${program}, which is not installed here`)
  }
}

for (const [language, [command, file]] of Object.entries(WORKERS)) {
  test(`cli workers - a worker in ${language} takes jobs under a lease, finishes and fails them`, async () => {
    assertInstalled('python3', 'curl')
    await using cli = await Cli.serve(['--token', 'submit=poster', '--token', 'work=worker'])
    const env = { TOKEN: 'worker', TMPDIR: await temporaryFolder() }
    await using _ = Cli.run(command, [join(ROOT, 'examples', file), `${cli.url}/q/squares`], env)
    const post = async (job: unknown) => {
      const response = await fetch(`${cli.url}/q/squares?wait=20&attempts=1`, {
        method: 'POST',
        body: JSON.stringify(job),
        headers: { authorization: 'Bearer poster' },
      })
      return { status: response.status, text: await response.text() }
    }
    const squares = await Promise.all([3, 4, 12].map(post))
    assert.deepEqual(
      squares,
      ['9', '16', '144'].map((text) => ({ status: 200, text })),
    )
    const failed = await post('$(touch /tmp/hostile)')
    assert.equal(failed.status, 500)
    assert.match(failed.text, language === 'curl' ? /not a whole number/ : /can't multiply sequence/)
    // A failure ends a job, not its worker.
    assert.equal((await post(5)).text, '25')
  })
}
