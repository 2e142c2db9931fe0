import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isRemote, Locker, RedisQueue, RemoteError } from '../../src/index.ts'
import { setup } from '../support/setup.ts'
import { until } from '../support/wait.ts'

class ValidationError extends Error {
  override readonly name = 'ValidationError'
  readonly field: string
  constructor(field: string) {
    super(`${field} is missing`)
    this.field = field
  }
}

test('remote - isRemote tells a failure by its name, where it was thrown and elsewhere', async () => {
  await using t = await setup()
  await using here = new Locker({ redis: t.redis })
  await using there = new Locker({ redis: t.redis })
  let fail: (error: Error) => void = () => {}
  const failures = [here.run('key', () => new Promise((_, reject) => (fail = reject)))]
  await until(async () => (await here.peek('key')).status === 'locked', { what: 'the work to run' })
  failures.push(there.run('key', () => 'not run'))
  await until(async () => (await here.peek('key')).lock?.parked === 1, { what: 'the other to wait' })
  fail(new ValidationError('title'))
  for (const [index, failure] of failures.entries()) {
    const error: unknown = await failure.catch((thrown: unknown) => thrown)
    assert.ok(isRemote(error) && isRemote(error, 'OtherError', 'ValidationError'))
    assert.ok(!isRemote(error, 'OtherError'))
    const name: 'OtherError' | 'ValidationError' = error.remote.name
    assert.deepEqual([name, error.remote.fields?.['field']], ['ValidationError', 'title'])
    // The original error exists only in the process in which it was thrown.
    assert.equal(error.cause instanceof ValidationError, index === 0)
  }
})

test('remote - isRemote knows a RemoteError of another copy by its shape, and nothing else', () => {
  const copy = Object.assign(new Error('no'), { code: 'E_REMOTE', remote: { name: 'A', message: 'no' } })
  assert.ok(isRemote(copy, 'A'))
  assert.ok(isRemote(new RemoteError({ name: 'A', message: 'no' }), 'A'))
  for (const other of [undefined, null, 'A', new ValidationError('x'), { code: 'E_REMOTE' }])
    assert.ok(!isRemote(other))
})

test('remote - a command that is processed twice is a coded error', async () => {
  await using queue = new RedisQueue('queue')
  queue.process('command', () => 1)
  assert.throws(() => queue.process('command', () => 2), {
    name: 'DuplicateWorkerError',
    code: 'E_DUPLICATE_WORKER',
    key: 'command',
  })
})
