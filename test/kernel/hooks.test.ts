// U3: an error that a hook or listener of the user throws or rejects with is reported as a warning. It ends neither the
// process nor the wait of any caller.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { HooksHandlers } from '../support/hooks-child.ts'
import { Child } from '../support/process.ts'
import { setup } from '../support/setup.ts'

const FILE = new URL('../support/hooks-child.ts', import.meta.url)

interface Warned {
  name: string
  message: string
  code: string | undefined
}

/** Waits until each of these hooks has emitted its warning and its event. */
async function heard(child: Child<HooksHandlers>, hooks: Record<string, string>): Promise<void> {
  for (const [hook, error] of Object.entries(hooks)) {
    const { name, code } = await child.next<Warned>(
      'warned',
      ({ message }) => message === `\`${hook}\` failed: ${error}`,
    )
    assert.deepEqual([name, code], ['SoloflightWarning', 'E_HOOK'])
    await child.next<string>('hook', (told) => told === hook)
  }
}

for (const rejects of [false, true]) {
  const how = rejects ? 'rejects' : 'throws'

  test(`U3 hooks - a hook of a queue ${how}`, async () => {
    await using t = await setup()
    for (const path of [undefined, t.server.path]) {
      await using child = await Child.fork<HooksHandlers>(FILE)
      assert.deepEqual(await child.call('run', path, rejects), [1, 2, 'E_REMOTE', 3], child.output)
      await heard(child, {
        "on('submitted')": 'submitted',
        "on('active')": 'active',
        "on('completed')": 'completed',
        "on('retrying')": 'retrying',
        "on('failed')": 'failed',
        watch: 'watch',
        onProgress: 'onProgress',
        trace: 'trace',
        backoff: 'backoff',
        exposeError: 'exposeError',
      })
    }
  })

  test(`U3 hooks - a hook of a locker ${how}`, async () => {
    await using t = await setup()
    for (const path of [undefined, t.server.path]) {
      await using child = await Child.fork<HooksHandlers>(FILE)
      const failed = ['E_REMOTE', 'Error']
      assert.deepEqual(
        await child.call('works', path, rejects),
        ['good', 'good', failed, failed, failed, [1, 1]],
        child.output,
      )
      await heard(child, { onProgress: 'onProgress', trace: 'trace', exposeError: 'exposeError' })
    }
  })

  test(`U3 hooks - a hook of an HTTP handler ${how}`, async () => {
    await using child = await Child.fork<HooksHandlers>(FILE)
    assert.deepEqual(await child.call('requests', rejects), [500, 0], child.output)
    await heard(child, { onError: 'onError', next: 'next' })
  })
}

test('U3 hooks - each different failure is warned of once', async () => {
  await using child = await Child.fork<HooksHandlers>(FILE)
  await child.call('run', undefined, false)
  let warnings = 0
  child.on('warned', (warning) => {
    if ((warning as Warned).message.startsWith('`onProgress`')) warnings++
  })
  await child.call('run', undefined, false)
  await child.call('works', undefined, false)
  assert.equal(warnings, 0)
})
